"""How often a step waits for the device: a few times, however many layers there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.runtime.solvers import cg

from ..transfers import Transfers, counted

# A step checks its data and reads loss and gradient at once, then what its rule measures, then
# the loss at the new point. Gathering factors and factorising them is one transfer each. Units of
# a relative damping come with a gathering; noise alone adds nothing.
PLAIN, GATHERED, FACTORISED, UNITS = 3, 1, 1, 1
MOST_PLAIN, MOST_REFRESH = 4, 8

KRONECKER = {"FITRE": nt.FITRE, "KFAC": nt.KFAC, "KFRA": nt.KFRA, "KFLR": nt.KFLR}
# KFRA and EA-CG refuse the batch statistics of `images`.
# The steps by (gathered, factorisations), and how many transfers each of them makes. Every 20
# steps KFAC's rule tries three dampings, each with its own factorisation; every 5 steps at first a
# damping that follows its model does.
KINDS: dict[tuple[str, str | None], dict[tuple[int, int], int]] = {
    ("FITRE", None): {(0, 0): 3, (1, 1): 5},
    ("KFAC", None): {(1, 0): 4, (1, 1): 5, (1, 2): 6},
    ("KFRA", None): {(0, 0): 3, (0, 1): 4, (1, 1): 5, (1, 3): 7},
    ("KFLR", None): {(0, 0): 3, (0, 1): 4, (1, 1): 5, (1, 3): 7},
    ("FITRE", "wiener"): {(0, 0): 3, (0, 2): 5, (1, 1): 6, (1, 3): 8},
    ("KFAC", "wiener"): {(1, 0): 5, (1, 1): 6, (1, 3): 8},
    ("KFRA", "wiener"): {(0, 0): 3, (0, 2): 5, (1, 1): 6, (1, 3): 8},
    ("KFLR", "wiener"): {(0, 0): 3, (0, 2): 5, (1, 1): 6, (1, 3): 8},
}


def chain(depth: int) -> nt.Sequential:
    hidden = [layer for _ in range(depth) for layer in (nt.Linear(4), nt.Tanh())]
    return nt.Sequential(*hidden, nt.Linear(3))


def images(depth: int) -> nt.Sequential:
    """Convolutions in groups, batch norm by momentum and by plain means, maps of several sizes."""
    hidden = [
        layer
        for i in range(depth)
        for layer in (
            nt.Conv2d(4, 3, padding=1, groups=1 + i % 2),
            nt.BatchNorm2d(momentum=None if i % 2 else 0.1),
            nt.SiLU(),
        )
    ]
    return nt.Sequential(*hidden, nt.MaxPool2d(2), nt.Flatten(), nt.Linear(3))


SHAPES: dict[Callable[[int], nt.Sequential], tuple[int, ...]] = {chain: (4,), images: (4, 4, 4)}


def made(
    net: Callable[[int], nt.Sequential], depth: int, loss: Any = None, **options: Any
) -> tuple[nt.Model, Tensor, Tensor]:
    """A model with weight decay, and a batch."""
    criterion = nt.CrossEntropyLoss() if loss is None else loss
    options = {"backend": "aten", "device": "cpu", "weight_decay": 1e-3, **options}
    model = nt.compile(net(depth), SHAPES[net], criterion, **options)
    x = torch.randn(12, *SHAPES[net], generator=torch.Generator().manual_seed(0))
    return model, x, torch.arange(12) % 3


def steps(optimizer: Any, x: Tensor, y: Tensor, count: int) -> Iterator[tuple[Any, Transfers]]:
    """Reports of steps, and the transfers that each has made but for questions of rounding."""
    model = optimizer.model
    rounding = model.loss_rounding
    with counted() as transfers:

        def asked(*tensors: Tensor) -> Tensor:
            transfers.reads["tolist"] -= 1  # of the answer, which is read at once
            with transfers.pause():
                return rounding(*tensors)

        asked.scale = rounding.scale  # type: ignore[attr-defined]
        model.loss_rounding = asked
        for _ in range(count):
            transfers.clear()
            yield optimizer.step(x, y), transfers


CASES = [(name, net) for name in KRONECKER for net in SHAPES if (name, net) != ("KFRA", images)]
NOISES = pytest.mark.parametrize("noise", [None, "wiener"])


@NOISES
@pytest.mark.parametrize(("name", "net"), CASES)
def test_a_step_on_kronecker_factors_makes_few_transfers_at_any_depth(
    name: str, net: Callable[[int], nt.Sequential], noise: str | None
) -> None:
    for depth in (2, 9) if net is chain else (1, 4):
        model, x, y = made(net, depth)
        optimizer = KRONECKER[name](model, noise=noise)
        gathering = GATHERED + UNITS * (noise is not None)
        seen: dict[tuple[int, int], int] = {}
        gathered = factorised = 0
        for _, transfers in steps(optimizer, x, y, 24 if net is chain else 8):
            kind = (
                optimizer.curvature.gathered - gathered,
                optimizer.solver.factorisations - factorised,
            )
            gathered, factorised = gathered + kind[0], factorised + kind[1]
            made_ = sum(transfers.reads.values())
            assert made_ == PLAIN + gathering * kind[0] + FACTORISED * kind[1], transfers.reads
            assert made_ <= (MOST_REFRESH if any(kind) else MOST_PLAIN)
            assert not sum(transfers.copies.values()), transfers.copies
            seen[kind] = made_
        if net is chain:
            expected = KINDS[name, noise]
            assert seen.items() <= expected.items()
            assert max(seen.values()) == max(expected.values())
            assert min(seen.values()) == min(expected.values())


CG: dict[str, Callable[..., Any]] = {
    "EACG": nt.EACG,
    "NewtonCG": nt.NewtonCG,
    "NewtonCG, hessian": lambda model, **options: nt.NewtonCG(
        model, curvature="hessian", sample=1.0, **options
    ),
}


@NOISES
@pytest.mark.parametrize(
    ("name", "net"),
    [(name, net) for name in CG for net in SHAPES if (name, net) != ("EACG", images)],
)
def test_conjugate_gradients_add_a_transfer_for_each_iteration(
    name: str,
    net: Callable[[int], nt.Sequential],
    noise: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All layers take an iteration together; a line search adds one for each halving.

    Besides, EA-CG gathers factors at every step, and NewtonCG takes a sample, which is checked as
    all data are.
    """
    rounds, read = [0], cg.read

    def counting(*numbers: Tensor) -> Any:
        rounds[0] += 1
        return read(*numbers)

    monkeypatch.setattr(cg, "read", counting)
    for depth in (2, 9) if net is chain else (1, 4):
        model, x, y = made(net, depth)
        optimizer = CG[name](model, noise=noise)
        besides = PLAIN + (optimizer.sample < 1.0 or name == "EACG")
        for report, transfers in steps(optimizer, x, y, 4):
            assert 0 < rounds[0] <= optimizer.solver.stop.limit
            if name != "EACG":
                assert rounds[0] == report.cg_iterations
            expected = besides + rounds[0] + report.halvings
            assert sum(transfers.reads.values()) == expected, transfers.reads
            assert besides <= MOST_PLAIN
            assert not sum(transfers.copies.values()), transfers.copies
            rounds[0] = 0


@pytest.mark.parametrize("backend", ["triton"])
def test_fused_kernels_make_no_more(backend: str) -> None:
    for depth in (1, 2):
        for name in ("FITRE", "KFAC"):
            model, x, y = made(chain, depth, backend=backend, contractions="fused")
            for _, transfers in steps(KRONECKER[name](model), x[:4], y[:4], 2):
                assert sum(transfers.reads.values()) == KINDS[name, "wiener"][1, 1], transfers.reads
                assert not sum(transfers.copies.values()), transfers.copies


@pytest.mark.parametrize("backend", ["triton"])
def test_nor_do_conjugate_gradients_on_fused_kernels(backend: str) -> None:
    model, x, y = made(chain, 1, backend=backend, contractions="fused")
    for report, transfers in steps(nt.NewtonCG(model), x[:4], y[:4], 1):
        expected = PLAIN + 1 + report.cg_iterations + report.halvings
        assert sum(transfers.reads.values()) == expected, transfers.reads
        assert not sum(transfers.copies.values()), transfers.copies


@pytest.mark.parametrize("loss", [nt.MSELoss(), nt.BCEWithLogitsLoss()], ids=repr)
@pytest.mark.parametrize("rows", [False, True])
def test_labels_are_checked_in_the_same_transfer(loss: Any, rows: bool) -> None:
    model, x, y = made(chain, 2, loss)
    labels = torch.nn.functional.one_hot(y, 3).float() if rows else y
    with counted() as transfers:
        model.linearize(x, labels)
        model.objective(x, labels)
        model.gradient(x, labels)
        model.loss(x, labels)
    assert sum(transfers.reads.values()) == 4, transfers.reads
    assert not sum(transfers.copies.values()), transfers.copies


def test_factors_that_need_more_damping_are_tried_again_together() -> None:
    for depth in (2, 5):
        model, x, y = made(chain, depth, weight_decay=0.0)
        optimizer = nt.FITRE(model, damping=0.0)
        for report, transfers in steps(optimizer, x[:2], y[:2], 1):
            assert report.damping_retries > depth, "each block's damping was raised"
            most = PLAIN + GATHERED + 3 * FACTORISED
            assert sum(transfers.reads.values()) <= most, transfers.reads


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x[0].item(),
        lambda x: float(x[0]),
        lambda x: bool(x[0] > 0),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.numpy(),
        lambda x: torch.equal(x, x),
        lambda x: x.isfinite().all() and 1,
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.linalg.eigh(x.diag()),
        lambda x: torch.linalg.cholesky(x.abs().diag()),
        lambda x: torch.linalg.inv(x.diag()),
        lambda x: int(x.argmax()),
    ],
)
def test_the_counter_sees_every_way_of_reading(read: Callable[[Tensor], object]) -> None:
    x = torch.linspace(0.1, 1.0, 3)
    with counted() as transfers:
        x.square().sum() + torch.linalg.cholesky_ex(x.diag())[0].sum()
        assert not sum(transfers.reads.values())
        read(x)
        assert sum(transfers.reads.values()) >= 1


@pytest.mark.parametrize(
    "copy",
    [lambda x: torch.tensor([1.0]), lambda x: x.new_tensor(2.0), lambda x: torch.as_tensor([1.0])],
)
def test_the_counter_sees_copies_to_the_device(copy: Callable[[Tensor], object]) -> None:
    x = torch.ones(3)
    with counted() as transfers:
        copy(x)
    assert sum(transfers.copies.values()) == 1

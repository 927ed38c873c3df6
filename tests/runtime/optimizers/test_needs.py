"""What a step needs: exact sums, and that a step which fits changes nothing by being counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.runtime import capacity
from newtriton.runtime.capacity import VARIABLE, Need
from newtriton.runtime.optimizers.needs import ITERATED, VECTORS

NET = nt.Sequential(nt.Linear(6), nt.Tanh(), nt.Linear(3))
SIZE = 4 * (5 * 6 + 6 + 6 * 3 + 3)  # bytes of the parameters
A, G = 4 * (6 * 6 + 7 * 7), 4 * (6 * 6 + 3 * 3)  # bytes of all factors A and G


def compiled() -> nt.Model:
    return nt.compile(NET, (5,), nt.CrossEntropyLoss(), backend="aten", device="cpu")


@pytest.fixture
def needs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """The items of every step that is checked, at 8 samples."""
    seen: list[dict[str, int]] = []

    def note(what: str, need: Need, *others: object, **options: object) -> None:
        if what == "a step":
            seen.append({item.what: item.size for item in need(8)})

    monkeypatch.setattr(capacity, "check", note)
    monkeypatch.setenv(VARIABLE, "1")
    return seen


def step(optimizer: Any, samples: int = 8) -> None:
    optimizer.step(torch.randn(samples, 5), torch.arange(samples) % 3)


def test_factors_and_inverses_are_counted_twice_before_there_are_any(
    needs: list[dict[str, int]],
) -> None:
    optimizer = nt.KFAC(compiled())
    step(optimizer)
    step(optimizer, 9)
    first, later = needs
    assert first["flat vectors"] == VECTORS * SIZE
    assert first["A of layer '0', 6 × 6,"] == 4 * 36 and "A of layer '0', 6 × 6," not in later
    assert first["values that factors(kfac, 1) gives"] == A + G
    assert first["inverses of factors"] == 2 * later["inverses of factors"] == 2 * (A + G)
    assert first["values that linearize gives"] == later["values that linearize gives"]


def test_eigenbases_are_counted(needs: list[dict[str, int]]) -> None:
    step(nt.SecondOrder(compiled(), "ekfac", "eigen"))
    assert needs[0]["new bases of factors"] == A + G + 4 * (6 + 7 + 6 + 3)  # and eigenvalues
    assert needs[0]["basis_A of layer '2', 7 × 7,"] == 4 * 49


def test_conjugate_gradients_have_vectors_of_their_own(needs: list[dict[str, int]]) -> None:
    model = compiled()
    free = nt.MatrixFree(model, product="stored-jacobian")
    step(nt.SecondOrder(model, free, "truncated-cg", "levenberg-marquardt"))
    assert needs[0]["flat vectors"] == (VECTORS + ITERATED) * SIZE
    # ∂z/∂s of 8 samples, of 3 outputs by the 6 of the first layer; that of the last is given.
    assert needs[0]["values that jacobian gives"] == 4 * 8 * 3 * 6


def test_a_preconditioner_has_factors_too(needs: list[dict[str, int]]) -> None:
    step(nt.NewtonCG(compiled(), sample=1.0, preconditioner="kfac"))
    assert needs[0]["inverses of factors"] == 2 * (A + G)


@pytest.mark.parametrize("make", [nt.KFAC, nt.FITRE, nt.KFRA, nt.EACG, nt.NewtonCG])
def test_a_size_is_counted_once_and_counting_changes_nothing(
    make: Callable[[nt.Model], nt.SecondOrder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def steps() -> tuple[torch.Tensor, int]:
        asked: list[object] = []
        real = capacity.free
        monkeypatch.setattr(capacity, "free", lambda *given: asked.append(given) or real(*given))
        torch.manual_seed(0)
        optimizer = make(compiled())
        counts = [0]
        for _ in range(4):
            step(optimizer)
            counts.append(len(asked))
        assert counts[2] == counts[-1]
        return optimizer.model.params, counts[-1]

    monkeypatch.setenv(VARIABLE, "inf")
    plain, _ = steps()
    monkeypatch.setenv(VARIABLE, "1e7")
    counted, _ = steps()
    assert torch.equal(plain, counted)


@pytest.mark.parametrize(
    ("cls", "options", "copies"),
    [
        (torch.optim.SGD, {"lr": 0.1}, 0),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, 2),
        (torch.optim.Adam, {}, 6),  # two averages, held twice, and what their quotient is in
        (torch.optim.LBFGS, {"history_size": 7}, 28),
    ],
)
def test_the_state_of_pytorchs_optimizers_is_counted_twice(
    cls: type[torch.optim.Optimizer],
    options: dict[str, Any],
    copies: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[dict[str, int]] = []

    def note(what: str, need: Need, *others: object, **more: object) -> None:
        seen.append({item.what: item.size for item in need(8)})

    monkeypatch.setattr(capacity, "check", note)
    monkeypatch.setenv(VARIABLE, "1")
    optimizer = nt.TorchOptimizer(compiled(), cls, **options)
    step(optimizer)
    step(optimizer)
    (state,) = [found for found in seen if f"the state of {cls.__name__}" in found]
    numbers = state[f"the state of {cls.__name__}"]
    assert copies * SIZE <= numbers <= copies * SIZE + 16  # and counts of steps


def test_a_state_that_does_not_fit_is_refused_and_nothing_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = compiled()
    optimizer, before = nt.TorchOptimizer(model, torch.optim.Adam), model.params.clone()
    monkeypatch.setenv(VARIABLE, "1500")
    with pytest.raises(nt.NewtritonError, match="the state of Adam"):
        step(optimizer, 1)
    assert torch.equal(model.params, before) and not optimizer.optimizer.state
    monkeypatch.setenv(VARIABLE, "inf")
    step(optimizer, 1)

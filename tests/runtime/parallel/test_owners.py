"""Factors that some ranks hold: the same steps, less memory, and as few bytes as that takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.runtime.parallel.owners import placed, rows_of

from .cases import MORE, PRESETS, compiled, cuts, part, samples, trained
from .workers import fresh, with_options, workers

STEPS = 8
NOT_FACTORED = ("EKFAC", "Steihaug", "Adam", "L-BFGS", "NewtonCG", "NewtonCG with batch norm")
FACTORED = [name for name in (*PRESETS, *MORE) if name not in NOT_FACTORED]


def trained_by_owners(
    parallel: nt.DataParallel, memory: str | float, preset: str, size: int
) -> tuple[Any, ...]:
    return trained(with_options(parallel, memory=memory), preset, STEPS, size)


@pytest.mark.parametrize(("size", "memory"), [(3, "owned"), (4, 0.5)])
@pytest.mark.parametrize("preset", FACTORED)
def test_owners_make_the_steps_of_one_rank(preset: str, size: int, memory: str | float) -> None:
    reports, points, _ = trained(None, preset, STEPS)
    found = workers(size)(trained_by_owners, memory, preset, size)
    for of_rank, moved, _ in found:
        error = (moved - points).abs().amax(1) / points.abs().amax(1)
        assert error[0] < 1e-10 and error.max() < 1e-8
        assert [r[1:] for r in of_rank] == [r[1:] for r in reports]
    assert all(torch.equal(moved, found[0][1]) for _, moved, _ in found)


def refused(parallel: nt.DataParallel) -> str:
    """Returns what is said of a curvature whose factors every rank needs."""
    model = compiled("chain", with_options(parallel, memory="owned"))
    with pytest.raises(nt.NewtritonError) as error:
        nt.FITRE(model, factors="ekfac")
    return str(error.value)


def test_ekfac_has_no_owners() -> None:
    for said in workers(2)(refused):
        assert said.startswith("curvature 'ekfac' turns each rank's gradients into every layer's")


def failing(parallel: nt.DataParallel) -> tuple[str, bool]:
    """Returns how a step ends in which one rank cannot factorise, and whether nothing moved."""
    parallel = with_options(fresh(parallel), memory=0.5)
    model = compiled("chain", parallel)
    optimizer, before = nt.FITRE(model), model.params.clone()
    x, y = (part(parallel, t, cuts(24, 4)) for t in samples("chain", 24))
    with pytest.MonkeyPatch.context() as patch:
        if parallel.ranks.rank == 1:
            patch.setattr(nt.KFI, "prepare", lambda *_: 1 / 0)
        with pytest.raises(Exception) as error:
            optimizer.step(x, y)
    return f"{error.typename}: {error.value}", torch.equal(model.params, before)


def test_an_owner_that_fails_ends_the_step_on_all() -> None:
    for rank, (said, unmoved) in enumerate(workers(4)(failing)):
        assert unmoved
        assert said.startswith(
            "ZeroDivisionError" if rank == 1 else "NewtritonError: rank 1 has raised an error"
        )


def columns_of(parallel: nt.DataParallel) -> Tensor:
    """Returns the block of a layer in a curvature whose layers have owners."""
    model = compiled("chain", with_options(parallel, memory="owned"))
    curvature = nt.KroneckerCurvature(model, "kflr")
    x, y = (part(parallel, t, cuts(24, parallel.ranks.size)) for t in samples("chain", 24))
    curvature.update(model.linearize(x, y))
    places = torch.arange(0, model.params.numel(), 7)
    return torch.cat(
        [curvature.blocks.submatrix(places, model.params), curvature.mv(model.params)[None, places]]
    )


def test_operators_are_those_of_all_layers() -> None:
    model = compiled("chain", None)
    curvature = nt.KroneckerCurvature(model, "kflr")
    curvature.update(model.linearize(*samples("chain", 24)))
    places = torch.arange(0, model.params.numel(), 7)
    expected = curvature.blocks.submatrix(places, model.params)
    for found in workers(3)(columns_of):
        assert torch.allclose(found[:-1], expected, rtol=1e-12)
        assert torch.allclose(found[-1], curvature.mv(model.params)[places], rtol=1e-12)


def test_the_longest_work_goes_where_least_is() -> None:
    assert placed({"a": 2.0, "b": 9.0, "c": 5.0, "d": 4.0}, 2) == {"a": 0, "b": 0, "c": 1, "d": 1}
    assert placed({"a": 1.0, "b": 9.0, "c": 1.0, "d": 4.0}, 4) == {"a": 1, "b": 0, "c": 1, "d": 1}
    assert placed({"a": 1.0, "b": 1.0}, 4) == {"a": 0, "b": 1} and not placed({}, 2)
    assert [rows_of(12, f) for f in (0.0, 0.3, 0.5, 0.9, 1.0)] == [1, 3, 6, 6, 12]


# --- what it takes --------------------------------------------------------------------------------

FEW, EVERY = 10, 5  # steps whose calls are counted, and steps between two refreshes of factors
PARAMETERS = 50 * 60 + 60 + 60 * 5 + 5
TRIANGLES = sum(n * (n + 1) // 2 for n in (51, 60, 61, 5))


def counted(
    parallel: nt.DataParallel, make: Callable[[nt.Model], Any]
) -> tuple[float, float, int, str]:
    """Returns bytes sent, directions given, bytes of factors and inverses, what is explained."""
    parallel = with_options(parallel, memory="owned")
    model = compiled("wide", parallel)
    optimizer = make(model)
    size = parallel.ranks.size
    x, y = (part(parallel, t, cuts(24, size)) for t in samples("wide", 24))
    model.objective(x, y)  # ranks compare what they have
    traffic = parallel.ranks.traffic
    traffic.reset()
    for _ in range(FEW):
        optimizer.step(x, y)
    sent, directions = traffic.sent, traffic.calls["broadcast"] / len(model.layers)
    state = optimizer.state_dict()
    kept = [*state["curvature"]["factors"].values(), *state["solver"]["kept"].values()]
    held = sum(x.nbytes for tensors in kept for x in tensors.values())
    return sent, directions, held, model.explain(24)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("preset", [nt.FITRE, nt.KFAC])
def test_bytes_and_memory_of_owners(preset: Callable[..., Any], size: int) -> None:
    """Within 5 % of (3P + ΣT/r)(K − 1)/K numbers a step, where one damping is tried."""
    found = workers(size)(counted, partial(preset, every=EVERY, burn_in=0))
    for sent, directions, held, text in found:
        numbers = (2 * FEW + directions) * PARAMETERS + FEW // EVERY * TRIANGLES
        bound = 8.0 * numbers * (size - 1) / size
        assert bound <= sent <= 1.05 * bound
        assert directions in (FEW, FEW + 4)  # two more where dampings are compared
        assert f"inverses: {held / 2 / 1e6:.3g} MB on this rank, of " in text
        assert f"each layer on 1 of {size} ranks" in text
    layers = (51**2 + 60**2, 61**2 + 5**2)
    assert sorted(held for *_, held, _ in found if held) == sorted(16 * n for n in layers)

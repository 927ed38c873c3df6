"""Factors that some ranks hold: the same steps, less memory, and as few bytes as that takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

import newtriton as nt

from .cases import PRESETS, compiled, cuts, part, samples, trained
from .workers import with_options, workers

STEPS = 8
FACTORED = [n for n in PRESETS if n not in ("EKFAC", "Steihaug", "Adam", "L-BFGS")]
FACTORED = [n for n in FACTORED if not n.startswith("NewtonCG")]


def trained_by_owners(
    parallel: nt.DataParallel, memory: str | float, preset: str, size: int
) -> tuple[Any, ...]:
    return trained(with_options(parallel, memory=memory), preset, STEPS, size)


@pytest.mark.parametrize(("size", "memory"), [(2, "owned"), (3, "owned"), (4, 0.5)])
@pytest.mark.parametrize("preset", FACTORED)
def test_owners_make_the_steps_of_one_rank(preset: str, size: int, memory: str | float) -> None:
    reports, points, _ = trained(None, preset, STEPS)
    found = workers(size)(trained_by_owners, memory, preset, size)
    for of_rank, moved, _ in found:
        error = (moved - points).abs().amax(1) / points.abs().amax(1)
        assert error[0] < 1e-10 and error.max() < 1e-8
        assert [r[1:] for r in of_rank] == [r[1:] for r in reports]
    assert all(torch.equal(moved, found[0][1]) for _, moved, _ in found)


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
    for sent, directions, _, _ in found:
        numbers = (2 * FEW + directions) * PARAMETERS + FEW // EVERY * TRIANGLES
        bound = 8.0 * numbers * (size - 1) / size
        assert bound <= sent <= 1.05 * bound
        assert directions in (FEW, FEW + 4)  # two more where dampings are compared
    layers = (51**2 + 60**2, 61**2 + 5**2)
    assert sorted(held for *_, held, _ in found if held) == sorted(16 * n for n in layers)

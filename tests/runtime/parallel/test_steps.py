"""Steps of every preset on two and three ranks beside those of one, and what they communicate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import newtriton as nt

from .cases import PRESETS, compiled, cuts, part, samples, trained
from .workers import equal_everywhere, workers

STEPS = 20
FEW, EVERY = 10, 5  # steps whose calls are counted, and steps between two refreshes of factors


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("preset", PRESETS)
def test_ranks_make_the_steps_of_one(preset: str, size: int) -> None:
    """One step within 1e-10 and twenty within 1e-8, from equal states by equal decisions."""
    reports, points, buffers = trained(None, preset, STEPS)
    found = workers(size)(trained, preset, STEPS, size)
    for of_rank, moved, statistics in found:
        error = (moved - points).abs().amax(1) / points.abs().amax(1)
        assert error[0] < 1e-10 and error.max() < 1e-8
        assert [r[1:] for r in of_rank] == [r[1:] for r in reports]
        assert torch.allclose(statistics, buffers, rtol=1e-8)
    assert all(torch.equal(moved, found[0][1]) for _, moved, _ in found)


def test_two_runs_are_equal_to_the_bit() -> None:
    first, second = (workers(3)(trained, "FITRE", 6, 3)[0] for _ in range(2))
    assert torch.equal(first[1], second[1]) and first[0] == second[0]


def overflowed(parallel: nt.DataParallel, preset: str) -> tuple[list[str], bool, bool]:
    """A step on a batch of which one rank's part overflows, and one on a good batch."""
    name, make = PRESETS[preset]
    model, ranks = compiled(name, parallel), parallel.ranks
    optimizer, states = make(model), [model.params.clone()]
    x, y = (part(parallel, t, cuts(23, ranks.size)) for t in samples(name, 23))
    large = 1e200 if ranks.rank == 1 else 1.0
    spoilt = (x, y * large) if name == "chain" else (x * large, y)
    reports = []
    for batch in (spoilt, (x, y)):
        report = optimizer.step([batch]) if optimizer.takes_data else optimizer.step(*batch)
        reports.append(f"{report.accepted} {report.status}")
        states.append(model.params.clone())
    equal = equal_everywhere(ranks, torch.stack(states))
    return reports, torch.equal(*states[:2]), equal


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_not_finite_on_one_rank_is_a_refused_step_on_all(preset: str) -> None:
    (reports, unmoved, equal), *others = workers(3)(overflowed, preset)
    assert unmoved and equal and reports[0].startswith("False") and reports[1].startswith("True")
    assert all(other == (reports, unmoved, equal) for other in others)


# --- what is communicated -------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[nt.Model], Any]] = {
    "Adam": lambda m: nt.TorchOptimizer(m, torch.optim.Adam),
    "FITRE": lambda m: nt.FITRE(m, every=EVERY, burn_in=0),
    "KFAC": lambda m: nt.KFAC(m, every=EVERY, burn_in=0),
    "EKFAC": lambda m: nt.FITRE(m, factors="ekfac", every=EVERY, burn_in=0),
    "KFRA": lambda m: nt.KFRA(m, every=EVERY, burn_in=0),
    "Steihaug": lambda m: nt.SecondOrder(m, "ggn", "steihaug", "trust-region"),
    "NewtonCG": lambda m: nt.NewtonCG(m, sample=1.0),
}
PARAMETERS = 50 * 60 + 60 + 60 * 5 + 5
TRIANGLES = sum(n * (n + 1) // 2 for n in (51, 60, 61, 5))
SQUARES = 60**2 + 5**2  # E[φ'φ'ᵀ] and E[B], of which KFRA makes its G
SIDES = sum(n * (n + 1) // 2 for n in (51, 61))


def counted(parallel: nt.DataParallel, name: str) -> tuple[int, int, int, float]:
    """Returns the products that were taken, gatherings, sums, and bytes sent."""
    model = compiled("wide", parallel)
    optimizer = OPTIMIZERS[name](model)
    x, y = (part(parallel, t, (0, 12, 24)) for t in samples("wide", 24))
    model.objective(x, y)  # ranks compare what they have
    traffic = parallel.ranks.traffic
    traffic.reset()
    products = sum(optimizer.step(x, y).cg_iterations or 0 for _ in range(FEW))
    return products, traffic.calls["all_gather"], traffic.calls["all_reduce"], traffic.sent


# By optimizer: gatherings of sizes and sums besides products, a step; sums a refresh; numbers that
# travel a refresh. A sum each is for loss and gradient, forms, and the loss at the new point; one
# more is for how far rounding may move a loss that hardly changes.
EXPECTED = {
    "Adam": (1, 1, 0, 0),
    "FITRE": (2, 3, 1, TRIANGLES),
    "KFAC": (2, 3, 1, TRIANGLES),
    "EKFAC": (2, 3, 3, TRIANGLES + PARAMETERS),
    "KFRA": (2, 3, 3, SIDES + SQUARES),
    "Steihaug": (2, 3, 0, 0),
    "NewtonCG": (2, 3, 0, 0),
}
ROUNDING = 4


@pytest.mark.parametrize("name", EXPECTED)
def test_calls_and_bytes_of_a_step(name: str) -> None:
    """Within 5 % of 2(P + ΣT/r + P a product)(K − 1)/K numbers, and few calls."""
    gathers, sums, of_refresh, numbers = EXPECTED[name]
    for products, gathered, summed, sent in workers(2)(counted, name):
        least = FEW * sums + FEW // EVERY * of_refresh + products
        assert gathered == gathers * FEW
        assert least <= summed <= least + ROUNDING
        elements = (FEW + products) * PARAMETERS + FEW // EVERY * numbers
        bound = 2.0 * 8.0 * elements * (2 - 1) / 2
        assert bound <= sent <= 1.05 * bound

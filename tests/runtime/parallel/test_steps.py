"""Steps of every preset on two and three ranks beside those of one, and what they communicate."""

from __future__ import annotations

import pytest
import torch

from .cases import PRESETS, trained
from .workers import workers

STEPS = 20


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("preset", PRESETS)
def test_ranks_make_the_steps_of_one(preset: str, size: int) -> None:
    """One step within 1e-10 and twenty within 1e-8, from equal states by equal decisions."""
    reports, points, buffers, *_ = trained(None, preset, STEPS)
    found = workers(size)(trained, preset, STEPS, size)
    for of_rank, moved, statistics, *_ in found:
        error = (moved - points).abs().amax(1) / points.abs().amax(1)
        assert error[0] < 1e-10 and error.max() < 1e-8
        assert [r[1:] for r in of_rank] == [r[1:] for r in reports]
        assert torch.allclose(statistics, buffers, rtol=1e-8)
    assert all(torch.equal(moved, found[0][1]) for _, moved, *_ in found)


def test_two_runs_are_equal_to_the_bit() -> None:
    first, second = (workers(3)(trained, "FITRE", 6, 3)[0] for _ in range(2))
    assert torch.equal(first[1], second[1]) and first[0] == second[0]

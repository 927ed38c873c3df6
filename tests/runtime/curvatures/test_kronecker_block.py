"""Blocks that are Kronecker products."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from newtriton.compiler.curvature.factors import KroneckerLayer
from newtriton.runtime.curvatures.kronecker_block import MeanBlock
from newtriton.runtime.model.factors import MeanFactors
from newtriton.runtime.parts.block import Damped

from ..stand_in import positive, seeded


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize("form", Damped)
def test_a_factorisation_does_not_follow_the_averages(form: Damped) -> None:
    """A mean without a bias is its own root: what is kept of it must be a copy."""
    g = positive(3)
    block = MeanBlock(KroneckerLayer("layer", "w", None, 1, (1, 1)), apart=False)
    block.average(MeanFactors(random(4), g, (1, 1), False), 1.0)
    made, m = block.factorise(0.3, form), random(3, 4, seed=1)
    assert made is not None
    before = block.solve(made[0], 0.3, m)
    block.average(MeanFactors(random(4, seed=2), g, (1, 1), False), 0.5)
    assert torch.equal(block.solve(made[0], 0.3, m), before)

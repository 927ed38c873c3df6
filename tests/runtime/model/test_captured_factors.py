"""Factors of captured modules, entry by entry against the Gauss–Newton matrix."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.runtime.curvatures.kronecker_block import KroneckerBlock
from newtriton.runtime.model.factors import DiagonalFactors
from newtriton.runtime.model.moments import SampledFactors
from tests.modules import NETWORKS, criterion_of, labels_of
from tests.tolerances import assert_close


def diagonals(model: nt.Model, factors: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Some unit vectors of a block, and the block's own diagonal entries there."""
    found = []
    block = KroneckerBlock(factors.described) if isinstance(factors, SampledFactors) else None
    if block is not None:
        eyes = [torch.eye(s.shape[-1]).double().expand_as(s) for s in factors.pair.tensors.values()]
        parts = {"": factors.second_moments(*eyes)}
    else:
        parts = factors.diagonal
    for name, diagonal in parts.items():
        # Nothing depends on the biases of attention's keys: their entries are rounding of 0.
        felt = (diagonal.reshape(-1) > 1e-20 * diagonal.max()).nonzero().flatten()
        for at in felt[torch.randperm(len(felt))[:2]].tolist():
            unit = torch.zeros_like(diagonal)
            unit.view(-1)[at] = 1.0
            v = torch.zeros_like(model.params)
            views = model.layout.views(v)
            views[name].copy_(unit) if block is None else block.write(views, unit)
            found.append((v, diagonal.reshape(-1)[at]))
    return found


@pytest.mark.parametrize("name", ["gpt", "autoencoder", "recurrence"])
def test_exact_moments_are_entries_of_the_gauss_newton_matrix(name: str) -> None:
    """Of a root of B the diagonals have no error: nothing is missed, cut or in another order."""
    torch.manual_seed(0)
    module, x = NETWORKS[name].make().double(), NETWORKS[name].batch(3)
    z = copy.deepcopy(module)(x).detach()
    model = nt.from_torch(module, x, criterion_of(z), backend="aten")
    lin = model.linearize(x, labels_of(z), training=False)
    found = lin.kronecker_factors("kflr", per_sample=True)
    kinds = (DiagonalFactors, SampledFactors)
    of_pairs = {layer for layer, factors in found.items() if not isinstance(factors, kinds)}
    assert of_pairs == {"gpt": {"wte"}, "autoencoder": {"decoder.0", "decoder.2"}}.get(name, set())
    for layer in found.keys() - of_pairs:
        for v, entry in diagonals(model, found[layer]):
            assert_close(entry, v @ lin.data_product(v, "ggn"), layer)


def test_frozen_parameters_of_a_module_have_no_block() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    module[0].requires_grad_(False)
    model = nt.from_torch(module, torch.randn(3, 3), nt.MSELoss(), backend="aten")
    assert [block.layer for block in model.blocks] == ["2"]

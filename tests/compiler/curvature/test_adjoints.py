"""Columns of roots of B as copies of adjoints."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import newtriton as nt
from tests.positions import F64, K, Oracle, T, compiled, labels
from tests.tolerances import assert_close

LOSSES = [
    nt.CrossEntropyLoss([0.25, 2.0, 1.0], label_smoothing=0.2, ignore_index=1),
    nt.BCEWithLogitsLoss(pos_weight=[0.25, 2.0, 1.0]),
]


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_columns_of_a_root_are_apart_where_positions_meet(loss: nt.Loss):
    """With one sample and frozen activations the block of a layer is exact: JᵀBJ = ΣĀ⊗G."""
    model, module, x = compiled(loss, sequences=True)
    y = labels(loss, True, 0)
    lin = model.linearize(x, y)
    adjoint = lin.kronecker_factors("kflr", layers=["1"])["1"].G  # type: ignore[union-attr]
    at = model.unflatten(torch.arange(model.params.numel()))["1.bias"]
    oracle = Oracle(model, module, loss, x, y)
    pulled = torch.zeros(4, 4, dtype=F64)
    states = module[:2](x)  # N×T×4: what the first layer gives

    def rest(s: Tensor) -> Tensor:
        return module[2:](s).flatten()

    jacobian = torch.autograd.functional.jacobian(rest, states).reshape(-1, 6 * T, 4)
    for position in range(6 * T):
        j = jacobian[:, position]
        pulled += j.mT @ oracle.b @ j
    assert_close(adjoint, pulled)
    assert at.numel() == 4


def test_more_copies_than_the_limit_are_refused_with_their_number():
    model, _, x = compiled(LOSSES[0], sequences=True)
    lin = model.linearize(x, labels(LOSSES[0], True, 0))
    with pytest.raises(nt.NewtritonError, match=rf"{K}·{T} = 9 of them, and max_copies is 8"):
        lin.kronecker_factors("kflr", max_copies=8)
    assert lin.kronecker_factors("kflr", max_copies=9).keys() == {"1", "5"}

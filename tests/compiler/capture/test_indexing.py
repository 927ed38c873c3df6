"""Elements at indices that are computed: ways to write them, and places outside."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt

from ...modules import Written


def shifted(m: nn.Module, ids: Tensor) -> Tensor:
    return m.e(ids + 2).sum(1)


def picked(m: nn.Module, ids: Tensor) -> Tensor:
    return m.e.weight[ids - 1].sum(1)


def along(m: nn.Module, ids: Tensor) -> Tensor:
    return torch.gather(m.e.weight.expand(ids.shape[0], 5, 3), 1, (ids * 2)[:, :3, None])[..., 0]


@pytest.mark.parametrize("call", [shifted, picked, along])
def test_computed_indices_are_read_exactly_and_are_nan_outside(
    call: Callable[[nn.Module, Tensor], Tensor],
) -> None:
    module = Written(call, e=nn.Embedding(5, 3))
    example = torch.zeros(2, 4, dtype=torch.long)
    model = nt.from_torch(module, example, nt.CrossEntropyLoss(), backend="aten")
    ids = torch.tensor([[0, 1, 2, 2], [1, 1, 0, 2], [2, 0, 0, 1]])
    with torch.no_grad():
        assert torch.allclose(model(ids), module(ids))
        outside = model(torch.tensor([[0, 1, 2, 2], [0, 6, 0, 0]]))
    assert outside[0].isfinite().all()
    assert outside[1].isnan().any()

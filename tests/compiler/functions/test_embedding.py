"""Rows of a table against PyTorch's embedding, and the row without a gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from newtriton.compiler.functions import embedding
from newtriton.compiler.graph.ir import Node

from .oracle import assert_agrees, random


@pytest.mark.parametrize("padding", [None, 0, 2, -1])
@pytest.mark.parametrize("shape", [(3,), (3, 4), (2, 3, 2)])
def test_rows_of_a_table(shape: tuple[int, ...], padding: int | None) -> None:
    index = torch.randint(0, 5, shape, generator=torch.Generator().manual_seed(1))
    index.view(-1)[:2] = torch.tensor([2, 4])

    def ours(index: Node, table: Node, _: object) -> Node:
        return embedding.embedding(table, index, padding)

    def theirs(index: Tensor, table: Tensor) -> Tensor:
        return functional.embedding(index, table, padding)

    assert_agrees(ours, theirs, index, random(5, 3))

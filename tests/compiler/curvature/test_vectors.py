"""Moments of vectors at positions, in the graph, against dense ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from newtriton.compiler.curvature.vectors import (
    Vectors,
    by_sample,
    diagonal_matrix,
    reciprocal,
)
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Graph, N, Node
from newtriton.runtime.aten.executor import AtenBackend
from newtriton.runtime.backend import Context
from tests.tolerances import assert_close

BATCH, F64 = 3, torch.float64
WINDOW = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def value(node: Node, given: dict[Node, Tensor]) -> Tensor:
    backend = AtenBackend(torch.device("cpu"))
    executor: Any = backend.executor(Graph("test", {"out": node}), ())
    return executor(Context(BATCH, F64, torch.device("cpu")), given)[node]


def rows() -> tuple[Vectors, dict[Node, Tensor], Tensor]:
    """Vectors at 4 positions, and as groups×N×T×D."""
    x = ops.input_("x", (N, 4, 6))
    values = torch.randn(BATCH, 4, 6, dtype=F64)
    dense = values.unflatten(2, (2, 3)).permute(2, 0, 1, 3)
    return Vectors(x, 4, 2), {x: values}, dense


def patches() -> tuple[Vectors, dict[Node, Tensor], Tensor]:
    x = ops.input_("x", (N, 5, 6, 4))
    values, options = torch.randn(BATCH, 5, 6, 4, dtype=F64), dict(WINDOW)
    options.pop("groups")
    windows = functional.unfold(values.permute(0, 3, 1, 2), (3, 2), **options)  # type: ignore[arg-type]
    dense = windows.unflatten(1, (2, 2, 6)).permute(1, 0, 4, 3, 2).flatten(3)  # (tap, channel)
    return Vectors(x, dense.shape[2], 2, (3, 2), WINDOW), {x: values}, dense


def lookups() -> tuple[Vectors, dict[Node, Tensor], Tensor]:
    x = ops.input_("x", (N, 4), "int")
    index = torch.randint(0, 5, (BATCH, 4))
    return Vectors(x, 4, size=5), {x: index}, functional.one_hot(index, 5).double()[None]


KINDS = [rows, patches, lookups]


@pytest.mark.parametrize("homogeneous", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_grams_and_their_diagonals(kind: Any, homogeneous: bool) -> None:
    vectors, given, dense = kind()
    flat = dense.flatten(1, 2)
    assert_close(value(vectors.total(), given).reshape(len(dense), -1), flat.sum(1), "total")
    if homogeneous:
        flat = torch.cat([flat, flat.new_ones(*flat.shape[:-1], 1)], -1)
    expected, scale = flat.mT @ flat / flat.shape[1], reciprocal(float(vectors.positions))
    squares = value(vectors.squares(homogeneous, scale), given)
    assert_close(squares.reshape(len(dense), -1), expected.diagonal(dim1=-2, dim2=-1), "squares")
    if kind is not lookups:
        gram = value(vectors.gram(homogeneous, scale), given)
        assert_close(gram, expected, "gram")
    elif not homogeneous:
        assert_close(
            value(vectors.gram(False, scale), given), expected[0].diagonal().diag(), "gram"
        )


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("kind", [rows, patches])
def test_one_vector_for_each_sample(kind: Any, mean: bool) -> None:
    vectors, given, dense = kind()
    single = vectors.of_samples(1, 0, mean)
    assert single.positions == 1
    found = value(single.value, given).unflatten(1, (2, -1)).transpose(0, 1)
    assert_close(found, dense.mean(2) if mean else dense.sum(2))


@pytest.mark.parametrize("copies", [(), (2,)])
def test_rows_by_sample_wherever_the_samples_are(copies: tuple[int, ...]) -> None:
    x = ops.input_("x", (*copies, 2, N * 6, 3))  # N between 3 positions and 2
    values = torch.randn(*copies, 2, 3, BATCH, 2, 3, dtype=F64)
    lead = len(copies)
    found = value(by_sample(x, 3, lead), {x: values.reshape(*copies, 2, BATCH * 6, 3)})
    expected = values.movedim(lead + 2, lead).reshape(*copies, BATCH, 12, 3)
    assert_close(found, expected)


def test_a_diagonal_matrix() -> None:
    v = ops.input_("v", (4,))
    numbers = torch.randn(4, dtype=F64)
    assert torch.equal(value(diagonal_matrix(v), {v: numbers}), numbers.diag())

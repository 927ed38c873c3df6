"""The matrix over trained parameters, against columns of products."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.diagnostics.matrices import TrainedMatrix, signs
from tests.tolerances import assert_close

from ..problems import dense, parts_of, problem


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_is_the_matrix_of_h_without_frozen_parameters(matrix: str) -> None:
    model, [(x, y)] = problem("mlp", weight_decay=0.1)
    dict(model.named_parameters())["0.bias"].requires_grad_(False)
    lin = model.linearize(x, y)
    found = TrainedMatrix(lin, matrix)
    whole = dense(lin.hvp if matrix == "hessian" else lin.ggnvp, model.layout.numel)
    assert len(found) == model.layout.numel - 5
    assert_close(found.dense(), whole[found.places][:, found.places])
    assert found.products == len(found)


def test_many_columns_take_one_pass_through_data() -> None:
    model, [(x, y)] = problem("mlp")
    passes = list[int]()

    class Counted:
        def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            passes.append(1)
            return iter(parts_of(x, y))

    found = TrainedMatrix(nt.LinearizedData(model, Counted()), "ggn")
    passes.clear()
    assert_close(found.dense(), TrainedMatrix(model.linearize(x, y), "ggn").dense())
    assert len(passes) == 1


def test_products_that_are_not_finite_are_told() -> None:
    model, [(x, y)] = problem("mlp")
    model.params.fill_(math.nan)
    matrix = TrainedMatrix(model.linearize(x, y), "hessian")
    with pytest.raises(NewtritonError, match="not finite"):
        matrix(torch.ones_like(matrix.like))


def test_signs_are_those_of_the_seed() -> None:
    first, second = (signs(torch.ones(50), 4, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert set(first.unique().tolist()) == {-1.0, 1.0}

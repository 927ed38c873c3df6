"""The largest error of an element counts; indices are right where what they choose is as good."""

import math

import pytest
import torch
from torch import Tensor

from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N, Node, Op
from newtriton.runtime.backend import Context
from newtriton.runtime.checking.judging import largest_error
from newtriton.runtime.rounding.bounded import Bounded
from newtriton.runtime.rounding.bounds import Arithmetic, bounded

UNIT = 2e-6
ARITHMETIC = Arithmetic(Context(1, torch.float64, torch.device("cpu")), UNIT)


def judged(written: list[float], value: list[float], error: Tensor | float) -> float:
    node = ops.input_("x", (N, len(value)))
    expected = Bounded(torch.tensor([value], dtype=torch.float64), error)
    return largest_error(node, torch.tensor(written), {node: expected}, ARITHMETIC)


def test_the_error_of_the_worst_element_counts():
    bound = torch.tensor([[UNIT, 100 * UNIT]], dtype=torch.float64)
    assert judged([1.0 + 1e-5, 1.0], [1.0, 1.0], bound) == pytest.approx(1e-5, rel=0.1)
    assert judged([1.0, 1.0 + 1e-5], [1.0, 1.0], bound) == pytest.approx(1e-7, rel=0.1)
    assert judged([2.0, 1.0 + 1e-5], [2.0, 1.0], 0.0) > 1.0  # nothing but the value is right


def test_nan_is_right_where_it_should_be_alone():
    nan, inf = math.nan, math.inf
    assert judged([nan, inf], [nan, inf], 1.0) == 0.0
    assert judged([nan, 1.0], [1.0, 1.0], 1.0) == inf
    assert judged([nan, 1.0], [1.0, 1.0], torch.tensor([[inf, 1.0]]).double()) == inf
    assert judged([1.0, 1.0], [nan, 1.0], 1.0) == inf
    assert judged([7.0, 1.0], [1.0, 1.0], torch.tensor([[inf, 1.0]]).double()) == 0.0


def pool(exact: bool) -> tuple[Node, Node]:
    x = ops.input_("x", (N, 2, 4, 1))
    window = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1)}
    return x, ops.make(Op.ARGMAX_POOL, x if exact else ops.multiply(x, x), **window)


@pytest.mark.parametrize(
    ("place", "exact", "right"),
    [
        (0, True, True),
        (5, True, False),  # of equals the first
        (0, False, True),
        (5, False, True),  # up to rounding it is the largest
        (4, False, False),
        (2, False, False),  # as large, in another window
        (-1, False, False),
    ],
)
def test_an_index_of_a_maximum_may_be_another_near_tie(place: int, exact: bool, right: bool):
    x, node = pool(exact)
    image = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.5, 1.0, 0.0, 0.0]]).view(1, 2, 4, 1)
    found = bounded([node], {x: image}, ARITHMETIC)
    written = torch.tensor([place, 2], dtype=torch.int32)
    assert (largest_error(node, written, found, ARITHMETIC) == 0.0) is right


@pytest.mark.parametrize(
    ("u", "drawn", "right"),
    [(0.25, 0, True), (0.25, 1, False), (0.5, 0, True), (0.5, 1, True), (0.75, 1, True)],
)
def test_a_class_is_right_where_its_probability_is_near_the_number(
    u: float, drawn: int, right: bool
):
    z, uniform = ops.input_("z", (N, 2)), ops.input_("u", (N,))
    node = ops.make(Op.SAMPLE, z, uniform)
    known = {z: torch.zeros(1, 2), uniform: torch.tensor([u])}
    found = bounded([node], known, ARITHMETIC)
    written = torch.tensor([drawn], dtype=torch.int32)
    assert (largest_error(node, written, found, ARITHMETIC) == 0.0) is right


def test_a_moved_index_is_equal_or_may_be_another():
    node = ops.transpose(ops.input_("y", (N, 2), "int"), (1, 0))
    for spread, right in ((0.0, False), (torch.ones(2, 1), True)):
        found = {node: Bounded(torch.tensor([[3], [4]]), spread)}
        error = largest_error(node, torch.tensor([3, 5]), found, ARITHMETIC)
        assert (error == 0.0) is right

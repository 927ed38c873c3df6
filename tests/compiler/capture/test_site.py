"""PyTorch's broadcasting and axes on nodes of the graph."""

import pytest

from newtriton.compiler.capture.site import axes_of, last, permuted, spread
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N, Shape


@pytest.mark.parametrize(
    ("shape", "wide"),
    [
        ((3,), (N, 2, 3)),
        ((1, 1, 3), (N, 2, 3)),
        ((N, 1, 3), (N, 2, 3)),
        ((), (N, 2)),
        ((2, 1), (N, 2, 5)),
    ],
)
def test_values_spread_as_in_pytorch(shape: Shape, wide: Shape) -> None:
    assert spread(ops.input_("v", shape), wide).shape == wide


def test_axes_count_from_the_first() -> None:
    assert axes_of(-1, 3) == (2,)
    assert axes_of([-2, 0], 3) == (0, 1)
    assert axes_of(None, 2) == axes_of([], 2) == (0, 1)


def test_an_axis_moves_to_the_end_and_back() -> None:
    x = ops.input_("v", (N, 2, 3))
    moved, back = last(x, 1)
    assert moved.shape == (N, 3, 2)
    assert permuted(moved, back).shape == x.shape

"""Which values are wide: by what normalises their rows, and by what they are made of."""

from __future__ import annotations

import pytest

from newtriton.compiler.functions.attention import attention, log_softmax
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N, Node, topological
from newtriton.compiler.streaming.wide import MANY, recomputed, trailing, wide_shapes


def scores(queries: int, keys: int, depth: int) -> Node:
    """What attention of two heads gives."""
    q, k = (ops.input_(name, (N, 2, t, depth)) for name, t in (("q", queries), ("k", keys)))
    return attention(q, k, ops.input_("v", (N, 2, keys, 5)))


@pytest.mark.parametrize(
    ("queries", "keys", "depth", "wide"),
    [
        (128, 128, 16, True),
        (128, 128, 64, False),  # no larger than what it is made of
        (129, 128, 64, True),
        (127, 128, 16, False),  # it stays in the cache
        (1024, 1024, 128, True),
        (64, 1024, 16, True),
    ],
)
def test_scores_are_wide_if_larger_than_their_operands(
    queries: int, keys: int, depth: int, wide: bool
) -> None:
    assert wide_shapes([scores(queries, keys, depth)]) == {
        s for s in [(N, 2, queries, keys)] if wide
    }


@pytest.mark.parametrize("classes", [MANY - 1, MANY])
def test_rows_of_many_classes_are_wide_whatever_they_are_made_of(classes: int) -> None:
    z = ops.input_("z", (N, classes))
    assert wide_shapes([log_softmax(z)]) == {s for s in [(N, classes)] if classes >= MANY}


def test_a_layer_that_normalises_no_rows_is_not_wide() -> None:
    x, w = ops.input_("x", (N, 64, 8)), ops.param("w", (4 * MANY, 8))
    assert not wide_shapes([ops.matmul(x, w, tb=True)])


def test_copies_have_a_wide_shape_behind_their_axis() -> None:
    shapes = frozenset({(N, 2, 200, 300)})
    assert trailing((4, N, 2, 200, 300), shapes) == (N, 2, 200, 300)
    assert trailing((N, 2, 200, 30), shapes) is None


def test_a_product_of_long_depth_is_kept() -> None:
    x, w = ops.input_("x", (N, 300)), ops.param("w", (MANY, 300))
    z = ops.matmul(x, w, tb=True)
    again = recomputed(topological([log_softmax(z)]))
    assert again and z not in again

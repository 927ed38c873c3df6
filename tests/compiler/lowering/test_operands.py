"""What contractions read: the contracted axis last, and factors that do not vary in a tile."""

from __future__ import annotations

from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import N, Op
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.lowering.operands import (
    coefficients,
    contraction_operands,
    loop_signature,
    packed,
)
from newtriton.compiler.lowering.precision import is_rounded, rounded

x, y, w = ops.input_("x", (N, 3)), ops.input_("y", (N, 3)), ops.param("w", (3, 4))


def test_the_right_side_of_a_plain_product_is_transposed_unless_a_library_multiplies() -> None:
    product = ops.matmul(x, w)
    assert contraction_operands(product, by_vendor=False) == [x, ops.transpose(w, (1, 0))]
    assert contraction_operands(product, by_vendor=True) == [x, w]
    last = ops.matmul(x, ops.param("v", (4, 3)), tb=True)
    assert contraction_operands(last, by_vendor=False) == [*last.inputs]


def test_reshapes_are_read_through() -> None:
    flat = ops.reshape(ops.input_("image", (N, 1, 3)), (N, 3))
    product = ops.matmul(flat, ops.param("v", (4, 3)), tb=True)
    assert contraction_operands(product, by_vendor=False)[0] is flat.inputs[0]


def test_weights_of_an_input_gradient_lie_by_group_with_outputs_last() -> None:
    window = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 2}
    ct, weights = ops.input_("ct", (N, 4, 4, 6)), ops.param("w", (6, 3, 2, 5))
    back = ops.make(Op.CONV_INPUT_GRAD, ct, weights, size=(6, 5), **window)
    _, moved = contraction_operands(back, by_vendor=False)
    assert moved.op is Op.TRANSPOSE and moved.shape == (2, 5, 3, 2, 3)
    assert contraction_operands(back, by_vendor=True) == [ct, weights]


def test_what_is_rounded_is_rounded_when_it_is_moved() -> None:
    moved = packed(rounded(w, "tf32"), (3, 4), (1, 0))
    assert is_rounded(moved)
    assert moved.inputs == (ops.transpose(w, (1, 0)),)


def test_factors_are_numbers_or_one_number_for_the_whole_tile() -> None:
    v = ops.param("v", (3, 3))
    a, b = ops.matmul(x, v, tb=True), ops.matmul(y, v, tb=True)
    number = ops.broadcast(ops.input_("c", ()), (N, 3))
    assert coefficients(ops.map_(var(0) - 2.0 * var(1), a, b), [a, b]) == [
        scalar.const(1.0), scalar.const(-2.0)
    ]  # fmt: skip
    assert coefficients(ops.map_(var(0) * var(1), a, number), [a]) == [var(1)]
    assert coefficients(ops.map_(var(0) * var(1), a, x), [a]) is None


def test_products_of_one_geometry_can_share_a_loop() -> None:
    v, u = ops.param("v", (5, 3)), ops.param("u", (6, 3))
    one, same, other = (ops.matmul(a, b, tb=True) for a, b in ((x, v), (y, v), (x, u)))
    assert loop_signature(one) == loop_signature(same) != loop_signature(other)

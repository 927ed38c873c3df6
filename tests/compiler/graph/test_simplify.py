"""Rewrites give the simpler graph that was meant, and no other."""

from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import N, Node
from newtriton.compiler.graph.scalar import BATCH, var
from newtriton.compiler.graph.simplify import simplify

x = ops.input_("x", (N, 1, 1, 4))
flat = ops.input_("f", (N, 4))


def after(node: Node) -> Node:
    return simplify({"y": node})["y"]


def test_constants_move_into_maps() -> None:
    seed = ops.broadcast(ops.const(scalar.reciprocal(BATCH)), flat.shape)
    assert after(ops.multiply(flat, seed)) is ops.scale(flat, scalar.reciprocal(BATCH))


def test_a_map_that_gives_its_operand_is_that_operand() -> None:
    assert after(ops.map_(var(1) * 1.0, x, x)) is x


def test_operands_stand_once_and_only_where_they_are_read() -> None:
    assert after(ops.map_(var(0) + var(2), flat, ops.scale(flat, 2.0), flat)) is ops.scale(
        flat, 2.0
    )
    assert after(ops.map_(var(1) * var(1), x, flat_like(x))) is ops.map_(
        var(0) * var(0), flat_like(x)
    )


def flat_like(node: Node) -> Node:
    return ops.input_("other", node.shape)


def test_a_map_without_operands_is_a_constant() -> None:
    zero = ops.map_(var(0) * 0.0 + 3.0, flat)
    assert after(zero) is ops.broadcast(ops.const(3.0), flat.shape)


def test_views_compose() -> None:
    assert after(ops.reshape(ops.reshape(flat, (N, 2, 2)), (N, 4))) is flat
    assert after(ops.transpose(ops.transpose(flat, (1, 0)), (1, 0))) is flat
    scalar_ = ops.input_("s", ())
    once = ops.broadcast(scalar_, (N, 4))
    assert after(ops.broadcast(ops.broadcast(scalar_, (4,)), (N, 4))) is once


def test_moving_an_axis_of_size_one_is_a_reshape() -> None:
    assert after(ops.transpose(x, (0, 3, 1, 2))) is ops.reshape(x, (N, 4, 1, 1))


def test_simplified_graphs_stay_as_they_are() -> None:
    node = after(ops.multiply(ops.transpose(flat, (1, 0)), ops.broadcast(ops.const(2.0), (4, N))))
    assert after(node) is node

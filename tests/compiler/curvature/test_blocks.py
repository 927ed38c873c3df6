"""What describes the blocks of a network."""

from __future__ import annotations

import newtriton as nt
from newtriton.compiler.curvature.blocks import DiagonalLayer, KroneckerLayer, blocks, faults, plan
from newtriton.compiler.curvature.uses import uses_of
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Node, Op
from newtriton.compiler.language.network import Scope, trace

from .written import Written


def parameter(scope: Scope, name: str, *shape: int) -> Node:
    return scope.parameter(name, shape, "default", (1, 1))


def several(x: Node, scope: Scope) -> Node:
    """Two products, a spread and a transposed convolution in one layer."""
    s = ops.matmul(x, parameter(scope, "first", 9, 3), tb=True)
    s = ops.multiply(s, ops.broadcast(parameter(scope, "scale", 9), s.shape))
    image = ops.reshape(ops.matmul(s, parameter(scope, "second", 9, 8)), (x.shape[0], 2, 2, 2))
    window = {"stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    w = parameter(scope, "third", 2, 2, 2, 3)
    image = ops.make(Op.CONV_INPUT_GRAD, image, w, size=(4, 4), **window)
    return ops.reshape(image, (x.shape[0], 48))


def test_several_blocks_of_a_layer_have_their_parameters_names() -> None:
    traced = trace(Written(several), (3,), nt.MSELoss())
    first, second, third, spread = blocks(traced)
    assert first == KroneckerLayer("first", "first", None, 1, (1, 1))
    assert second == KroneckerLayer("second", "second", None, 1, (1, 1), transposed=True)
    assert third == KroneckerLayer("third", "third", None, 1, (1, 1), transposed=True, plain=False)
    assert spread == DiagonalLayer("scale", ("scale",))
    assert {block.owner for block in (first, second, third, spread)} == {""}
    assert [planned.block for planned in plan(traced, uses_of(traced))] == blocks(traced)
    assert isinstance(third, KroneckerLayer) and third.size == 12


def test_a_layer_with_a_fault_is_named() -> None:
    def net(x: Node, scope: Scope) -> Node:
        bent = ops.map_(scalar.exp(scalar.var(0)), parameter(scope.child("a"), "p", 3))
        return ops.multiply(x, ops.broadcast(bent, x.shape))

    assert faults(trace(Written(net), (3,), nt.MSELoss())).keys() == {"a"}


def test_a_factor_without_a_second_axis_is_a_diagonal() -> None:
    single, grouped = (KroneckerLayer("l", "w", None, groups, (1, 1)) for groups in (1, 2))
    assert [single.is_diagonal(axes) for axes in (1, 2)] == [True, False]
    assert [grouped.is_diagonal(axes) for axes in (2, 3)] == [True, False]

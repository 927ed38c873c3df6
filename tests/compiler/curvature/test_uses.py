"""How parameters are followed to where they meet the batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import newtriton as nt
from newtriton.compiler.curvature.uses import Cut, bends, consumers, reused, spread_axes, uses_of
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import N, Node, Op
from newtriton.compiler.language.network import Scope, Traced, trace

from .written import Written


def traced(function: Callable[[Node, Scope], Node], features: int = 3) -> Traced:
    return trace(Written(function), (features,), nt.MSELoss())


def parameter(scope: Scope, name: str, *shape: int, frozen: bool = False) -> Node:
    return scope.parameter(name, shape, "default", (1, 1), frozen=frozen)


def test_views_of_a_parameter_lead_to_the_product_that_takes_it() -> None:
    def net(x: Node, scope: Scope) -> Node:
        w = ops.transpose(ops.reshape(parameter(scope, "w", 2, 2, 3), (4, 3)), (1, 0))
        return ops.matmul(x, w)

    (product,) = uses_of(traced(net)).products
    (placed,) = product.uses
    assert placed.use.arrangement.shape == (4, 3) and placed.use.arrangement.views == ()
    assert not placed.use.transposed and product.sides == (3, 4)
    assert product.is_plain and not product.looks_up


def test_a_transpose_before_the_matrix_is_laid_out_is_kept() -> None:
    def net(x: Node, scope: Scope) -> Node:
        w = ops.transpose(parameter(scope, "w", 2, 3, 2), (0, 2, 1))
        return ops.matmul(x, ops.reshape(w, (4, 3)), tb=True)

    (product,) = uses_of(traced(net)).products
    assert product.first.arrangement.views == (("transpose", (0, 2, 1)),)


def test_axes_of_size_one_before_a_matrix_do_not_count() -> None:
    """As an einsum is written by batched products."""

    def net(x: Node, scope: Scope) -> Node:
        w = ops.transpose(ops.reshape(parameter(scope, "w", 4, 3), (1, 4, 3)), (0, 2, 1))
        return ops.reshape(ops.matmul(ops.reshape(x, (1, N, 3)), w), (N, 4))

    (product,) = uses_of(traced(net)).products
    assert product.first.arrangement.shape == (4, 3) and product.first.arrangement.views == ()
    assert not product.first.transposed


def test_a_slice_is_part_of_a_matrix() -> None:
    def net(x: Node, scope: Scope) -> Node:
        w = ops.transpose(parameter(scope, "w", 5, 3), (1, 0))
        return ops.matmul(x, ops.make(Op.SLICE, w, axis=1, start=1, stop=4))

    (product,) = uses_of(traced(net)).products
    assert product.first.cut == Cut(0, 1, 4, 5)
    assert product.first.cuts_outputs and not product.is_plain


def test_what_is_linear_in_parameters_before_the_batch_enters_is_a_spread() -> None:
    def net(x: Node, scope: Scope) -> Node:
        places = ops.broadcast(ops.const(2.0), (4, 3))
        w, b = parameter(scope, "w", 3, 3), parameter(scope, "b", 3)
        bias = ops.reduce_sum(ops.matmul(places, w, b, tb=True), (0,))
        return ops.total([x, ops.broadcast(bias, x.shape)])

    assert [p["name"] for p in uses_of(traced(net)).spreads] == ["w", "b"]


@pytest.mark.parametrize("also", ["bias", "nothing"])
def test_a_bias_that_is_used_elsewhere_is_a_spread(also: str) -> None:
    def net(x: Node, scope: Scope) -> Node:
        w, b = parameter(scope, "w", 3, 3), parameter(scope, "b", 3)
        s = ops.matmul(x, w, b, tb=True)
        return ops.total([s, ops.broadcast(b, s.shape)]) if also == "bias" else s

    found = uses_of(traced(net))
    (product,) = found.products
    assert (product.bias is None) == (also == "bias")
    assert [p["name"] for p in found.spreads] == (["b"] if also == "bias" else [])
    places = [taken for taken in found.taken if spread_axes(taken) is not None]
    assert {spread_axes(taken) for taken in places} == {(0,)}


def test_frozen_parameters_have_no_uses() -> None:
    def net(x: Node, scope: Scope) -> Node:
        w = parameter(scope, "w", 3, 3, frozen=True)
        return ops.matmul(x, w, parameter(scope, "b", 3), tb=True)

    found = uses_of(traced(net))
    assert not found.products and [p["name"] for p in found.spreads] == ["b"]


def test_uses_on_both_sides_exchange_them() -> None:
    def net(x: Node, scope: Scope) -> Node:
        w = parameter(scope, "w", 5, 3)
        return ops.matmul(ops.matmul(x, w, tb=True), w)

    (product,) = uses_of(traced(net)).products
    assert [placed.exchanged for placed in product.uses] == [False, True]
    assert product.sides == (3, 5) and not product.is_plain
    assert reused(traced(net)) is not None


@pytest.mark.parametrize(
    "make",
    [
        lambda w: ops.map_(scalar.exp(scalar.var(0)), w),
        lambda w: ops.multiply(w, w),
        lambda w: ops.matmul(w, w),
    ],
)
def test_what_bends_a_parameter_leaves_it_without_a_rule(make: Callable[[Node], Node]) -> None:
    def net(x: Node, scope: Scope) -> Node:
        value = make(parameter(scope, "w", 3, 3))
        return ops.matmul(x, value, tb=True)

    found = uses_of(traced(net))
    assert not found.products and not found.spreads
    (sentence,) = found.faults.values()
    assert sentence.startswith("no Kronecker or diagonal rule for parameter w in")
    assert sentence.endswith("use curvature 'hessian' or 'ggn', whose products need no factors")
    assert len(bends(traced(net))) == 1


def test_two_arrangements_of_one_parameter_are_refused() -> None:
    def net(x: Node, scope: Scope) -> Node:
        w = parameter(scope, "w", 3, 3)
        flat = ops.reshape(w, (1, 9))
        wide = ops.matmul(ops.reshape(ops.reduce_sum(x, (1,)), (N, 1)), flat)
        s = ops.reduce_sum(ops.matmul(x, w), (1,))
        return ops.total([ops.matmul(wide, flat, tb=True), ops.reshape(s, (N, 1))])

    (sentence,) = uses_of(traced(net)).faults.values()
    assert "read as different matrices" in sentence


def test_consumers_are_where_parameters_meet_the_batch() -> None:
    def net(x: Node, scope: Scope) -> Node:
        w = ops.transpose(parameter(scope, "w", 3, 2), (1, 0))
        s = ops.matmul(x, w, parameter(scope, "b", 2), tb=True)
        return ops.total([s, ops.broadcast(parameter(scope, "c", 2), s.shape)])

    found = consumers(traced(net))
    assert [(n.op, [p["name"] for p in ps]) for n, ps in found.items()] == [
        (Op.MATMUL, ["w", "b"]),
        (Op.BROADCAST, ["c"]),
    ]

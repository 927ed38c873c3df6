"""How values depend on a softmax: what may be summed before the maximum of a row is known."""

from __future__ import annotations

import pytest

from newtriton.compiler.functions.attention import softmax
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import N, Node, Op, topological
from newtriton.compiler.graph.scalar import Expr, var
from newtriton.compiler.passes.running import FACTOR, FREE, Softmax, dependences, softmax_of

S, OTHER = ops.input_("s", (N, 7, 9)), ops.input_("x", (N, 7, 9))
P = softmax(S)


def of_weights() -> Softmax:
    (normaliser,) = (n for n in topological([P]) if n.op is Op.LOG_SUM_EXP)
    found = softmax_of(normaliser)
    assert found is not None
    return found


def dependence(expr: Expr, *operands: Node) -> object:
    node = ops.map_(expr, *operands)
    return dependences(of_weights(), topological([node]))[node]


def test_a_softmax_is_found_by_its_maximum() -> None:
    found = of_weights()
    assert found.maximum.inputs == (S,)
    assert softmax_of(ops.log_sum_exp(S)) is None and softmax_of(found.maximum) is None


@pytest.mark.parametrize(
    "expr", [var(0), 2.0 * var(0), var(0) * var(1), scalar.where(var(1), var(0), 0.0)], ids=str
)
def test_what_has_the_factor_once(expr: Expr) -> None:
    assert dependence(expr, P, OTHER) is FACTOR


@pytest.mark.parametrize(
    "expr",
    [
        var(0) * var(0),  # twice
        var(0) + 1.0,
        var(0) + var(1),
        scalar.exp(var(0)),
        scalar.where(var(0), var(1), 0.0),
    ],
    ids=str,
)
def test_what_has_it_otherwise(expr: Expr) -> None:
    assert dependence(expr, P, OTHER) not in (FREE, FACTOR)


def test_what_does_not_have_it() -> None:
    assert dependence(scalar.tanh(var(0)) * var(1), OTHER, S) == FREE

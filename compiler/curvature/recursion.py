"""KFRA and PCH: the curvature of a layer's outputs, averaged over the batch, from layer to layer.

𝒢 of a value is F×F over all its features. Through a linear op 𝒢 ← Jᵀ𝒢J; through an activation
𝒢 ← 𝒢 ⊙ E[φ'φ'ᵀ] (Botev et al. 2017, eq. 26), to which PCH adds diag E[φ''⊙ā] with its negative
numbers times γ ≤ 0: Pos-Eig (Chen et al. 2018, eq. 8). One table of rules; 𝒢 is held as F rows of
the value's own shape, so that the transpose of an op takes them as a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

from ..derivatives.transpose import TRANSPOSE
from ..graph import ops, scalar
from ..graph.errors import MissingRule, NewtritonError, quoted
from ..graph.ir import N, Node, Op, Shape, topological
from ..graph.options import check_number
from ..graph.scalar import BATCH, var
from ..language.loss import POSITIVE, mean_curvature, semidefinite
from ..language.network import Traced
from ..language.normaliser import over
from .vectors import diagonal_matrix

RECURSIVE = ("kfra", "pch-1", "pch-2")
LARGEST = 1 << 29  # elements of 𝒢
WAYS_OUT = "use the kinds 'kfac' or 'kflr' for this network"

# The γ of Pos-Eig, for eigenvalues of an indefinite E[B] and the diagonal of the φ'' term.
POS_EIG = {"pch-1": -1.0, "pch-2": 0.0}
Pull = Callable[[Node, int, Node], Node]


def _features(shape: Shape) -> int:
    """Returns F, the number of a sample's features."""
    return math.prod(shape[1:])


def _rows(matrix: Node, like: Node) -> Node:
    """Returns the rows of a matrix, each in the shape of a sample of `like`."""
    return ops.reshape(matrix, (matrix.shape[0], *like.shape[1:]))


def _matrix(rows: Node) -> Node:
    """Returns the matrix whose rows are given in another shape."""
    return ops.reshape(rows, (rows.shape[0], _features(rows.shape)))


def _transposed(rows: Node, like: Node) -> Node:
    """Returns 𝒢 with its other axis in front; the rows have the shape of a sample of `like`."""
    return _rows(ops.transpose(_matrix(rows), (1, 0)), like)


# --- rules: the node, the position of its operand, 𝒢 of the node → 𝒢 of the operand --------------


def _reshaped(node: Node, i: int, rows: Node) -> Node:
    """Returns the rows in the shape that they had before `node` reshaped them."""
    return _rows(rows, node.inputs[0])


def _both_sides(pull: Pull) -> Pull:
    """Returns the rule 𝒢 ← Jᵀ𝒢J, for an op that is the same linear map for every sample."""

    def rule(node: Node, i: int, g: Node) -> Node:
        return pull(node, i, _transposed(pull(node, i, g), node))

    return rule


def _transpose(node: Node, i: int, rows: Node) -> Node:
    """Returns the rows times J, for an op whose transpose is known."""
    pulled = TRANSPOSE[node.op](node, i, rows)
    assert pulled is not None
    return pulled


def _gather_max(node: Node, i: int, g: Node) -> Node:
    """Returns the mean of J_nᵀ𝒢J_n, since every sample takes other places.

    Where no place is in two windows, this is 𝒢 spread over the windows ⊙ E[ccᵀ], c being 1 at the
    places that were taken.
    """
    x, index = node.inputs
    attributes = {**node.attributes, "size": x.shape[-3:-1]}
    apart = all(s >= k for s, k in zip(node["stride"], node["kernel"], strict=True))
    if apart and node["dilation"] == (1, 1):
        ones = ops.broadcast(ops.const(1.0), node.shape)
        taken = ops.make(Op.SCATTER_MAX, ones, index, **attributes)
        del attributes["dilation"]

        def spread(node: Node, i: int, rows: Node) -> Node:
            mean = ops.make(Op.AVG_UNPOOL, rows, count_include_pad=True, **attributes)
            return ops.scale(mean, float(math.prod(node["kernel"])))

        return ops.multiply(_both_sides(spread)(node, i, g), _second_moment(taken))

    def scatter(rows: Node) -> Node:
        return ops.make(Op.SCATTER_MAX, rows, index, **attributes)

    rows = scatter(ops.broadcast(g, (g.shape[0], N, *node.shape[1:]), (1,)))
    columns = ops.transpose(ops.reshape(rows, (g.shape[0], N, _features(x.shape))), (2, 1, 0))
    both = scatter(ops.reshape(columns, (_features(x.shape), N, *node.shape[1:])))
    return ops.scale(ops.reduce_sum(both, (1,)), scalar.reciprocal(BATCH))


def _second_moment(x: Node) -> Node:
    """Returns E[xxᵀ] over the samples, as rows of the shape of a sample."""
    flat = ops.reshape(x, (N, _features(x.shape)))
    scale = scalar.reciprocal(BATCH)
    return _rows(ops.make(Op.GRAM, flat, groups=1, homogeneous=False, scale=scale), x)


def _map(node: Node, i: int, g: Node) -> Node:
    """Returns 𝒢 ⊙ E[φ'φ'ᵀ] (Botev et al. 2017, eq. 26)."""
    slope = ops.map_(scalar.derivative(node["expr"], i), *node.inputs)
    return ops.multiply(g, _second_moment(slope))


RECURSION: dict[Op, Pull] = {
    Op.MATMUL: _both_sides(_transpose),
    Op.CONV: _both_sides(_transpose),
    Op.AVG_POOL: _both_sides(_transpose),
    Op.TRANSPOSE: _both_sides(_transpose),
    Op.RESHAPE: _both_sides(_reshaped),
    Op.GATHER_MAX: _gather_max,
    Op.MAP: _map,
}


def diagonal_blocks(x: Node) -> Node:
    """Returns the T blocks (t, t) of a T×T×… value, which are every (T+1)-th of its blocks."""
    t, _, *rest = x.shape
    flat = ops.reshape(x, (t * t, *rest))
    padded = ops.make(Op.PAD, flat, axis=0, low=0, high=t)
    apart = ops.reshape(padded, (t, t + 1, *rest))
    return ops.reshape(ops.make(Op.SLICE, apart, axis=1, start=0, stop=1), (t, *rest))


def _blocks(x: Node, parts: int) -> Node:
    """Returns the `parts` diagonal blocks of a matrix."""
    size = x.shape[0] // parts
    apart = ops.transpose(ops.reshape(x, (parts, size, parts, size)), (0, 2, 1, 3))
    return diagonal_blocks(apart)


def layer_factor(node: Node, g: Node, reduces: bool = False) -> Node:
    """Returns G of a contraction from 𝒢 of its output.

    It is Σ over positions t of the blocks (t, t), or of all blocks where gradients are summed over
    positions before they are multiplied.
    """
    *positions, channels = node.shape[1:]
    if not positions:
        return g
    count = math.prod(positions)
    if reduces:
        summed = ops.reduce_sum(ops.reshape(g, (count, channels) * 2), (0, 2))
    else:
        summed = ops.reduce_sum(_blocks(_matrix(g), count), (0,))
    groups = node["groups"] if node.op is Op.CONV else 1
    return summed if groups == 1 else _blocks(ops.reshape(summed, (channels,) * 2), groups)


def check_pos_eig(kind: str, gamma: object) -> float | None:
    """Returns the γ of Pos-Eig that is given for a kind of factors, or None.

    Raises:
        NewtritonError: γ is positive or no number, or the kind has no Pos-Eig.
    """
    if gamma is None:
        return None
    if kind not in POS_EIG:
        raise NewtritonError(
            f"pos_eig is {quoted(gamma)}: factors of kind {kind!r} have no "
            f"Pos-Eig, leave it out or take {' or '.join(map(repr, POS_EIG))}"
        )
    return check_number("pos_eig", gamma, most=0.0)


def pos_eig(kind: str, gamma: float | None) -> scalar.Expr | None:
    """Returns what becomes of an eigenvalue λ: λ where it is positive, γλ elsewhere.

    Args:
        kind: the kind of factors, which may have no Pos-Eig.
        gamma: γ ≤ 0; None for that of the kind.
    """
    if kind not in POS_EIG:
        return None
    factor = POS_EIG[kind] if gamma is None else gamma
    return POSITIVE if factor == 0.0 else scalar.where(var(0), var(0), factor * var(0))


def _start(traced: Traced, positive: scalar.Expr | None) -> Node:
    """Returns E[B], by roots of B, or by the mean diagonal where B has nothing else."""
    z, y, criterion = traced.z, traced.y, traced.criterion
    if not (criterion.separable and semidefinite(criterion)):
        return mean_curvature(criterion, z, y, traced.normaliser, positive)
    ones = ops.broadcast(ops.const(1.0), (1, *z.shape))  # all columns in one copy
    squares = ops.map_(var(0) * var(0), criterion.square_root(z, y, ones))
    mean = over(ops.reduce_sum(squares, (0, 1)), traced.normaliser)
    return diagonal_matrix(mean)


def no_chain(kind: str, node: Node) -> str:
    """Says that a node does not belong to a chain of layers."""
    return f"{kind} goes along chains of layers, not by {node!r}: {WAYS_OUT}"


def recursion(
    traced: Traced,
    adjoints: Mapping[Node, Node],
    kind: str,
    consumers: Collection[Node],
    reduces: bool = False,
    gamma: float | None = None,
) -> dict[Node, Node]:
    """Returns G of every node in `consumers`.

    Args:
        traced: the network.
        adjoints: the adjoints of the mean loss with the true labels, for PCH.
        kind: "kfra", "pch-1" or "pch-2".
        consumers: the nodes that take parameters.
        reduces: whether positions are summed before gradients are multiplied.
        gamma: the γ of Pos-Eig for PCH; None for the kind's own.

    Raises:
        MissingRule: an op has no rule, or the network is no chain.
        NewtritonError: 𝒢 would have more than `LARGEST` elements.
    """
    z, positive = traced.z, pos_eig(kind, gamma)
    chain = topological([z])
    depends = set(consumers)
    for node in chain:
        if node.op is not Op.ARGMAX_POOL and any(x in depends for x in node.inputs):
            depends.add(node)
    curvature, result = {z: _start(traced, positive)}, {}
    for node in reversed([n for n in chain if n in depends]):
        if node.shape[0] is not N:
            raise MissingRule(no_chain(kind, node))
        g, features = curvature[node], _features(node.shape)
        if features**2 > LARGEST:
            raise NewtritonError(
                f"{kind} would need a {features}×{features} matrix for {node!r}: {WAYS_OUT}"
            )
        if node in consumers:
            result[node] = layer_factor(node, g, reduces)
        inner = [i for i, x in enumerate(node.inputs) if x in depends]
        if not inner:
            continue
        (i, *others), x = inner, node.inputs[inner[0]]
        if node.op not in RECURSION or others or x in curvature:
            raise MissingRule(no_chain(kind, node))
        curvature[x] = RECURSION[node.op](node, i, g)
        if positive is not None and node.op is Op.MAP:
            second = scalar.derivative(scalar.derivative(node["expr"], i), i)
            bent = ops.map_(second * var(len(node.inputs)), *node.inputs, adjoints[node])
            mean = ops.reshape(ops.reduce_sum(bent, (0,)), (features,))
            diagonal = diagonal_matrix(ops.map_(positive, mean))
            curvature[x] = ops.total([curvature[x], _rows(diagonal, x)])
    return result

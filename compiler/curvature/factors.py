"""Kronecker statistics: Grams appended at the nodes that consume parameters.

For a layer with homogeneous input ā and per-sample pre-activation gradient g, over N samples and T
positions,  A = 1/(N·T) Σ ā āᵀ,  G = 1/N Σ g gᵀ,  block ≈ A ⊗ G  (Martens & Grosse 2015, Grosse &
Martens 2016). Adjoints of the mean loss carry 1/N, so g = N s̄. Parameters that enter by a broadcast
(affine batch norm) get the diagonal, the mean of (∂ℓ_n/∂p)².
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..derivatives.copies import copies
from ..derivatives.transpose import vjp
from ..graph import ops, scalar
from ..graph.errors import MissingRule, NewtritonError
from ..graph.ir import N, Node, Op, rewrite, topological
from ..graph.scalar import BATCH
from ..language.loss import require, unit_vectors
from ..language.network import Traced
from .recursion import RECURSIVE, recursion

TAPED = ("kfac", "empirical", "kflr")  # their programs start from the tape
KINDS = (*TAPED, *RECURSIVE)


@dataclass(frozen=True)
class Block:
    """A layer whose curvature block is A ⊗ G; `kernel` is (1, 1) for a linear layer."""

    layer: str
    weight: str
    bias: str | None
    groups: int
    kernel: tuple[int, int]


@dataclass(frozen=True)
class DiagonalBlock:
    """A layer whose curvature block is diagonal, by parameter name."""

    layer: str
    names: tuple[str, ...]


def consumers(traced: Traced) -> dict[Node, list[Node]]:
    """Nodes that take parameters, and which."""
    found = {n: [i for i in n.inputs if i.op is Op.PARAM] for n in topological([traced.loss])}
    return {n: params for n, params in found.items() if params}


def blocks(traced: Traced) -> list[Block | DiagonalBlock]:
    """The curvature blocks of a network, in the order of its layers."""
    result: list[Block | DiagonalBlock] = []
    diagonal: dict[str, list[str]] = {}
    for node, params in consumers(traced).items():
        names = [p["name"] for p in params]
        layer = names[0].rpartition(".")[0]
        if node.op in (Op.CONV, Op.MATMUL):
            conv = node.op is Op.CONV
            kernel = params[0].shape[1:3] if conv else (1, 1)
            groups = node["groups"] if conv else 1
            result.append(Block(layer, names[0], names[1] if names[1:] else None, groups, kernel))
        elif node.op is Op.BROADCAST:
            diagonal.setdefault(layer, []).extend(names)
        else:
            raise MissingRule(f"no Kronecker or diagonal rule for the parameters of {node!r}")
    return result + [DiagonalBlock(layer, tuple(names)) for layer, names in diagonal.items()]


def sampled_adjoints(traced: Traced, adjoints: Mapping[Node, Node], count: int) -> dict[Node, Node]:
    """Adjoints of the parameters' consumers for `count` labels per input, drawn from the model."""
    y_drawn, noise = traced.criterion.drawn(traced.z)
    z_bar = rewrite(
        {"z_bar": adjoints[traced.z]},
        lambda node, inputs: y_drawn if node is traced.y else ops.remake(node, inputs),
    )["z_bar"]
    sampled = vjp({traced.z: z_bar}, traced.nodes.values())
    wanted = {node: sampled[node] for node in consumers(traced)}
    repeated = copies(wanted.values(), {noise: ops.input_("noise", (count, *noise.shape))}, count)
    return {node: repeated[adjoint] for node, adjoint in wanted.items()}


def root_adjoints(traced: Traced) -> dict[Node, Node]:
    """Adjoints for the columns of a root of B, a copy each (Botev et al. 2017, eq. 23–25)."""
    z = traced.z
    column = ops.input_("column", z.shape)
    pulled = vjp({z: column}, traced.nodes.values())
    wanted = {node: pulled[node] for node in consumers(traced)}
    root = traced.criterion.square_root(z, traced.y, unit_vectors(z))
    root = ops.scale(root, scalar.reciprocal(BATCH))
    repeated = copies(wanted.values(), {column: root}, root.shape[0])
    return {node: repeated[adjoint] for node, adjoint in wanted.items()}


def _inputs_gram(node: Node) -> Node:
    """A of a contraction."""
    homogeneous = len(node.inputs) == 3
    if node.op is Op.MATMUL:
        return ops.make(
            Op.GRAM,
            node.inputs[0],
            groups=1,
            homogeneous=homogeneous,
            scale=scalar.reciprocal(BATCH),
        )
    height, width = node.shape[-3:-1]
    return ops.make(
        Op.PATCH_GRAM,
        node.inputs[0],
        kernel=node.inputs[1].shape[1:3],
        homogeneous=homogeneous,
        scale=scalar.reciprocal(BATCH * float(height * width)),
        **node.attributes,
    )


def _inputs_mean(node: Node) -> Node:
    """Mean over samples and positions of what a contraction's weights see, in A's order, no 1.

    EA-CG (Chen et al. 2018, eq. 11b) has its outer product in place of A.
    """
    x, w = node.inputs[:2]
    if node.op is Op.MATMUL:
        total, positions = ops.reduce_sum(x, range(ops.rank(x) - 1)), 1
    else:
        height, width = node.shape[-3:-1]
        positions = height * width
        ones = ops.broadcast(ops.const(1.0), (*node.shape[:-1], node["groups"]))
        total = ops.make(Op.CONV_WEIGHT_GRAD, ones, x, kernel=w.shape[1:3], **node.attributes)
    return ops.scale(total, scalar.reciprocal(BATCH * float(positions)))


def _gradients_gram(node: Node, adjoint: Node, factor: scalar.Expr) -> Node:
    """G of a contraction."""
    groups = node["groups"] if node.op is Op.CONV else 1
    return ops.make(Op.GRAM, adjoint, groups=groups, homogeneous=False, scale=factor)


def _squares(node: Node, adjoint: Node, factor: scalar.Expr) -> Node:
    """Mean of squared per-sample gradients of a parameter that enters by the broadcast `node`."""
    lead = ops.rank(adjoint) - ops.rank(node)
    batch = node.shape.index(N)
    per_sample = ops.reduce_sum(adjoint, [lead + a for a in node["axes"] if a != batch])
    squared = ops.map_(scalar.var(0) * scalar.var(0) * factor, per_sample)
    return ops.reduce_sum(squared, range(lead + 1))


def factors(
    traced: Traced,
    adjoints: Mapping[Node, Node],
    kind: str,
    samples: int,
    means: Collection[str] = (),
) -> dict[str, Node]:
    """Outputs `A:layer` or `mean:layer`, `G:layer` and `diagonal:parameter`.

    Args:
        traced: the network.
        adjoints: of the mean loss with the true labels.
        kind: "kfac", labels drawn from the model; "empirical", the true ones; "kflr", no labels
            but a square root of B: the exact expectation of "kfac" where B has no label in it or
            is the Fisher matrix; "kfra", "pch-1" and "pch-2", see `recursion`.
        samples: draws per input; G is their mean.
        means: layers of which the mean input is wanted instead of A.
    """
    require(traced.criterion, kind)
    known = consumers(traced)
    recursive: dict[Node, Node] = {}
    by_node: Mapping[Node, Node] = {}
    if kind == "kfac":
        by_node = sampled_adjoints(traced, adjoints, samples)
    elif kind == "empirical":
        by_node, samples = dict(adjoints), 1
    elif kind == "kflr":
        by_node, samples = root_adjoints(traced), 1
    elif kind in RECURSIVE:
        recursive = recursion(traced, adjoints, kind, known)
    else:
        raise NewtritonError(f"Kronecker factors of kind {kind!r}: one of {', '.join(KINDS)}")
    factor = BATCH / float(samples)
    outputs: dict[str, Node] = {}
    for node, params in known.items():
        name = params[0]["name"]
        layer = name.rpartition(".")[0]
        if node.op is Op.BROADCAST:
            outputs[f"diagonal:{name}"] = _squares(node, by_node[node], factor)
        else:
            if layer in means:
                outputs[f"mean:{layer}"] = _inputs_mean(node)
            else:
                outputs[f"A:{layer}"] = _inputs_gram(node)
            outputs[f"G:{layer}"] = (
                recursive[node] if recursive else _gradients_gram(node, by_node[node], factor)
            )
    return outputs

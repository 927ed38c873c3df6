"""Kronecker statistics: Grams appended at the nodes that consume parameters.

For a layer with homogeneous input ā and per-sample pre-activation gradient g, over N samples and T
positions (those of a convolution's output, the axes between N and the last of a matrix product):

    A = 1/(N·T) Σ_{n,t} ā āᵀ,    G = 1/N Σ_{n,t} g gᵀ,    block ≈ A ⊗ G

(Martens & Grosse 2015; Grosse & Martens 2016). Adjoints of the mean loss carry 1/N, so g = N s̄.
Parameters that enter by a broadcast (affine batch norm) get the diagonal, the mean over samples of
(∂ℓ_n/∂p)².
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..derivatives.copies import copies
from ..derivatives.transpose import vjp
from ..graph import ops, scalar
from ..graph.errors import MissingRule, NewtritonError
from ..graph.ir import Node, Op, batch_axis, per_sample, rewrite, topological
from ..graph.program import Input, Output
from ..graph.scalar import BATCH
from ..language.loss import require, unit_vectors
from ..language.network import Traced, layer_of
from .recursion import RECURSIVE, recursion

TAPED = ("kfac", "empirical", "kflr")  # their programs start from the tape
KINDS = (*TAPED, *RECURSIVE)


@dataclass(frozen=True, eq=False)
class Noise(Input):
    """The random numbers from which labels are drawn: (draws per input)×N, or ×N×K."""

    kind = "noise"


@dataclass(frozen=True, eq=False)
class InputsGram(Output):
    """The factor A of a layer: D×D, the homogeneous 1 last; one per group on a leading axis.

    Attributes:
        layer: the layer's name.
    """

    layer: str
    kind = "A"


@dataclass(frozen=True, eq=False)
class InputsMean(Output):
    """The mean E[a] of a layer's inputs, without the homogeneous 1: D numbers per group.

    Attributes:
        layer: the layer's name.
    """

    layer: str
    kind = "mean"


@dataclass(frozen=True, eq=False)
class GradientsGram(Output):
    """The factor G of a layer: O×O; one per group on a leading axis.

    Attributes:
        layer: the layer's name.
    """

    layer: str
    kind = "G"


@dataclass(frozen=True, eq=False)
class Diagonal(Output):
    """The mean of (∂ℓ_n/∂p)² for a parameter p, in its own shape.

    Attributes:
        parameter: the parameter's name.
    """

    parameter: str
    kind = "diagonal"


@dataclass(frozen=True, eq=False)
class LayerInputs(Output):
    """The inputs a of a layer's weights, without the homogeneous 1: N×D, N×T×D or N×H×W×C.

    Attributes:
        layer: the layer's name.
    """

    layer: str
    kind = "inputs"


@dataclass(frozen=True, eq=False)
class LayerAdjoints(Output):
    """The adjoint s̄ of a layer's output of which G is the second moment, with copies of it if any.

    Attributes:
        layer: the layer's name.
    """

    layer: str
    kind = "adjoints"


@dataclass(frozen=True)
class KroneckerLayer:
    """A layer whose curvature block is A ⊗ G.

    Attributes:
        layer: the layer's name.
        weight: the name of its weights.
        bias: the name of its bias, if it has one.
        groups: how many groups its channels form, each with a pair of its own.
        kernel: the size of a convolution's kernel, (1, 1) of a linear layer.
        stride: the steps of a convolution's window along each axis.
        padding: the zeros on either side of each axis.
        dilation: the steps between the window's taps along each axis.
    """

    layer: str
    weight: str
    bias: str | None
    groups: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class DiagonalLayer:
    """A layer whose curvature block is diagonal.

    Attributes:
        layer: the layer's name.
        names: the names of its parameters.
    """

    layer: str
    names: tuple[str, ...]


def consumers(traced: Traced) -> dict[Node, list[Node]]:
    """Returns the nodes that take parameters, and which they take."""
    found = {n: [i for i in n.inputs if i.op is Op.PARAM] for n in topological([traced.loss])}
    return {n: params for n, params in found.items() if params}


def _is_kronecker(node: Node, params: list[Node]) -> bool:
    """Whether a node is s = W ⋆ a + b with parameters for W and b, and nothing else."""
    plain = node.op is Op.MATMUL and node["transpose_b"] and not node["transpose_a"]
    return (plain or node.op is Op.CONV) and params in (list(node.inputs[1:]), [node.inputs[1]])


def _is_diagonal(node: Node, params: list[Node]) -> bool:
    """Whether a node spreads a parameter over the samples: a bias too, where W is frozen."""
    if node.op in (Op.MATMUL, Op.CONV):
        return list(node.inputs[2:]) == params
    return node.op is Op.BROADCAST and batch_axis(node.shape) is not None


def _reuses(traced: Traced) -> dict[str, str]:
    """Returns the parameters that are taken at several places, each with a sentence on where."""
    taken: dict[str, list[Node]] = {}
    for node, params in consumers(traced).items():
        for p in dict.fromkeys(params):
            taken.setdefault(p["name"], []).append(node)
    return {
        name: f"parameter {name} is taken at {len(nodes)} places, {' and '.join(map(repr, nodes))}"
        for name, nodes in taken.items()
        if len(nodes) > 1
    }


def reused(traced: Traced) -> str | None:
    """Returns which parameter is taken at several places, and where; None where none is."""
    return next(iter(_reuses(traced).values()), None)


def faults(traced: Traced) -> dict[str, str]:
    """Returns the layers that have no curvature block, each with a sentence on why.

    A parameter is used in a way for which there is neither a Kronecker factor nor a diagonal, it is
    used at several places, or the layer would have several blocks.
    """
    reuses, found = _reuses(traced), dict[str, str]()
    counts: Counter[str] = Counter()
    diagonal: set[str] = set()
    for node, params in consumers(traced).items():
        names = [p["name"] for p in params]
        layer = layer_of(names[0])
        if sentence := next((reuses[name] for name in names if name in reuses), None):
            found[layer] = (
                f"no Kronecker or diagonal rule where a {sentence}: use curvature 'hessian' or "
                "'ggn', whose products need no factors"
            )
        elif _is_diagonal(node, params):
            diagonal.add(layer)
        elif _is_kronecker(node, params):
            counts[layer] += 1
        else:
            found[layer] = f"no Kronecker or diagonal rule for the parameters of {node!r}"
    counts.update(diagonal)
    for layer, count in counts.items():
        if count > 1:
            found[layer] = (
                f"layer {layer} has {count} curvature blocks: give each of its contractions and "
                "broadcasts a layer of its own by scope.build, or use curvature 'hessian' or 'ggn'"
            )
    return found


def blocks(
    traced: Traced, layers: Collection[str] | None = None
) -> list[KroneckerLayer | DiagonalLayer]:
    """Returns the curvature blocks of layers, in the network's order; diagonal ones come last.

    Args:
        traced: the network.
        layers: the layers of which blocks are wanted; None for all.

    Raises:
        MissingRule: one of them has no block, see `faults`.
    """
    for layer, sentence in faults(traced).items():
        if layers is None or layer in layers:
            raise MissingRule(sentence)
    result: list[KroneckerLayer | DiagonalLayer] = []
    diagonal: dict[str, list[str]] = {}
    for node, params in consumers(traced).items():
        names = [p["name"] for p in params]
        layer = layer_of(names[0])
        if layers is not None and layer not in layers:
            continue
        if _is_kronecker(node, params):
            weight, bias = names[0], names[1] if names[1:] else None
            if node.op is Op.CONV:
                window, kernel = dict(node.attributes), params[0].shape[1:3]
                result.append(KroneckerLayer(layer, weight, bias, kernel=kernel, **window))
            else:
                result.append(KroneckerLayer(layer, weight, bias, 1, (1, 1)))
        else:
            diagonal.setdefault(layer, []).extend(names)
    return result + [DiagonalLayer(layer, tuple(names)) for layer, names in diagonal.items()]


def random_numbers(traced: Traced, kind: str, count: int) -> dict[Input, Node]:
    """Returns the leaf of the random numbers that a kind of factors takes, if it takes any.

    Args:
        traced: the network.
        kind: the kind of factors.
        count: how many labels are drawn per input.
    """
    if kind != "kfac":
        return {}
    _, noise = traced.criterion.drawn(traced.z)
    return {Noise(): ops.input_(str(Noise()), (count, *noise.shape))}


def _per_dispersion(traced: Traced) -> float:
    """Returns 1/√d, which makes the covariance of drawn adjoints B, d being the dispersion."""
    return traced.criterion.dispersion**-0.5


def sampled_adjoints(traced: Traced, adjoints: Mapping[Node, Node], count: int) -> dict[Node, Node]:
    """Returns adjoints of the parameters' consumers for labels that are drawn from the model.

    Over the labels, N z̄ of a sample has the covariance E[B].

    Args:
        traced: the network.
        adjoints: the adjoints of the mean loss with the true labels.
        count: how many labels are drawn per input, on a leading axis of the adjoints.
    """
    y_drawn, noise = traced.criterion.drawn(traced.z)
    z_bar = rewrite(
        {"z_bar": ops.scale(adjoints[traced.z], _per_dispersion(traced))},
        lambda node, inputs: y_drawn if node is traced.y else ops.remake(node, inputs),
    )["z_bar"]
    sampled = vjp({traced.z: z_bar}, traced.trained.values())
    wanted = {node: sampled[node] for node in consumers(traced)}
    drawn = random_numbers(traced, "kfac", count)[Noise()]
    repeated = copies(wanted.values(), {noise: drawn}, count)
    return {node: repeated[adjoint] for node, adjoint in wanted.items()}


def root_adjoints(traced: Traced) -> dict[Node, Node]:
    """Returns adjoints of the parameters' consumers for the columns of a root of B.

    There is a copy for each column, on a leading axis (Botev et al. 2017, eq. 23–25).
    """
    z = traced.z
    column = ops.input_("column", z.shape)
    pulled = vjp({z: column}, traced.trained.values())
    wanted = {node: pulled[node] for node in consumers(traced)}
    root = traced.criterion.square_root(z, traced.y, unit_vectors(z))
    root = ops.scale(root, scalar.reciprocal(BATCH))
    repeated = copies(wanted.values(), {column: root}, root.shape[0])
    return {node: repeated[adjoint] for node, adjoint in wanted.items()}


def _positions(node: Node) -> int:
    """Returns T: at how many positions of a sample a contraction's weights are applied."""
    return per_sample(node.shape[:-1])


def _per_position(node: Node) -> scalar.Expr:
    """Returns 1/(N·T), which makes a sum over samples and positions a mean."""
    return scalar.reciprocal(BATCH * float(_positions(node)))


def _inputs_gram(node: Node) -> Node:
    """Returns A of a contraction."""
    homogeneous = any(bias.op is Op.PARAM for bias in node.inputs[2:])
    scale = _per_position(node)
    x, w = node.inputs[:2]
    if node.op is Op.MATMUL:
        return ops.make(Op.GRAM, x, groups=1, homogeneous=homogeneous, scale=scale)
    return ops.make(
        Op.PATCH_GRAM,
        x,
        kernel=w.shape[1:3],
        homogeneous=homogeneous,
        scale=scale,
        **node.attributes,
    )


def _inputs_mean(node: Node) -> Node:
    """Returns the mean input of a contraction's weights, in A's order, without the 1.

    EA-CG (Chen et al. 2018, eq. 11b) has its outer product in place of A.
    """
    x, w = node.inputs[:2]
    if node.op is Op.MATMUL:
        total = ops.reduce_sum(x, range(ops.rank(x) - 1))
    else:
        ones = ops.broadcast(ops.const(1.0), (*node.shape[:-1], node["groups"]))
        total = ops.make(Op.CONV_WEIGHT_GRAD, ones, x, kernel=w.shape[1:3], **node.attributes)
    return ops.scale(total, _per_position(node))


def _gradients_gram(node: Node, adjoint: Node, factor: scalar.Expr) -> Node:
    """Returns G of a contraction, from the adjoint of its output."""
    groups = node["groups"] if node.op is Op.CONV else 1
    return ops.make(Op.GRAM, adjoint, groups=groups, homogeneous=False, scale=factor)


def _squares(node: Node, adjoint: Node, factor: scalar.Expr) -> Node:
    """Returns the mean of squared per-sample gradients of the parameter that `node` spreads."""
    lead = ops.rank(adjoint) - ops.rank(node)
    batch = batch_axis(node.shape)
    spread = node["axes"] if node.op is Op.BROADCAST else range(ops.rank(node) - 1)
    per_sample = ops.reduce_sum(adjoint, [lead + a for a in spread if a != batch])
    squared = ops.map_(scalar.var(0) * scalar.var(0) * factor, per_sample)
    return ops.reduce_sum(squared, range(lead + 1))


def _labelled(
    traced: Traced, adjoints: Mapping[Node, Node], kind: str, samples: int
) -> Mapping[Node, Node]:
    """Returns the adjoints of which the kinds that start from the tape take Grams and squares."""
    if kind == "kfac":
        return sampled_adjoints(traced, adjoints, samples)
    if kind == "empirical":
        scale = _per_dispersion(traced)
        return {node: ops.scale(adjoints[node], scale) for node in consumers(traced)}
    return root_adjoints(traced)


def factors(
    traced: Traced,
    adjoints: Mapping[Node, Node],
    kind: str,
    samples: int,
    means: Collection[str] = (),
    layers: Collection[str] | None = None,
    per_sample: bool = False,
) -> dict[Output, Node]:
    """Returns the statistics of the layers: two for a pair of factors, or a `Diagonal`.

    Args:
        traced: the network.
        adjoints: the adjoints of the mean loss with the true labels.
        kind: "kfac", labels drawn from the model; "empirical", the true ones; "kflr", no labels
            but a square root of B: the exact expectation of "kfac" where B has no label in it or
            is the Fisher matrix; "kfra", "pch-1" and "pch-2", see `recursion`.
        samples: how many labels are drawn per input of "kfac"; G is their mean.
        means: the layers of which `InputsMean` is wanted instead of `InputsGram`.
        layers: the layers of which there shall be statistics; None for all.
        per_sample: whether `LayerInputs` and `LayerAdjoints` of every pair are wanted too.

    Raises:
        NewtritonError: the kind is unknown, the loss does not have it, or it has nothing per
            sample.
        MissingRule: a parameter is used in a way for which there is no factor.
    """
    require(traced.criterion, kind)
    if kind not in KINDS:
        raise NewtritonError(f"Kronecker factors of kind {kind!r}: one of {', '.join(KINDS)}")
    if per_sample and kind not in TAPED:
        raise NewtritonError(
            f"factors of kind {kind!r} average over samples before they multiply, so that there is "
            f"nothing per sample: one of {', '.join(TAPED)}"
        )
    blocks(traced, layers)  # it refuses parameters that have no factor
    known = {
        node: params
        for node, params in consumers(traced).items()
        if layers is None or layer_of(params[0]["name"]) in layers
    }
    recursive: Mapping[Node, Node] = {}
    by_node: Mapping[Node, Node] = {}
    if kind in RECURSIVE:
        recursive = recursion(traced, adjoints, kind, known)
    else:
        by_node = _labelled(traced, adjoints, kind, samples)
    factor = BATCH / float(samples if kind == "kfac" else 1)
    outputs: dict[Output, Node] = {}
    for node, params in known.items():
        name = params[0]["name"]
        layer = layer_of(name)
        if _is_diagonal(node, params):
            if recursive:
                raise MissingRule(f"{kind} has no diagonal block, as {node!r} would need one")
            outputs[Diagonal(name)] = _squares(node, by_node[node], factor)
            continue
        mean = layer in means
        key, statistic = (InputsMean, _inputs_mean) if mean else (InputsGram, _inputs_gram)
        outputs[key(layer)] = statistic(node)
        outputs[GradientsGram(layer)] = (
            recursive[node] if recursive else _gradients_gram(node, by_node[node], factor)
        )
        if per_sample:
            outputs[LayerInputs(layer)] = node.inputs[0]
            outputs[LayerAdjoints(layer)] = by_node[node]
    return outputs

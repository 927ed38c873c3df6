"""Kronecker statistics: second moments of what meets a parameter, and of gradients there.

For a layer with homogeneous input ā and per-sample gradient g of its outputs, over N samples and T
positions (those of a convolution's output, the axes between N and the last of a matrix product, and
all uses of the parameter one after another):

    expand    A = 1/(N·T) Σ_{n,t} ā āᵀ,    G = 1/N Σ_{n,t} g gᵀ
    reduce    A = 1/N Σ_n ã ãᵀ,  ã = 1/T Σ_t ā,    G = 1/N Σ_n g̃ g̃ᵀ,  g̃ = Σ_t g

and the block is A ⊗ G (Martens & Grosse 2015; Grosse & Martens 2016; Eschenhagen et al. 2023, whose
names they are: the first is exact for deep linear networks with a loss at each position, the second
with one loss after a mean over positions). Adjoints of the mean loss carry 1/N, so g = N s̄; where
the loss has positions, or labels decide what counts, see `normaliser.of_samples`. A side of more
than `max_factor` numbers is kept as its diagonal. Parameters that are copied to all samples (affine
norms, positions, scales) get the mean over samples of (∂ℓ_n/∂p)².

Of a table, A is the diagonal of how often each row is looked up. Where it is tied to a head, the
vocabulary's side is the head's G and these frequencies, the other side the head's A and the second
moment of the gradients of what is looked up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..derivatives.copies import copies
from ..derivatives.transpose import vjp
from ..graph import ops, scalar
from ..graph.errors import MissingRule, NewtritonError
from ..graph.ir import N, Node, Op, batch_axis
from ..graph.program import Output
from ..graph.scalar import BATCH, var
from ..language.loss import require
from ..language.network import Traced
from .adjoints import (
    MAX_COPIES,
    Noise,
    given_adjoints,
    random_numbers,
    root_adjoints,
    sampled_adjoints,
)
from .blocks import MAX_FACTOR, DiagonalLayer, KroneckerLayer, Planned, blocks, faults, plan
from .layouts import outer_positions
from .recursion import RECURSIVE, WAYS_OUT, check_pos_eig, diagonal_blocks, no_chain, recursion
from .uses import Placed, Product, Taken, spread_axes, uses_of
from .vectors import Vectors, by_sample, gradients, inputs, reciprocal

__all__ = [
    "KINDS",
    "TAPED",
    "DiagonalLayer",
    "KroneckerLayer",
    "Noise",
    "Wanted",
    "blocks",
    "factors",
    "faults",
    "random_numbers",
]

TAPED = ("kfac", "empirical", "kflr")  # their programs start from the tape
KINDS = (*TAPED, *RECURSIVE)
IMAGE = 4  # axes of images, the most that rows may have to be read as they are


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
class Wanted:
    """Which statistics are wanted.

    Attributes:
        kind: the kind of factors, one of `KINDS`.
        samples: how many labels are drawn per input of "kfac"; G is their mean.
        means: the blocks of which `InputsMean` is wanted instead of `InputsGram`, where they are
            plain.
        layers: the layers of which there shall be statistics; None for all.
        per_sample: whether `LayerInputs` and `LayerAdjoints` of plain pairs are wanted too.
        sharing: "expand" or "reduce".
        max_factor: the most rows of a matrix; larger sides are kept as their diagonals.
        max_copies: the most copies of the backward pass of "kflr".
        pos_eig: the γ ≤ 0 of Pos-Eig for "pch-1" and "pch-2"; None for their own.
    """

    kind: str
    samples: int = 1
    means: frozenset[str] = frozenset()
    layers: frozenset[str] | None = None
    per_sample: bool = False
    sharing: str = "expand"
    max_factor: int = MAX_FACTOR
    max_copies: int = MAX_COPIES
    pos_eig: float | None = None

    @property
    def reduces(self) -> bool:
        """Whether positions are summed before they are multiplied."""
        return self.sharing == "reduce"

    def weight(self, batch: int) -> float:
        """Returns the same as `gradients` at a batch size."""
        return scalar.evaluate(self.gradients, batch)

    @property
    def gradients(self) -> scalar.Expr:
        """What makes a sum over squared adjoints a mean over g = N s̄, for each of the labels."""
        return BATCH / float(self.samples if self.kind == "kfac" else 1)


def _labelled(
    traced: Traced, adjoints: Mapping[Node, Node], wanted: Wanted, nodes: Collection[Node]
) -> Mapping[Node, Node]:
    """Returns the adjoints of which the kinds that start from the tape take second moments."""
    if wanted.kind == "kfac":
        return sampled_adjoints(traced, nodes, wanted.samples)
    if wanted.kind == "empirical":
        return given_adjoints(traced, adjoints, nodes)
    return root_adjoints(traced, nodes, wanted.max_copies)


# --- Kronecker products ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Sides:
    """What makes the two sides of a block.

    Attributes:
        product: the block's uses.
        wanted: what is wanted.
        adjoints: by node the adjoint of its output.
        outer: by node how many positions stand in front of the batch, see `outer_positions`.
    """

    product: Product
    wanted: Wanted
    adjoints: Mapping[Node, Node]
    outer: Mapping[Node, int]

    def _inputs(self, placed: Placed) -> Vectors:
        """The inputs of a use."""
        found = inputs(placed.use)
        if not self.wanted.reduces:
            return found
        return found.of_samples(self.outer.get(placed.use.node, 1), 0, mean=True)

    def _gradients(self, placed: Placed) -> Vectors:
        """The gradients of a use."""
        node = placed.use.node
        adjoint, outer = self.adjoints[node], self.outer.get(node, 1)
        found, lead = gradients(placed.use, adjoint), ops.rank(adjoint) - ops.rank(node)
        if placed.use.looks_up or not self.wanted.reduces:
            return found
        return found.of_samples(outer, lead, mean=False)

    def _per_position(self, exchanged: bool) -> scalar.Expr:
        """Returns 1/(N·T), T counting the positions of all uses that are exchanged, or not."""
        uses = [placed for placed in self.product.uses if placed.exchanged == exchanged]
        return reciprocal(float(sum(self._inputs(placed).positions for placed in uses)))

    def is_diagonal(self, exchanged: bool) -> bool:
        """Whether a side is kept as its diagonal: G where it is exchanged, A otherwise."""
        large = self.product.sides[exchanged] > self.wanted.max_factor
        return large or (self.product.looks_up and not exchanged)

    def _moment(self, placed: Placed, of_inputs: bool) -> Node:
        """Returns a use's part of the side that its inputs, or its gradients, belong to."""
        use, diagonal = placed.use, self.is_diagonal(placed.exchanged == of_inputs)
        vectors = self._inputs(placed) if of_inputs else self._gradients(placed)
        moment = vectors.squares if diagonal else vectors.gram
        if of_inputs:
            homogeneous = self.product.bias is not None
            found = moment(homogeneous, self._per_position(placed.exchanged))
        else:
            found = moment(False, self.wanted.gradients)
        if use.cut is None or use.cuts_outputs == of_inputs:
            return found
        low, high = use.cut.start, use.cut.size - use.cut.stop
        for axis in range(ops.rank(found)):
            found = ops.make(Op.PAD, found, axis=axis, low=low, high=high)
        return found

    def side(self, exchanged: bool) -> Node:
        """Returns A, or G where `exchanged`: of all uses what lies on that side, added."""
        uses = self.product.uses
        return ops.total([self._moment(placed, placed.exchanged == exchanged) for placed in uses])

    def recursive(self, by_node: Mapping[Node, Node]) -> Node:
        """Returns G from those of the uses, where these are known."""
        total = ops.total([by_node[placed.use.node] for placed in self.product.uses])
        return diagonal_blocks(total) if self.is_diagonal(True) else total

    @property
    def mean(self) -> Node:
        """The mean of the inputs, without the 1: EA-CG (Chen et al. 2018, eq. 11b) has it for A."""
        totals = [inputs(placed.use) for placed in self.product.uses]
        scale = reciprocal(float(sum(vectors.positions for vectors in totals)))
        return ops.scale(ops.total([vectors.total() for vectors in totals]), scale)

    @property
    def is_sampled(self) -> bool:
        """Whether the samples' gradients can be squared in the eigenbasis of the factors."""
        return self.product.is_plain and max(self.product.sides) <= self.wanted.max_factor

    def samples(self) -> tuple[Node, Node]:
        """Returns the inputs and adjoints of all uses, one use's positions after another's."""
        uses = [placed.use for placed in self.product.uses]
        nodes, adjoints = [use.node for use in uses], [self.adjoints[use.node] for use in uses]
        values = [inputs(use).value for use in uses]
        if len(uses) == 1 and values[0].shape[0] is N and ops.rank(values[0]) <= IMAGE:
            return values[0], adjoints[0]
        lead = ops.rank(adjoints[0]) - ops.rank(nodes[0])
        outer = [self.outer.get(node, 1) for node in nodes]
        rows = [by_sample(a, o, 0) for a, o in zip(values, outer, strict=True)]
        apart = [by_sample(g, o, lead) for g, o in zip(adjoints, outer, strict=True)]
        return _joined(rows, 1), _joined(apart, lead + 1)


def _joined(parts: list[Node], axis: int) -> Node:
    """Returns parts one after another."""
    return parts[0] if len(parts) == 1 else ops.make(Op.CONCAT, *parts, axis=axis)


# --- diagonals ------------------------------------------------------------------------------------


def _of_each_sample(taken: Taken, adjoint: Node, outer: int) -> Node:
    """Returns the adjoint of a value that is copied to all samples, one for each of these.

    Args:
        taken: where it is copied.
        adjoint: the adjoint of the node there, with copies for labels in front or without.
        outer: how many positions stand in front of the batch in one dimension with it.
    """
    lead = ops.rank(adjoint) - ops.rank(taken.node)
    axes, batch = spread_axes(taken), batch_axis(taken.node.shape)
    assert axes is not None and batch is not None
    x = ops.reduce_sum(adjoint, [lead + a for a in axes if a != batch])
    at = batch_axis(x.shape)
    assert at is not None
    if (times := x.shape[at].times) > 1:
        x = ops.reshape(x, (*x.shape[:at], outer, N, times // outer, *x.shape[at + 1 :]))
        x = ops.reduce_sum(x, (at, at + 2))
    others = [i for i in range(lead, ops.rank(x)) if i != at]
    return x if at == lead else ops.transpose(x, (*range(lead), at, *others))


def _spread(
    traced: Traced, planned: Planned, wanted: Wanted, adjoints: Mapping[Node, Node]
) -> dict[Output, Node]:
    """Returns the mean of squared per-sample gradients of parameters that are copied to samples.

    What arrives at the copies of a sample is pulled back to the parameters for each sample, as
    copies of a backward pass are.
    """
    outer, arriving = outer_positions(traced), dict[Node, list[Node]]()
    places = [place for where in planned.spreads.values() for place in where]
    for taken in dict.fromkeys(places):
        part = _of_each_sample(taken, adjoints[taken.node], outer.get(taken.node, 1))
        arriving.setdefault(taken.operand, []).append(part)
    totals = [ops.total(parts) for parts in arriving.values()]
    leaves = [ops.input_(f"spread {i}", u.shape) for i, u in enumerate(arriving)]
    pulled = vjp(dict(zip(arriving, leaves, strict=True)), planned.spreads)
    params = [p for p in planned.spreads if p in pulled]
    lead = ops.rank(totals[0]) - ops.rank(leaves[0]) - 1
    samples = totals
    if lead:
        samples = [ops.input_(f"{u['name']} of samples", (N, *u.shape)) for u in leaves]
    each = copies(pulled.values(), dict(zip(leaves, samples, strict=True)), N)
    found = {p: each[pulled[p]] for p in params}
    if lead:
        given = dict(zip(samples, totals, strict=True))
        labelled = copies(found.values(), given, totals[0].shape[0])
        found = {p: labelled[gradient] for p, gradient in found.items()}
    nothing = {p: ops.broadcast(ops.const(0.0), p.shape) for p in planned.spreads}
    squares = {
        p: ops.reduce_sum(ops.map_(var(0) * var(0) * wanted.gradients, g), range(lead + 1))
        for p, g in found.items()
    }
    return {Diagonal(p["name"]): node for p, node in (nothing | squares).items()}


# --- all of them ----------------------------------------------------------------------------------


def _check(traced: Traced, wanted: Wanted) -> None:
    """Raises an error where the loss, or the kind of factors, does not have what is wanted."""
    require(traced.criterion, wanted.kind)
    if wanted.kind not in KINDS:
        raise NewtritonError(
            f"Kronecker factors of kind {wanted.kind!r}: one of {', '.join(KINDS)}"
        )
    check_pos_eig(wanted.kind, wanted.pos_eig)
    if wanted.per_sample and wanted.kind not in TAPED:
        raise NewtritonError(
            f"factors of kind {wanted.kind!r} average over samples before they multiply, so that "
            f"there is nothing per sample: one of {', '.join(TAPED)}"
        )


def factors(traced: Traced, adjoints: Mapping[Node, Node], wanted: Wanted) -> dict[Output, Node]:
    """Returns the statistics of the blocks: two for a pair of factors, or a `Diagonal`.

    Kinds are "kfac", labels drawn from the model; "empirical", the true ones; "kflr", no labels
    but a square root of B: the exact expectation of "kfac" where B has no label in it or is the
    Fisher matrix; "kfra", "pch-1" and "pch-2", see `recursion`.

    Args:
        traced: the network.
        adjoints: the adjoints of the mean loss with the true labels.
        wanted: what is wanted of it.

    Raises:
        NewtritonError: the kind is unknown, the loss does not have it, it has nothing per sample,
            or it would take too many copies.
        MissingRule: a parameter is used in a way for which there is no factor.
    """
    _check(traced, wanted)
    planned = plan(traced, uses_of(traced), wanted.layers)
    products = [each.product for each in planned if each.product is not None]
    recursive: Mapping[Node, Node] = {}
    by_node: Mapping[Node, Node] = {}
    if wanted.kind in RECURSIVE:
        recursive = _recursive(traced, adjoints, wanted, planned)
    else:
        nodes = [placed.use.node for product in products for placed in product.uses]
        spreads = [place.node for each in planned for p in each.spreads.values() for place in p]
        by_node = _labelled(traced, adjoints, wanted, [*nodes, *spreads])
    outer, outputs = outer_positions(traced), dict[Output, Node]()
    for each in planned:
        if each.product is None:
            outputs |= _spread(traced, each, wanted, by_node)
            continue
        layer, sides = each.block.layer, Sides(each.product, wanted, by_node, outer)
        if layer in wanted.means and each.product.is_plain:
            outputs[InputsMean(layer)] = sides.mean
        else:
            outputs[InputsGram(layer)] = sides.side(False)
        outputs[GradientsGram(layer)] = (
            sides.recursive(recursive) if recursive else sides.side(True)
        )
        if wanted.per_sample and sides.is_sampled:
            outputs[LayerInputs(layer)], outputs[LayerAdjoints(layer)] = sides.samples()
    return outputs


def _recursive(
    traced: Traced, adjoints: Mapping[Node, Node], wanted: Wanted, planned: list[Planned]
) -> Mapping[Node, Node]:
    """Returns G of every product of a chain of layers.

    Raises:
        MissingRule: the network is none.
    """
    nodes: list[Node] = []
    for each in planned:
        uses = each.product.uses if each.product is not None else ()
        for placed in uses:
            if not placed.is_straight:
                raise MissingRule(no_chain(wanted.kind, placed.use.node))
            nodes.append(placed.use.node)
    found = recursion(traced, adjoints, wanted.kind, nodes, wanted.reduces, wanted.pos_eig)
    spread = [place.node for each in planned for p in each.spreads.values() for place in p]
    for node in spread:
        raise MissingRule(
            f"{wanted.kind} has no diagonal block, as {node!r} would need one: {WAYS_OUT}"
        )
    return found

"""Where parameters meet the batch: products, whose blocks are Kronecker products, and spreads.

A value that is made of parameters alone is followed through reshapes, transposes, slices and other
linear ops to the nodes that join it with samples. There a parameter is a matrix M (O×D) in a
product s = M a, or it is copied to all samples. Products with one parameter are uses of one block:
where some multiply with M and others with Mᵀ, as a head and the embedding that it is tied to, what
are inputs of the latter lie on the side of the former's gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..graph import scalar
from ..graph.ir import CONTRACTIONS, N, Node, Op, batch_axis, topological
from ..language.network import Traced, layer_of

Pair = tuple[int, int]
View = tuple[str, tuple[int, ...]]  # "reshape" to a shape, or "transpose" to an order of axes

BIAS = 2  # the place of a contraction's bias among its operands
WEIGHTS = {Op.MATMUL: (0, 1), Op.CONV: (1,), Op.CONV_INPUT_GRAD: (1,), Op.GATHER_ROWS: (0,)}
LINEAR = frozenset({
    Op.RESHAPE, Op.TRANSPOSE, Op.SLICE, Op.PAD, Op.CONCAT, Op.BROADCAST, Op.REDUCE_SUM,
    Op.GATHER_ROWS,
})  # fmt: skip
WAY_OUT = "use curvature 'hessian' or 'ggn', whose products need no factors"


class Taken(NamedTuple):
    """A place where a value of parameters alone meets the batch.

    Attributes:
        node: the node that takes it.
        position: its place among the node's operands.
    """

    node: Node
    position: int

    @property
    def operand(self) -> Node:
        """The value of parameters."""
        return self.node.inputs[self.position]


@dataclass(frozen=True)
class Cut:
    """The part of a matrix that a use takes, of `size` rows or columns those from start to stop.

    Attributes:
        axis: 0 for rows, 1 for columns.
        start: the first one.
        stop: the first one behind them.
        size: how many there are.
    """

    axis: int
    start: int
    stop: int
    size: int


@dataclass(frozen=True)
class Arrangement:
    """How a parameter becomes a matrix.

    Attributes:
        views: what is done to the parameter before its elements are laid out as a matrix.
        shape: the rows and columns of that matrix.
        groups: how many groups its rows form.
    """

    views: tuple[View, ...]
    shape: Pair
    groups: int


@dataclass(frozen=True)
class Use:
    """A product with a parameter.

    Attributes:
        taken: where it is.
        parameter: the parameter.
        bias: the parameter that the product adds to all its rows, if any.
        arrangement: how the parameter becomes a matrix.
        transposed: whether M, outputs × inputs, is the transposed matrix.
        cut: the part of the matrix that is taken; None for all of it.
    """

    taken: Taken
    parameter: Node
    bias: Node | None
    arrangement: Arrangement
    transposed: bool
    cut: Cut | None

    @property
    def node(self) -> Node:
        """The product."""
        return self.taken.node

    @property
    def looks_up(self) -> bool:
        """Whether rows are looked up in a table."""
        return self.node.op is Op.GATHER_ROWS

    @property
    def cuts_outputs(self) -> bool:
        """Whether the cut is one of M's rows."""
        return self.cut is not None and (self.cut.axis == 0) != self.transposed


@dataclass(frozen=True)
class Placed:
    """A use of a block.

    Attributes:
        use: the product.
        exchanged: whether its inputs belong to the side of the block's outputs.
    """

    use: Use
    exchanged: bool

    @property
    def is_straight(self) -> bool:
        """Whether its features are the last axis of what it takes and gives, and M is whole."""
        exchanged = self.exchanged or self.use.node.op is Op.CONV_INPUT_GRAD
        return not (exchanged or self.use.cut or self._is_first)

    @property
    def _is_first(self) -> bool:
        """Whether the parameter is the first factor of a matrix product."""
        return self.use.node.op is Op.MATMUL and self.use.taken.position == 0


@dataclass(frozen=True)
class Product:
    """All uses of a parameter as a matrix: a block A ⊗ G.

    Attributes:
        parameter: the parameter.
        bias: its bias, where all uses have that one and no others have it.
        uses: the uses, in the network's order.
    """

    parameter: Node
    bias: Node | None
    uses: tuple[Placed, ...]

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.parameter["name"]

    @property
    def names(self) -> list[str]:
        """The names of the parameters."""
        return [p["name"] for p in (self.parameter, self.bias) if p is not None]

    @property
    def first(self) -> Use:
        """The use that says which side is which."""
        return next(placed.use for placed in self.uses if not placed.exchanged)

    @property
    def sides(self) -> Pair:
        """The sizes of A and G, D and O; those of a group where there are groups."""
        (rows, columns), use = self.first.arrangement.shape, self.first
        rows //= use.arrangement.groups
        d, o = (rows, columns) if use.transposed else (columns, rows)
        return d + (self.bias is not None), o

    @property
    def looks_up(self) -> bool:
        """Whether all inputs are rows of the identity, so that A is a diagonal."""
        return all(placed.use.looks_up for placed in self.uses)

    @property
    def is_plain(self) -> bool:
        """Whether a sample's gradient is Σ g aᵀ over positions of one value a."""
        nodes = [placed.use.node for placed in self.uses]
        images = len(nodes) == 1 and nodes[0].op is Op.CONV and nodes[0].shape[0] is N
        straight = all(placed.is_straight for placed in self.uses)
        return straight and (images or all(n.op is Op.MATMUL for n in nodes))


@dataclass(frozen=True)
class Uses:
    """What a network does with its parameters.

    Attributes:
        taken: the places where parameters meet the batch, with the parameters that do.
        products: the blocks that are Kronecker products.
        spreads: by parameter that is copied to all samples, the places where it is.
        faults: by parameter for which there is no rule, a sentence on why.
    """

    taken: Mapping[Taken, list[Node]]
    products: list[Product]
    spreads: Mapping[Node, list[Taken]]
    faults: Mapping[Node, str]


def _alone(traced: Traced) -> tuple[dict[Node, list[Node]], set[Node]]:
    """Returns values that are made of parameters alone, with those, and all that depend on any."""
    made: dict[Node, list[Node]] = {p: [p] for p in traced.trained.values()}
    depends = set(made)
    for node in topological([traced.loss]):
        below = [x for x in node.inputs if x in depends]
        if node in made or not below:
            continue
        depends.add(node)
        if batch_axis(node.shape) is None and all(x in made for x in below):
            made[node] = list(dict.fromkeys(p for x in below for p in made[x]))
    return made, depends


def _taken(traced: Traced, made: Mapping[Node, list[Node]]) -> dict[Taken, list[Node]]:
    """Returns the places where parameters meet the batch, in the network's order."""
    return {
        Taken(node, i): made[x]
        for node in topological([traced.loss])
        if node not in made
        for i, x in enumerate(node.inputs)
        if x in made
    }


def consumers(traced: Traced) -> dict[Node, list[Node]]:
    """Returns the nodes at which parameters meet the batch, and which these are."""
    found: dict[Node, dict[Node, None]] = {}
    for (node, _), params in _taken(traced, _alone(traced)[0]).items():
        found.setdefault(node, {}).update(dict.fromkeys(params))
    return {node: list(params) for node, params in found.items()}


def reused(traced: Traced) -> str | None:
    """Returns which parameter is taken at several places, and where; None where none is."""
    places: dict[Node, list[Node]] = {}
    for node, params in consumers(traced).items():
        for p in params:
            places.setdefault(p, []).append(node)
    for p, nodes in places.items():
        if len(nodes) > 1:
            where = " and ".join(map(repr, nodes))
            return f"parameter {p['name']} is taken at {len(nodes)} places, {where}"
    return None


def bends(traced: Traced) -> list[Node]:
    """Returns what parameters alone make that is not linear in them."""
    made, depends = _alone(traced)
    below = topological(taken.operand for taken in _taken(traced, made))
    return [n for n in below if n in made and n.inputs and not _is_linear(n, depends)]


# --- products -------------------------------------------------------------------------------------


def _chain(operand: Node) -> list[Node]:
    """Returns the views between a parameter and an operand, the parameter first."""
    chain = [operand]
    while chain[-1].op in (Op.RESHAPE, Op.TRANSPOSE, Op.SLICE):
        chain.append(chain[-1].inputs[0])
    return chain[::-1]


def _cut(chain: list[Node]) -> tuple[list[Node], Cut | None] | None:
    """Returns a chain without its slice of a matrix, and the slice; None for any other slices."""
    parameter, *views = chain
    slices = [i for i, view in enumerate(views) if view.op is Op.SLICE]
    if not slices:
        return views, None
    turns = [view for view in views if view.op is Op.TRANSPOSE]
    if len(slices) > 1 or len(turns) + 1 < len(views) or len(parameter.shape) != 2:
        return None
    node = views[slices[0]]
    axis = node["axis"] ^ (slices[0] % 2)  # every transpose before it exchanged the axes
    return turns, Cut(axis, node["start"], node["stop"], parameter.shape[axis])


def _turns(views: list[View]) -> int:
    """Returns how many views at the end transpose a matrix, axes of size 1 before it or not."""
    count = 0
    for name, argument in reversed(views):
        rank = len(argument)
        if name != "transpose" or argument != (*range(rank - 2), rank - 1, rank - 2):
            break
        count += 1
    return count


def _is_left(taken: Taken) -> bool:
    """Whether the operand has the outputs' axis first."""
    node, position = taken
    if node.op is Op.MATMUL:
        return bool(node["transpose_b"]) if position == 1 else not node["transpose_a"]
    return node.op is Op.CONV


def _use(taken: Taken) -> Use | None:
    """Returns a use of a parameter as a matrix; None where it is none of those."""
    node, operand = taken.node, taken.operand
    if taken.position not in WEIGHTS.get(node.op, ()):
        return None
    parameter, *_ = chain = _chain(operand)
    found = _cut(chain)
    if parameter.op is not Op.PARAM or found is None:
        return None
    is_image = node.op not in (Op.MATMUL, Op.GATHER_ROWS)
    if not is_image and math.prod(operand.shape[:-2]) != 1:
        return None
    nodes, cut = found
    views: list[View] = [
        ("reshape", v.shape) if v.op is Op.RESHAPE else ("transpose", v["order"]) for v in nodes
    ]
    shape = operand.shape if is_image else operand.shape[-2:]
    rows, columns = shape[0], math.prod(shape[1:])
    transposed = not _is_left(taken)
    turns = _turns(views)
    if turns % 2:
        transposed, rows, columns = not transposed, columns, rows
    del views[len(views) - turns :]
    if cut is not None:
        rows, columns = parameter.shape
    if views and views[-1][0] == "reshape":
        views.pop()  # its elements are laid out as a matrix anyhow
    arrangement = Arrangement(tuple(views), (rows, columns), node.attributes.get("groups", 1))
    bias = node.inputs[BIAS] if len(node.inputs) > BIAS else None
    if bias is not None and (bias.op is not Op.PARAM or taken.position == 0):
        bias = None
    return Use(taken, parameter, bias, arrangement, transposed, cut)


def _product(parameter: Node, uses: list[Use], taken: Mapping[Taken, list[Node]]) -> Product | None:
    """Returns the block of all uses of a parameter; None where they read it as several matrices."""
    if len({use.arrangement for use in uses}) > 1:
        return None
    first = next((use for use in uses if not use.looks_up), uses[0])
    placed = tuple(Placed(use, use.transposed != first.transposed) for use in uses)
    biases = {use.bias for use in uses}
    bias = next(iter(biases))
    attached = (
        len(biases) == 1
        and not any(p.exchanged or p.use.cut for p in placed)
        and {t for t, params in taken.items() if bias in params}
        == {Taken(use.node, BIAS) for use in uses}
    )
    return Product(parameter, bias if attached else None, placed)


# --- spreads --------------------------------------------------------------------------------------


def spread_axes(taken: Taken) -> tuple[int, ...] | None:
    """Returns the axes along which an operand is copied; None where its samples are not told."""
    node, position = taken
    if node.op is Op.BROADCAST:
        return node["axes"]
    if node.op in CONTRACTIONS and position == BIAS:
        return tuple(range(len(node.shape) - 1))
    return None


def _is_linear(node: Node, depends: set[Node]) -> bool:
    """Whether a value of parameters alone is linear in those of its operands that depend on any."""
    below = [i for i, x in enumerate(node.inputs) if x in depends]
    if node.op is Op.MAP:
        slopes = [scalar.derivative(node["expr"], i) for i in below]
        return not any(set(scalar.operands(slope)) & set(below) for slope in slopes)
    return node.op in LINEAR or (node.op in CONTRACTIONS and not {0, 1} <= set(below))


def _bends(taken: Taken, parameter: Node, depends: set[Node]) -> Node | None:
    """Returns what is not linear in a parameter before it meets the batch; None for nothing."""
    below = topological([taken.operand], stop=lambda node: node is parameter)
    reached = {parameter}
    for node in below:
        if not reached.isdisjoint(node.inputs):
            reached.add(node)
            if not _is_linear(node, depends):
                return node
    return None


# --- everything -----------------------------------------------------------------------------------


def uses_of(traced: Traced) -> Uses:
    """Returns what a network does with its parameters that are not frozen."""
    made, depends = _alone(traced)
    taken = _taken(traced, made)
    places: dict[Node, list[Taken]] = {p: [] for p in traced.trained.values()}
    for place, params in taken.items():
        for p in params:
            places[p].append(place)
    products, faults = dict[Node, Product](), dict[Node, str]()
    for p, where in places.items():
        uses = [use for place in where if (use := _use(place)) is not None]
        if not where or len(uses) < len(where):
            continue
        product = _product(p, uses, taken)
        if product is None:
            both = " and ".join(repr(use.node) for use in uses)
            faults[p] = _no_rule(p, f"which {both} read as different matrices")
        else:
            products[p] = product
    attached = {product.bias for product in products.values()}
    spreads: dict[Node, list[Taken]] = {}
    for p, where in places.items():
        if p in products or p in attached or p in faults:
            continue
        wrong = [place.node for place in where if spread_axes(place) is None]
        wrong += [bent for place in where if (bent := _bends(place, p, depends)) is not None]
        if wrong:
            faults[p] = _no_rule(p, f"in {wrong[0]!r}")
        elif where:
            spreads[p] = where
    return Uses(taken, list(products.values()), spreads, faults)


def _no_rule(parameter: Node, where: str) -> str:
    """Says that a parameter has no block."""
    return f"no Kronecker or diagonal rule for parameter {parameter['name']} {where}: {WAY_OUT}"


def owner(parameter: Node) -> str:
    """Returns the layer that a parameter belongs to."""
    return layer_of(parameter["name"])

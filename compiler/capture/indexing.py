"""Elements by index: an ATen name → rows of tables, and products with indicators.

Constant indices and those of an input are read as rows of a table. Indices that are computed in
the graph are numbers there: the element at such a place is a product with the indicator of the
place, which is exact. An index outside of its axis makes it NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..functions.embedding import embedding, padded
from ..functions.shapes import cut
from ..graph import ops, scalar
from ..graph.errors import NewtritonError
from ..graph.ir import Dim, Node, Op, Shape, batch_axis, is_batched, product
from ..graph.scalar import Expr, var
from .folding import Folded, of_every_sample, single
from .pointwise import equal
from .site import Rule, Site, Value, axis_of, last, permuted, reshaped, spread

OTHER = (
    "it takes other samples: samples of a batch are independent here, index them by "
    "torch.arange(batch size) or leave their axis whole"
)
Places = Tensor | Node  # whole numbers that count from the first; constant or computed


def within(index: Expr, size: int, value: Expr) -> Expr:
    """Returns a value where an index is one of 0…size−1, and NaN elsewhere."""
    inside = (index + 0.5) * (size - 0.5 - index)
    return scalar.where(inside, value, scalar.sqrt(inside))


def _places(index: Value) -> Places:
    """Returns indices; of a constant that all samples share, those of one sample."""
    if isinstance(index, Node):
        return index
    axis = batch_axis(index.shape)
    return (index.tensor if axis is None else of_every_sample(index, axis)).long()


def _node(site: Site, places: Places) -> Node:
    return places if isinstance(places, Node) else site.scope.constant(places)


def indicator(site: Site, places: Node, size: int) -> Node:
    """Returns 1 where a place is j, and 0 elsewhere, along a new last axis of j = 0…size−1."""
    shape = (*places.shape, size)
    numbers = spread(site.scope.constant(torch.arange(float(size))), shape)
    copies = ops.broadcast(places, shape, (len(shape) - 1,))
    return ops.map_(within(var(0), size, equal(var(0), var(1))), copies, numbers)


def looked_up(site: Site, table: Node, places: Node) -> Node:
    """Returns the rows of a table (V×D) at places, (*places' axes, D)."""
    if places.type.kind == "int":
        return embedding(table, places)
    return ops.matmul(indicator(site, places, table.shape[0]), _float(table))


def _float(x: Node) -> Node:
    return x if x.type.kind == "float" else ops.scale(x, 1.0)


def _embedding(
    site: Site,
    table: Value,
    index: Value,
    padding_idx: int = -1,
    by_frequency: bool = False,
    *_: object,
) -> Node:
    if by_frequency:
        raise NewtritonError("scale_grad_by_freq gives no derivative of a loss: leave it out")
    places = _node(site, _places(index))
    rows = looked_up(site, site.node(table), places)
    rows = rows if padding_idx < 0 else padded(rows, places, padding_idx)
    return spread(rows, site.shape)


def _one_hot(site: Site, index: Value, _: Value) -> Node:
    places, classes = _node(site, _places(index)), site.shape[-1]
    if places.type.kind == "int":
        return ops.make(Op.ONE_HOT, places, classes=classes)
    return indicator(site, places, classes)


# --- x[i, j, …] -----------------------------------------------------------------------------------


def _indexed(site: Site, x: Value, indices: Sequence[Value]) -> Node:
    """x[i, j, …]: at constants, at what is computed, and at the samples' own numbers.

    The axes of the indices, broadcast together, stand where the first of them does, or before all
    others if something stands between them, as in PyTorch.
    """
    node = site.node(x)
    given = {axis: v for axis, v in enumerate(_spelt_out(indices)) if v is not None}
    axes, kept = [*given], [axis for axis in range(ops.rank(node)) if axis not in given]
    start = axes[0] if axes == [*range(axes[0], axes[-1] + 1)] else 0
    rank = max(len(v.shape) for v in given.values())
    picked = site.shape[start : start + rank]
    own = [axis for axis in axes if is_batched(node.shape[axis])]
    for axis in own:
        _require_own(given[axis], node.shape[axis], site.shape)
    merged = [axis for axis in axes if axis not in own]
    places = _together(site, [(_places(given[a]), node.shape[a]) for a in merged], picked)
    # The axes of both stay where they are: of samples with their own place, or before all indices.
    lead = own if own or isinstance(places, Node) else [a for a in kept if a < start]
    if isinstance(places, Node) and not own and batch_axis(node.shape) is not None:
        raise NewtritonError(
            "it takes elements of every sample at computed indices: use torch.gather, which gives "
            "each sample its own"
        )
    rest = [axis for axis in kept if axis not in lead]
    sizes = [[node.shape[axis] for axis in part] for part in (lead, merged, rest)]
    rows = permuted(node, [*lead, *merged, *rest])
    rows = reshaped(rows, (*sizes[0], math.prod(sizes[1]), product(sizes[2])))
    apart = [i for i, d in enumerate(picked) if own and is_batched(d)]
    inner = [i for i in range(rank) if i not in apart]
    found, shape = _read(site, rows, places, apart, inner)
    found = reshaped(found, (*sizes[0], *shape, *sizes[2]))
    # Axes are named by what they are of: of x by their numbers, of the indices by those after.
    after = ops.rank(node)
    names = [*(after + i for i in apart), *(a for a in lead if a not in own)]
    names += [*(after + i for i in inner), *rest]
    wanted = [*kept[:start], *(after + i for i in range(rank)), *kept[start:]]
    return spread(permuted(found, [names.index(name) for name in wanted]), site.shape)


def _read(
    site: Site, rows: Node, places: Places, apart: Sequence[int], inner: Sequence[int]
) -> tuple[Node, Shape]:
    """Returns the rows at places, and the shape in which these places stand.

    Args:
        site: the call.
        rows: (*lead, K, D).
        places: where in K, of the axes of all indices.
        apart: the axis of the places that the lead axis of the rows is, if any.
        inner: their other axes.
    """
    if isinstance(places, Tensor):
        places = places.reshape([1] * (len(apart) + len(inner) - places.ndim) + [*places.shape])
        places = places.reshape([places.shape[i] for i in inner])
        return ops.make(Op.GATHER_ROWS, rows, site.scope.constant(places)), tuple(places.shape)
    shape = tuple(places.shape[i] for i in inner)
    if not apart:
        return looked_up(site, rows, places), shape
    lined = reshaped(permuted(places, [*apart, *inner]), (rows.shape[0], product(shape)))
    return ops.matmul(indicator(site, lined, rows.shape[-2]), _float(rows)), shape


def _spelt_out(indices: Sequence[Value]) -> list[Value]:
    """Returns indices, with the places where it is true for a constant of truth values."""
    found: list[Value] = []
    for index in indices:
        if isinstance(index, Folded) and index.values[0].dtype is torch.bool:
            found += [Folded((t, t), t) for t in index.tensor.nonzero(as_tuple=True)]
        else:
            found.append(index)
    return found


def _require_own(index: Value, samples: Dim, shape: Shape) -> None:
    """Raises unless an index of samples is each one's own number, in an axis of the samples."""
    own = (
        isinstance(index, Folded)
        and [d for d in index.shape if d != 1] == [samples]
        and all(torch.equal(v.flatten(), torch.arange(v.numel())) for v in index.values)
    )
    if not own or sum(map(is_batched, shape)) != 1:
        raise NewtritonError(OTHER)


def _together(site: Site, given: Sequence[tuple[Places, int]], shape: Shape) -> Places:
    """Returns the places in several axes as those in one that they are merged into."""
    constants = [(p, size) for p, size in given if isinstance(p, Tensor)]
    if len(constants) == len(given):
        found = torch.zeros((), dtype=torch.int64)
        for places, size in constants:
            if bool(((places < -size) | (places >= size)).any()):
                raise NewtritonError(f"an index is outside of an axis of {size}")
            found = found * size + places.remainder(size)
        return found
    nodes = [_node(site, places) for places, _ in given]
    if len(nodes) == 1 and nodes[0].type.kind == "int":
        return spread(nodes[0], shape)
    expr = scalar.ZERO
    for i, (_, size) in enumerate(given):
        place = scalar.where(var(i) + 0.5, var(i), var(i) + float(size))
        expr = expr * float(size) + within(place, size, place)
    return ops.map_(expr, *(spread(n, shape) for n in nodes))


def _index_select(site: Site, x: Value, dim: int, index: Value) -> Node:
    axis = axis_of(dim, ops.rank(node := site.node(x)))
    return _indexed(site, node, [*[None] * axis, index])


# --- elements of rows -----------------------------------------------------------------------------


def _gather(site: Site, x: Value, dim: int, index: Value, *_: object) -> Node:
    """The elements of an axis at each element's own indices; other axes are the indices'."""
    places = _places(index)
    axis = axis_of(dim, len(index.shape))
    if is_batched(index.shape[axis]):
        raise NewtritonError(OTHER)
    if isinstance(x, Folded) and (alike := single(x)) is not None and isinstance(places, Node):
        size = x.shape[axis]
        return ops.map_(within(var(0), size, scalar.const(alike)), places)
    node = site.node(x)
    for i, d in enumerate(index.shape):
        if i != axis and d != node.shape[i]:
            node = cut(node, i, 0, d)
    rows, back = last(node, axis)
    if isinstance(places, Tensor):
        return permuted(_at_constants(site, rows, places.movedim(axis, -1)), back)
    there, _ = last(places, axis)
    column = ops.reshape(_float(rows), (*rows.shape, 1))
    found = ops.matmul(indicator(site, there, rows.shape[-1]), column)
    return permuted(reshaped(found, there.shape), back)


def _at_constants(site: Site, rows: Node, places: Tensor) -> Node:
    """Elements of the last axis: all axes but the samples' are merged, and rows of one read."""
    samples = batch_axis(rows.shape)
    lead = [] if samples is None else [samples]
    order = [*lead, *(i for i in range(ops.rank(rows)) if i not in lead)]
    moved = permuted(rows, order)
    sizes = moved.shape[len(lead) :]
    if samples is not None:
        places = places.select(samples, 0)
    starts = torch.arange(math.prod(sizes[:-1])).reshape(*sizes[:-1], 1) * sizes[-1]
    table = reshaped(moved, (*moved.shape[: len(lead)], math.prod(sizes), 1))
    found = ops.make(Op.GATHER_ROWS, table, site.scope.constant(places + starts))
    found = reshaped(found, (*moved.shape[: len(lead)], *places.shape))
    return permuted(found, [order.index(i) for i in range(len(order))])


def _unfolded(site: Site, x: Value, dim: int, size: int, step: int) -> Node:
    """All parts of an axis of some size, at a distance; their elements become the last axis."""
    node = site.node(x)
    axis = axis_of(dim, ops.rank(node))
    starts = torch.arange(site.shape[axis])[:, None] * step
    if is_batched(node.shape[axis]):
        raise NewtritonError(OTHER)
    lead, rest = node.shape[:axis], node.shape[axis + 1 :]
    rows = reshaped(node, (*lead, node.shape[axis], product(rest)))
    found = ops.make(Op.GATHER_ROWS, rows, site.scope.constant(starts + torch.arange(size)))
    found, _ = last(reshaped(found, (*lead, *starts.shape[:1], size, *rest)), axis + 1)
    return found


INDEXING: dict[str, Rule] = {
    "embedding": _embedding,
    "index": _indexed,
    "index_select": _index_select,
    "gather": _gather,
    "one_hot": _one_hot,
    "unfold": _unfolded,
}

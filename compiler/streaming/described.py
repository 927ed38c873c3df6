"""What of a network is computed in passing, by name, and what is kept whole and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..graph.ir import Graph, Node, Op, Shape, is_batched, show, topological
from .regrouping import regrouped
from .streams import in_order
from .wide import LEAST, NORMALISED, SHORT, depth, trailing, wide_shapes


@dataclass(frozen=True)
class Rows:
    """Rows that are normalised: scores of attention, or what classes are drawn from.

    Attributes:
        place: where in the network that is.
        shape: the shape of all rows.
        depth: how many numbers are multiplied for an element, 0 where it comes from no product.
        wide: whether they are computed in passing.
    """

    place: str
    shape: Shape
    depth: int
    wide: bool


def described(graph: Graph, asked: Iterable[Node], deepest: int | None = None) -> list[str]:
    """Returns lines that say which rows are computed in passing, and what is whole and why.

    Args:
        graph: what is computed.
        asked: the values that must lie in memory in the end.
        deepest: the depth up to which products are computed in passing; None for any.
    """
    alike: dict[str, dict[str, None]] = {}
    graph = _in_rows(graph, asked)
    readers = _readers(graph, deepest)
    for rows in _rows(graph):
        how = _passing(rows, readers, deepest) if rows.wide else _kept(rows)
        alike.setdefault(f"{show(rows.shape)} {how}", {})[rows.place] = None
    return [f"{_names([*places])}: {how}" for how, places in alike.items()]


def streams(graph: Graph, asked: Iterable[Node]) -> int:
    """Returns the number of streams in which PyTorch's operators compute a graph."""
    graph = _in_rows(graph, asked)
    return len(in_order(graph, graph.outputs.values())[1])


def _in_rows(graph: Graph, asked: Iterable[Node]) -> Graph:
    """Returns the graph of what is asked for, wide values in one shape."""
    outputs = {str(i): n for i, n in enumerate(dict.fromkeys(asked))}
    return Graph(graph.name, regrouped(outputs, graph.given), graph.given)


def _rows(graph: Graph) -> Iterator[Rows]:
    """Yields what is wide, and scores that are not."""
    nodes = topological(graph.outputs.values())
    shapes = wide_shapes(nodes)
    for node in dict.fromkeys(n for n in nodes if n.op in NORMALISED):
        (x,) = node.inputs
        product, wide = _origin(x), x.shape in shapes
        if wide or (product is not None and _is_of_heads(product)):
            yield Rows(node.place, x.shape, 0 if product is None else depth(product), wide)


def _is_of_heads(product: Node) -> bool:
    """Whether every sample has scores of its own: products of as many matrices."""
    return len(product.inputs[1].shape) > 2 and not is_batched(product.shape[-2])


def _origin(x: Node) -> Node | None:
    """Returns the product that rows follow from by maps and reshapes."""
    while x.op in (Op.MAP, Op.RESHAPE):
        x = next((y for y in x.inputs if y.op in (Op.MAP, Op.RESHAPE, Op.MATMUL)), x.inputs[0])
    return x if x.op is Op.MATMUL else None


def _readers(graph: Graph, deepest: int | None) -> dict[Shape, dict[str, None]]:
    """Returns of wide shapes what reads values of it that it needs whole."""
    asked = frozenset(graph.outputs.values())
    items, found_streams = in_order(graph, asked, deepest)
    found: dict[Shape, dict[str, None]] = {}
    for stream in found_streams:
        for x in stream.writes:
            if trailing(x.shape, frozenset({stream.shape})) is None:
                continue
            users = [n.op.value for n in _users(x, [n for n in items if isinstance(n, Node)])]
            users += ["whoever asks for it"] if x in asked else []
            found.setdefault(stream.shape, {}).update(dict.fromkeys(users))
    return found


def _users(x: Node, nodes: Sequence[Node]) -> Iterator[Node]:
    """Yields what reads a value, in whatever shape."""
    for n in nodes:
        if x in n.inputs:
            yield from _users(n, nodes) if n.op is Op.RESHAPE else (n,)


def _passing(rows: Rows, readers: dict[Shape, dict[str, None]], deepest: int | None) -> str:
    """Returns that rows are computed in passing, and what of them is whole nevertheless."""
    limit = SHORT if deepest is None else deepest
    whole = []
    if rows.depth > limit:
        whole.append(f"products of {rows.depth} numbers are kept, which is more than {limit}")
    if rows.shape in readers:
        whole.append(f"written for {', '.join(readers[rows.shape])}")
    return "in passing" + "".join(f"; {text}" for text in whole)


def _kept(rows: Rows) -> str:
    """Returns why scores are whole."""
    *_, height, width = rows.shape
    if rows.depth * (height + width) >= height * width:
        return f"whole, no larger than what is multiplied, {rows.depth} numbers each"
    return f"whole, fewer than {LEAST} a head"


def _names(places: list[str]) -> str:
    """Returns the names of places, the first and the last one where there are many."""
    if len(places) <= 2:
        return ", ".join(places)
    return f"{places[0]} … {places[-1]}, {len(places)} of them"

"""Whether a graph is valid; run between passes by the tests. Whether a dtype holds its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .errors import NewtritonError
from .ir import LEAVES, Graph, Node, Op
from .ops import TYPE
from .scalar import Expr, subexpressions


def verify(graph: Graph) -> Graph:
    """Returns the graph itself.

    Raises:
        NewtritonError: a node comes before its operands or has another type than its op gives, or
            two leaves share a name; the first node at fault is named.
    """
    names: dict[str, object] = {}
    seen = set()
    for node in graph.nodes():
        seen.add(node)
        if node not in graph.given:
            if any(i not in seen for i in node.inputs):
                raise NewtritonError(f"{graph.name}: {node!r} comes before its operands")
            inferred = TYPE[node.op]([i.type for i in node.inputs], dict(node.attributes))
            if inferred != node.type:
                raise NewtritonError(f"{graph.name}: {node!r} should be {inferred}")
        if node.op in LEAVES - {Op.CONST} and names.setdefault(node["name"], node) is not node:
            raise NewtritonError(f"{graph.name}: two leaves are called {node['name']!r}")
    return graph


def check_range(nodes: Iterable[Node], most: float, dtype: object) -> None:
    """Raises an error where a number in a graph is too large for the dtype that it runs in.

    Args:
        nodes: the nodes of the graph.
        most: the largest number of the dtype.
        dtype: its name.
    """
    for node in nodes:
        for number in _numbers(node):
            if abs(number) > most:
                place = f" of {node.place}" if node.place else ""
                raise NewtritonError(
                    f"the number {number:g}{place} is too large for {dtype}: give a smaller one, "
                    "or dtype=torch.float64"
                )


def _numbers(node: Node) -> Iterator[float]:
    """Yields the numbers that an op has of its own."""
    for value in node.attributes.values():
        if isinstance(value, Expr):
            constants = (e.value for e in subexpressions([value]) if e.op == "const")
            yield from (number for number in constants if number is not None)
        elif isinstance(value, float):
            yield value

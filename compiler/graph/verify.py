"""Whether a graph is valid; run between passes by the tests."""

from __future__ import annotations

from .errors import NewtritonError
from .ir import LEAVES, Graph, Op
from .ops import TYPE


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

"""Places a small directed graph in layers, from left to right.

A node's layer is its distance from what it needs. Where an edge passes a layer it has a narrow
place there of its own, so that no edge runs behind a node. The order within a layer follows that of
neighbours (barycentres, Sugiyama, Tagawa & Toda 1981).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise

Point = tuple[float, float]
ACROSS, DOWN = 22.0, 5.0  # between layers, and between the places of a layer
THIN = 5.0  # the height of an edge's place in a layer
SWEEPS = 4


@dataclass(frozen=True)
class Layered:
    """A graph in layers.

    Attributes:
        places: the upper left corner of every node.
        routes: for every edge the points that it goes through.
        width: of the whole.
        height: of the whole.
    """

    places: Sequence[Point]
    routes: Sequence[Sequence[Point]]
    width: float
    height: float


def depths(count: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """Returns the distance of every node from those that need nothing.

    Args:
        count: the number of nodes.
        edges: from a node to one that needs it.
    """
    before: dict[int, list[int]] = {n: [] for n in range(count)}
    for a, b in edges:
        before[b].append(a)
    found = [0] * count
    for n in TopologicalSorter(before).static_order():
        found[n] = max((found[x] + 1 for x in before[n]), default=0)
    return found


def layered(
    sizes: Sequence[Point], edges: Sequence[tuple[int, int]], layer: Sequence[int]
) -> Layered:
    """Returns the places of nodes and the routes of edges.

    Args:
        sizes: the width and the height of every node.
        edges: from a node to one in a later layer.
        layer: the layer of every node.
    """
    paths, boxes, layers = _with_thin(sizes, edges, layer)
    _ordered(layers, [pair for path in paths for pair in pairwise(path)])
    widths = [max((boxes[n][0] for n in nodes), default=0.0) for nodes in layers]
    lefts = [sum(widths[:i]) + ACROSS * i for i in range(len(widths))]
    tops = _tops(layers, boxes, paths)
    at = {n: x for x, nodes in zip(lefts, layers, strict=True) for n in nodes}
    places = [(at[n], tops[n]) for n in range(len(sizes))]
    routes = [list(_route(path, at, tops, boxes, widths, layer)) for path in paths]
    height = max((tops[n] + boxes[n][1] for nodes in layers for n in nodes), default=0.0)
    return Layered(places, routes, lefts[-1] + widths[-1] if widths else 0.0, height)


def _with_thin(
    sizes: Sequence[Point], edges: Sequence[tuple[int, int]], layer: Sequence[int]
) -> tuple[list[list[int]], list[Point], list[list[int]]]:
    """Returns for each edge the places that it goes through, all sizes, and the layers."""
    layers: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
    for node, at in enumerate(layer):
        layers[at].append(node)
    boxes, paths = list(sizes), list[list[int]]()
    for a, b in edges:
        thin = list(range(len(boxes), len(boxes) + layer[b] - layer[a] - 1))
        boxes += [(0.0, THIN)] * len(thin)
        for i, node in enumerate(thin):
            layers[layer[a] + 1 + i].append(node)
        paths.append([a, *thin, b])
    return paths, boxes, layers


def _ordered(layers: list[list[int]], pairs: Iterable[tuple[int, int]]) -> None:
    """Orders every layer by the mean place of neighbours, from the left and from the right."""
    before: dict[int, list[int]] = {n: [] for nodes in layers for n in nodes}
    after: dict[int, list[int]] = {n: [] for nodes in layers for n in nodes}
    for a, b in pairs:
        before[b].append(a)
        after[a].append(b)
    place = {n: i for nodes in layers for i, n in enumerate(nodes)}
    for sweep in range(SWEEPS):
        neighbours = before if sweep % 2 else after
        for nodes in layers if sweep % 2 else layers[::-1]:
            mean = {
                n: sum(place[x] for x in found) / len(found) if found else float(place[n])
                for n in nodes
                for found in [neighbours[n]]
            }
            nodes.sort(key=mean.__getitem__)
            place.update({n: i for i, n in enumerate(nodes)})


def _tops(
    layers: Sequence[Sequence[int]], boxes: Sequence[Point], paths: Iterable[Sequence[int]]
) -> dict[int, float]:
    """Returns the upper edge of every place, at the height of what it needs where there is room."""
    before: dict[int, list[int]] = {}
    for path in paths:
        for a, b in pairwise(path):
            before.setdefault(b, []).append(a)
    tops: dict[int, float] = {}
    for nodes in layers:
        below = 0.0
        for n in nodes:
            middles = [tops[x] + boxes[x][1] / 2 for x in before.get(n, ())]
            wanted = sum(middles) / len(middles) - boxes[n][1] / 2 if middles else 0.0
            tops[n] = max(below, wanted)
            below = tops[n] + boxes[n][1] + DOWN
    return tops


def _route(
    path: Sequence[int],
    at: dict[int, float],
    tops: dict[int, float],
    boxes: Sequence[Point],
    widths: Sequence[float],
    layer: Sequence[int],
) -> Iterable[Point]:
    """Yields the points of an edge: out of a node, through its places, into another."""
    first, *between, last = path
    y = tops[first] + boxes[first][1] / 2
    yield at[first] + boxes[first][0], y
    yield at[first] + widths[layer[first]], y  # not over longer neighbours
    for i, n in enumerate(between):
        y = tops[n] + boxes[n][1] / 2
        yield at[n], y
        yield at[n] + widths[layer[first] + 1 + i], y
    yield at[last], tops[last] + boxes[last][1] / 2

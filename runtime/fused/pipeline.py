"""The passes from a program to launches, in their order.

`lower` takes the passes that are the same for every batch size, `plan` the others. A pass that
gives a graph leaves a valid one: `check` sees each of them, so that tests can verify it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ...compiler.graph.ir import Graph, Node, Op, concrete
from ...compiler.lowering.code import Tile
from ...compiler.lowering.codegen import LaunchCode, generate
from ...compiler.lowering.kernel import Kernel, Schedule, base
from ...compiler.lowering.precision import with_precision
from ...compiler.lowering.schedule import schedule
from ...compiler.passes.passes import PassCode, Refusal, pass_codes
from ...compiler.passes.placing import Place, in_rows, viewed
from ...compiler.passes.space import Tile as PassTile
from ...compiler.streaming.regrouping import regrouped
from ...compiler.streaming.views import View
from . import codecache
from .launch import Generated, Launch, make_launch
from .plan import TAPE, Plan
from .selection import Selection
from .settings import Settings
from .storage import LIMIT, Count, Storage, check_counts, lay_out
from .tiles import PatchTiling, RowTiling, Tiling, pointwise_tile

Check = Callable[[Graph], Graph]


INTERPRETED = PassTile(64, 128)  # where a program takes as long, whatever it holds


@dataclass(frozen=True)
class Lowered:
    """A program as it will be computed.

    Attributes:
        outputs: the outputs and all that is kept, by name, as nodes of the program.
        graph: the same with rounded operands.
        became: by node of the program, the node of the graph that it has become.
    """

    outputs: Mapping[str, Node]
    graph: Graph
    became: Mapping[Node, Node]


def unchecked(graph: Graph) -> Graph:
    """Returns the graph."""
    return graph


def lower(
    program: Graph, keep: Iterable[Node], precision: str, check: Check = unchecked
) -> Lowered:
    """Takes a program through the passes that do not depend on the batch size.

    Args:
        program: what to compute.
        keep: nodes whose values are returned besides the outputs.
        precision: the precision of the operands of contractions.
        check: sees the graph after every pass.
    """
    taped = check(keep_values(program, keep))
    wide = check(Graph(taped.name, regrouped(taped.outputs, taped.given), taped.given))
    rounded, became = with_precision(wide, precision)
    became |= {n: became[wide.outputs[name]] for name, n in taped.outputs.items()}
    return Lowered(taped.outputs, check(rounded), became)


def plan(
    graph: Graph,
    batch: int,
    selection: Selection,
    given: Iterable[Node] = (),
    keep_made: bool = False,
    check: Check = unchecked,
    copies_data: bool = True,
) -> Plan:
    """Takes a graph through all other passes.

    Args:
        graph: what to compute, with rounded operands.
        batch: the batch size.
        selection: who computes contractions, and how kernels are made.
        given: nodes that will be fed besides those that the graph gives.
        keep_made: whether values that are made for contractions, rounded or transposed operands,
            are returned as well.
        check: sees the graph after every pass.
        copies_data: whether what is recorded reads copies of the batch's data.
    """
    known = check(give(graph, given))
    if any(n.type.numel(batch) >= LIMIT for n in known.nodes()):
        tile(known, batch, Selection(selection.settings))  # before memory is taken for measurements
    selection.prepare([known], batch)
    scheduled, tilings, tiles = tile(known, batch, selection)
    code, passes = generate(scheduled, tiles), generate_passes(scheduled, batch, selection.settings)
    generated = Generated(scheduled, batch, selection.settings, tilings, tiles, passes)
    launches = make_launches(code, generated)
    made = scheduled.made() if keep_made else []
    storage = place_values(launches, scheduled, made, batch)
    record = selection.settings.record
    texts = [_text(each, passes) for each in code]
    return Plan(scheduled, texts, launches, storage, made, record, copies_data)


def keep_values(program: Graph, keep: Iterable[Node]) -> Graph:
    """Returns the program with all that is kept as outputs of their own.

    They stand in the order of the program: the same network gives the same code in every run.
    """
    kept = set(keep) - program.given
    tape = {f"{TAPE}{i}": n for i, n in enumerate(n for n in program.nodes() if n in kept)}
    return Graph(program.name, {**program.outputs, **tape}, program.given)


def give(graph: Graph, nodes: Iterable[Node]) -> Graph:
    """Returns the graph with further nodes given from outside."""
    return Graph(graph.name, graph.outputs, graph.given.union(nodes))


def tile(
    graph: Graph, batch: int, selection: Selection
) -> tuple[Schedule, dict[Kernel, Tiling], dict[Kernel, Tile]]:
    """Returns the schedule of a graph and its tiles, all of whose elements can be counted."""
    scheduled = schedule(graph, batch, selection.way)
    tilings = choose_tilings(scheduled, batch, selection)
    tiles = choose_tiles(scheduled, batch, tilings, selection.settings.elements)
    check_counts(graph, batch, list(counted(scheduled, tilings, tiles)))
    return scheduled, tilings, tiles


def counted(
    scheduled: Schedule, tilings: Mapping[Kernel, Tiling], tiles: Mapping[Kernel, Tile]
) -> Iterator[tuple[str, Count]]:
    """Yields what kernels count, each with its name: elements of memory, rows, instances."""
    for kernel in scheduled.kernels:
        operands = [x for a in kernel.anchors for x in scheduled.operands.get(a, ())]
        for node in dict.fromkeys([*kernel.reads, *operands, *kernel.anchors, *kernel.writes]):
            yield repr(node), node.type.numel
        if kernel in tilings:
            yield from _counted_by_contraction(kernel, operands, tilings[kernel])
        if tiles.get(kernel) is not None:
            yield from _counted_by_tiles(kernel, tiles[kernel])
    for node in scheduled.looked_up:
        if node.op is Op.RESHAPE:  # its elements are numbered
            yield repr(node), node.type.numel
        elif node.op is Op.REDUCE_SUM:  # what is summed is numbered
            yield f"the operand of {node!r}", node.inputs[0].type.numel


def _counted_by_tiles(kernel: Kernel, tile: Tile) -> Iterator[tuple[str, Count]]:
    """Yields rows up to the end of the last tile, instances, and parts of sums."""

    def rows(batch: int) -> int:
        return math.prod(concrete(kernel.space.rows, batch)) + tile.rows - 1

    def down(batch: int) -> int:
        return tile.down(math.prod(concrete(kernel.space.rows, batch)))

    strips = tile.strips * kernel.way.splits
    yield f"the rows of {kernel.space}", rows
    yield f"the tiles of {kernel.space}", lambda batch: down(batch) * strips
    for node in kernel.partials:
        across = max(tile.strips, kernel.space.columns if node.shape else 1)
        yield f"the parts of {node!r}", lambda batch, k=across: down(batch) * k


def _counted_by_contraction(
    kernel: Kernel, operands: Sequence[Node], tiling: Tiling
) -> Iterator[tuple[str, Count]]:
    """Yields pixels up to the end of the last tile, places of taps, and parts of sums."""
    if isinstance(tiling, RowTiling):
        index = kernel.anchors[0].inputs[1]
        yield f"the sorted {index!r}", lambda batch: 2 * index.type.numel(batch)
        return
    depth = tiling.constants["BK"] * tiling.constants["SPLIT"]
    for x in operands:
        pixels = lambda batch, x=x: math.prod(concrete(x.shape[:-1], batch)) + depth  # noqa: E731
        yield f"the pixels of {x!r}", pixels
    if isinstance(tiling, PatchTiling):
        yield f"the products of {kernel.anchors[0]!r}", lambda batch: tiling.scratch
        yield f"the tiles of {kernel.anchors[0]!r}", lambda batch: tiling.instances
    for anchor in kernel.anchors:
        splits = kernel.way.splits
        yield f"the parts of {anchor!r}", lambda batch, x=anchor, k=splits: k * x.type.numel(batch)
        if anchor.op is Op.CONV_INPUT_GRAD:  # taps are counted back from the farthest
            ct, w = anchor.inputs
            (dh, dw), (kh, kw) = anchor["dilation"], w.shape[1:3]
            reach = ((kh - 1) * dh * ct.shape[-2] + (kw - 1) * dw) * ct.shape[-1] + depth
            yield f"the taps of {anchor!r}", lambda batch, x=ct, k=reach: x.type.numel(batch) + k


def choose_tilings(scheduled: Schedule, batch: int, selection: Selection) -> dict[Kernel, Tiling]:
    """Returns the tiling of every contraction that a kernel of ours computes."""
    return {
        kernel: selection.tiling(kernel.anchors[0], batch, kernel.shares_loop)
        for kernel in scheduled.kernels
        if kernel.anchors and not (kernel.way.by_vendor or kernel.stream)
    }


def choose_tiles(
    scheduled: Schedule, batch: int, tilings: Mapping[Kernel, Tiling], elements: int
) -> dict[Kernel, Tile]:
    """Returns what the slots of every kernel see at once."""
    tiles = {kernel: tiling.tile for kernel, tiling in tilings.items()}
    return {
        kernel: tiles.get(kernel) or pointwise_tile(kernel, batch, elements)
        for kernel in scheduled.kernels
        if kernel.stream is None
    }


def generate_passes(
    scheduled: Schedule, batch: int, settings: Settings
) -> dict[Kernel, Sequence[PassCode] | Refusal]:
    """Returns the code of every stream, or why it runs in blocks on PyTorch's operators."""
    target, precision = settings.target, settings.precision
    product = target.product(precision) if target else precision
    found: dict[Kernel, Sequence[PassCode] | Refusal] = {}
    for kernel in scheduled.kernels:
        if kernel.stream is not None:
            views = dict(zip(kernel.stream.reads, kernel.views, strict=True))
            place = partial(_place, views, batch)
            given = INTERPRETED if settings.interpreted else None
            found[kernel] = pass_codes(kernel.stream, batch, product, settings.chip, place, given)
    return found


def _place(views: Mapping[Node, View], batch: int, node: Node) -> Place:
    """Returns where a stream reads or writes a value."""
    return viewed(views[node], batch) if node in views else in_rows(node)


def _text(launch: LaunchCode, passes: Mapping[Kernel, Sequence[PassCode] | Refusal]) -> str:
    """Returns the generated functions of a launch: slots, or passes."""
    found = [passes.get(kernel, ()) for kernel in launch.kernels]
    codes = [code for each in found if not isinstance(each, Refusal) for code in each]
    return "\n\n\n".join(filter(None, [launch.text, *dict.fromkeys(c.text for c in codes)]))


def make_launches(code: Sequence[LaunchCode], generated: Generated) -> list[Launch]:
    """Returns the launches, in order, once their code is loaded."""
    key = {"kernels": codecache.kernels_digest()}
    modules = [codecache.module(each.source, key) for each in code]
    return [make_launch(*both, generated) for both in zip(code, modules, strict=True)]


def place_values(
    launches: Sequence[Launch], scheduled: Schedule, made: Sequence[Node], batch: int
) -> Storage:
    """Returns where every value lies; outputs, and what was made, are results."""
    results = {*map(base, scheduled.graph.outputs.values()), *made}
    return lay_out([launch.use for launch in launches], results, scheduled.leaves, batch)

"""What a model's programs cost, as a table, and what their kernels are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ...compiler.curvature.blocks import DiagonalLayer, KroneckerLayer
from ...compiler.curvature.factors import Diagonal
from ...compiler.graph.cost import flops, peak, traffic, units
from ...compiler.graph.errors import MissingRule
from ...compiler.graph.ir import Graph, Node, concrete
from ...compiler.graph.program import Program
from ...compiler.lowering.reading import DEEPEST
from ...compiler.programs import Programs
from ...compiler.streaming.described import described, streams
from .. import capacity
from ..backend import Planned
from ..capacity import size
from ..parallel.owners import LIGHT, placed
from ..parallel.ranks import Ranks
from .runner import Runner

MakePlan = Callable[[Program, Sequence[Node]], Planned | None]


def explain(
    programs: Programs,
    batch: int,
    itemsize: int,
    plan: MakePlan,
    kernels: bool = False,
    two_products: bool = True,
) -> str:
    """Returns a line per program: ops, units of work, GFLOP, MB moved and held; then the tape's.

    MB moved and held are those of one operator after another, each with memory of its own. Below
    the table stands what is computed in passing, in how many streams, and what is whole and why;
    and why a program cannot be made, where there is one.

    Args:
        programs: the programs of a network.
        batch: the batch size at which costs are counted.
        itemsize: the bytes of a number.
        plan: how a program becomes fused kernels; where it does, kernels, launches, the MB that
            fused kernels move and the MB of the arena are added.
        kernels: whether to show every program's kernels and their source.
        two_products: whether the quadratic form takes two products a layer or three.
    """
    shown, missing = shown_programs(programs, two_products)
    names = max(len(p.name) for p in shown)
    head = (
        f"{'program':<{names}}  {'ops':>5} {'units':>6} {'GFLOP':>9} {'MB moved':>9} {'MB held':>9}"
    )
    lines, details, made, counts = list[str](), list[str](), list[Node](), dict[str, int]()
    deepest, refusals = None, dict[str, None]()
    for program in shown:
        kept = programs.tape if program is programs.linearize else frozenset[Node]()
        line = f"{program.name:<{names}}  {_costs(program.graph, kept, batch, itemsize)}"
        if (p := plan(program, made)) is None:
            counts[program.name] = streams(program.graph, [*program.graph.outputs.values(), *kept])
        else:
            made, deepest = [*made, *p.made], DEEPEST
            counts[program.name] = p.schedule.streams
            refusals |= dict.fromkeys(p.refusals)
            s, arena = p.schedule, p.scratch / 1e6
            line += f" {len(s.kernels):>8} {len(s.launches):>9} {s.traffic(batch) / 1e6:>9.1f}"
            line += f" {arena:>9.1f}"
            details += [str(s), p.source]
        lines.append(line)
    fused = f" {'kernels':>8} {'launches':>9} {'MB fused':>9} {'MB arena':>9}" if details else ""
    tape = itemsize * sum(n.type.numel(batch) for n in programs.tape) / 1e6
    lines += [f"tape of a linearization: {len(programs.tape)} values, {tape:.1f} MB"]
    lines += [*_in_passing(programs, counts, deepest), *refusals, *missing]
    table = "\n".join([f"{head}{fused}   (batch {batch})", *lines])
    return "\n\n".join([table, *(details if kernels else ())])


def _in_passing(programs: Programs, counts: Mapping[str, int], deepest: int | None) -> list[str]:
    """Returns which scores and rows are computed in passing, and in how many streams."""
    graph = programs.linearize.graph
    lines = described(graph, [*graph.outputs.values(), *programs.tape], deepest)
    shown = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    return [f"streams: {shown}", *lines] if shown else lines


def shown_programs(programs: Programs, two_products: bool) -> tuple[list[Program], list[str]]:
    """Returns the programs of the table, and why others cannot be made for this network."""
    makers: list[Callable[[], Program]] = [
        lambda: programs.linearize,
        lambda: programs.evaluate,
        lambda: programs.hvp,
        lambda: programs.quadratic(1, two_products=two_products),
    ]
    if programs.offers("ggn"):
        makers += [lambda: programs.ggnvp, lambda: programs.quadratic(1, "ggn")]
    makers += [partial(programs.factors, kind) for kind in programs.kinds]
    shown, missing = list[Program](), dict[str, None]()
    for make in makers:
        try:
            shown.append(make())
        except MissingRule as error:
            missing[str(error)] = None
    return shown, list(missing)


def memory_of_step(runner: Runner, known: Programs, shown: Sequence[Program], batch: int) -> str:
    """Returns in a line what the values of a step take, and what is free.

    Args:
        runner: what runs programs.
        known: all programs of the network.
        shown: those of a step.
        batch: the batch size.
    """
    counts = runner.footprints(known, [known.linearize, *shown], batch)
    first, available = counts.pop(known.linearize)(batch), capacity.free(runner.device)
    peaks = {program.name: count(batch).peak for program, count in counts.items()}
    largest = max(peaks, key=lambda name: peaks[name])
    left = "unknown" if available is None else size(available)
    return (
        f"memory of a step on {batch} samples: {size(first.peak)} while it is linearized, then "
        f"{size(first.kept)} and {size(peaks[largest])} more in {largest}; {left} free"
    )


def factors_held(
    programs: Programs,
    blocks: Sequence[KroneckerLayer | DiagonalLayer],
    ranks: Ranks,
    rows: int,
    itemsize: int,
) -> str:
    """Returns in a line what factors of layers take, on all ranks and on this one.

    Args:
        programs: the programs of a network.
        blocks: the blocks that have factors.
        ranks: the ranks that hold them.
        rows: how many of them hold a layer.
        itemsize: the bytes of a number.
    """
    found = programs.factors(programs.kinds[0], layers=frozenset(b.owner for b in blocks)).outputs
    shapes = dict[str, list[tuple[int, ...]]]()
    for key, node in found.items():
        of = key.parameter if isinstance(key, Diagonal) else getattr(key, "layer", "")
        shapes.setdefault(of, []).append(concrete(node.shape, 1))
    sizes, costs = dict[str, int](), dict[str, float]()
    for block in blocks:
        kept = [s for of in {block.layer, *block.names} for s in shapes.get(of, ())]
        sizes[block.layer] = sum(map(math.prod, kept))
        costs[block.layer] = LIGHT
        if isinstance(block, KroneckerLayer):
            matrices = [s for s in kept if not block.is_diagonal(len(s))]
            costs[block.layer] += sum(2 * math.prod(s) * s[-1] for s in matrices)
    columns = placed(costs, ranks.size // rows)
    own = ranks.rank % (ranks.size // rows)
    here = sum(n for layer, n in sizes.items() if columns[layer] == own)
    return (
        f"factors, and as much again for inverses: {size(itemsize * here)} on this rank, of "
        f"{size(itemsize * sum(sizes.values()))}; each layer on {rows} of {ranks.size} ranks"
    )


def _costs(graph: Graph, kept: frozenset[Node], batch: int, itemsize: int) -> str:
    """Returns the columns that any graph has; what is `kept` is held like a result."""
    work, moved = flops(graph, batch) / 1e9, traffic(graph, batch, itemsize) / 1e6
    results = {**graph.outputs, **{str(i): n for i, n in enumerate(kept)}}
    held = peak(Graph(graph.name, results, graph.given), batch, itemsize) / 1e6
    numbers = f"{len(graph.computed()):>5} {units(graph):>6} {work:>9.3f}"
    return f"{numbers} {moved:>9.1f} {held:>9.1f}"

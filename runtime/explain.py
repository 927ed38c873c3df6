"""What a model's programs cost, as a table."""

from __future__ import annotations

from ..compiler.cost import flops, traffic, units
from ..compiler.factors import KINDS
from ..compiler.programs import Programs


def explain(programs: Programs, batch: int, itemsize: int) -> str:
    """A line per program: ops, units of work, GFLOP, MB moved; then the size of the tape."""
    graphs = [
        programs.evaluate,
        programs.linearize,
        programs.hvp,
        programs.ggnvp,
        programs.quadratic(1),
        programs.quadratic(1, "ggn"),
        *(programs.factors(kind) for kind in KINDS),
    ]
    width = max(len(g.name) for g in graphs)
    lines = [
        f"{'program':<{width}}  {'ops':>5} {'units':>6} {'GFLOP':>9} {'MB moved':>9}"
        f"   (batch {batch})"
    ]
    for g in graphs:
        work, moved = flops(g, batch) / 1e9, traffic(g, batch, itemsize) / 1e6
        lines.append(
            f"{g.name:<{width}}  {len(g.computed()):>5} {units(g):>6} {work:>9.3f} {moved:>9.1f}"
        )
    tape = itemsize * sum(n.type.numel(batch) for n in programs.tape) / 1e6
    lines.append(f"tape of a linearization: {len(programs.tape)} values, {tape:.1f} MB")
    return "\n".join(lines)

"""Every kernel of the checked programs, as it would be launched on a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...compiler.graph.ir import Graph, Node
from ...compiler.language.losses import CrossEntropyLoss
from ...compiler.lowering.precision import two_products
from ..fused.chips import CHIPS, Chip
from ..fused.compiling import Job
from ..fused.executor import FusedExecutor
from ..fused.plan import Plan
from ..fused.selection import Selection
from ..fused.settings import Settings
from ..model.compile import compile as compile_network
from ..model.model import Model
from .networks import LARGE, LENGTH, network_programs, vector_programs


def program_plans(
    model: Model, precision: str, batch: int, chip: Chip = CHIPS["sm_90"]
) -> Iterator[Plan]:
    """Yields the programs of a model as fused kernels."""
    selection, made = Selection(Settings(precision, "fused", chip=chip)), list[Node]()
    for graph in network_programs(model.programs[True], two_products(precision)):
        yield program_plan(graph, batch, selection, made)


def program_plan(graph: Graph, batch: int, selection: Selection, made: list[Node]) -> Plan:
    """Returns a program of a network as fused kernels.

    Args:
        graph: the program.
        batch: the batch size.
        selection: how kernels are made.
        made: the operands that programs before have made and kept; those of this one are added.
    """
    plan = FusedExecutor(graph, (), selection, keep_made=True).plan(batch, made)
    made += plan.made
    return plan


def jobs(
    names: Sequence[str], precisions: Sequence[str], chip: Chip = CHIPS["sm_90"], batch: int = 200
) -> Iterator[Job]:
    """Yields every kernel of networks, and of vectors.

    Args:
        names: networks of `LARGE`.
        precisions: the precisions of contractions.
        chip: what they are compiled for.
        batch: the batch size.
    """
    for name in names:
        net, shape = LARGE[name]
        model = compile_network(net(), shape, CrossEntropyLoss(), backend="aten", device="cpu")
        for precision in precisions:
            for plan in program_plans(model, precision, batch, chip):
                yield from plan.jobs(f"{name} {precision} {plan.schedule.graph.name}")
    selection = Selection(Settings("ieee", "fused", chip=chip))
    for graph in vector_programs():
        plan = FusedExecutor(graph, (), selection).plan(LENGTH)
        yield from plan.jobs(f"vectors ieee {graph.name}")

"""Pictures of a network's programs, as fused kernels or on PyTorch's operators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.ir import Node
from ...compiler.graph.program import Program
from ...compiler.programs import Programs
from ..aten.executor import AtenExecutor
from ..model.model import Model
from . import operators
from .picture import Picture


def pictures(
    model: Model, shown: Sequence[Program], batch: int, fused: bool | None = None
) -> Iterator[Picture]:
    """Yields pictures of programs; nothing is computed for them.

    Args:
        model: the network. On the triton backend kernels are those that it would run; on another
            one those of an H100, so that the picture is the same wherever it is made.
        shown: the programs.
        batch: the batch size.
        fused: whether fused kernels are drawn, or PyTorch's operators; None draws kernels where
            Triton is installed.

    Raises:
        NewtritonError: kernels are asked for, and Triton is not installed.
    """
    found = find_spec("triton") is not None
    if fused and not found:
        raise NewtritonError("pictures of kernels need the package: pip install triton")
    known = model.programs[True]
    if found if fused is None else fused:
        yield from _of_kernels(model, known, shown, batch)
        return
    for program in shown:
        executor = AtenExecutor(program.graph, _kept(known, program))
        yield operators.picture(executor, batch, model.dtype.itemsize)


def _kept(known: Programs, program: Program) -> list[Node]:
    """Returns what a program keeps for others, in its order."""
    if program is not known.linearize:
        return []
    return [n for n in program.graph.nodes() if n in known.tape]


def _of_kernels(
    model: Model, known: Programs, shown: Sequence[Program], batch: int
) -> Iterator[Picture]:
    """Yields programs as fused kernels; those of the tape find what the linearization made."""
    # Triton is imported only where it is used.
    from ..fused.backend import TritonBackend  # noqa: PLC0415
    from ..fused.executor import FusedExecutor  # noqa: PLC0415
    from ..fused.selection import Selection  # noqa: PLC0415
    from ..fused.settings import Settings  # noqa: PLC0415
    from . import planned  # noqa: PLC0415

    own, otherwise = model.backend, Selection(Settings(contractions="fused"))
    selection = own.selection if isinstance(own, TritonBackend) else otherwise
    settings = selection.settings
    where = "Triton's interpreter" if settings.interpreted else settings.chip.name
    how = f"kernels for {where}, {settings.precision}, contractions {settings.contractions}"

    def plan(program: Program, made: Sequence[Node]):
        executor = FusedExecutor(program.graph, _kept(known, program), selection)
        return executor.plan(batch, made)

    made = plan(known.linearize, ()).made if any(p.graph.given for p in shown) else []
    for program in shown:
        yield planned.picture(plan(program, made if program.graph.given else ()), how)

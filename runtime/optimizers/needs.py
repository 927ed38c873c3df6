"""What a step needs in memory, counted before the first one at a batch size.

While a step goes on it holds the tape of its linearization, what every program on it gives, flat
vectors, and factors and inverses twice where new ones are made; one program or factorisation at a
time works besides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...compiler.graph.program import Program
from .. import capacity
from ..capacity import Item
from ..curvatures.kronecker import KroneckerCurvature
from ..footprint import Allocations, Footprint
from ..parts.eigen import Symmetric, diagonalise
from ..solvers.direct import Direct

if TYPE_CHECKING:
    from ..model.model import Model
    from ..parts.block import BlockDiagonal
    from ..parts.protocols import Curvature, Solver

# Flat vectors that a step holds at most besides its gradient, as measured: directions, proposals,
# averages, parameters before it; and those that conjugate gradients work with.
VECTORS, ITERATED = 6, 8
SMALLER = (
    "keep the diagonal of large factors: give the curvature a smaller max_factor, or leave layers "
    "out of it; or take the curvature 'ggn' with solver='truncated-cg'"
)


def check_step(
    model: Model, curvature: Curvature, solver: Solver, programs: Sequence[Program], batch: int
) -> None:
    """Checks that a step fits into the memory that is free.

    Args:
        model: the model.
        curvature: the curvature.
        solver: the solver.
        programs: what runs on the batch, the linearization first.
        batch: the batch size.

    Raises:
        NewtritonError: it does not fit; the error says how many samples do.
    """
    factors = [*_of_factors(curvature, solver)]
    vectors = VECTORS + (0 if isinstance(solver, Direct) else ITERATED)
    fixed = [Item("flat vectors", vectors * model.params.nbytes), *(item for item, _ in factors)]
    if not model.plenty(programs, batch, sum(i.size for i in fixed) // model.dtype.itemsize):
        working = max((work for _, work in factors), default=0)
        counts = model.footprints(programs, batch)

        def need(n: int) -> list[Item]:
            found = {program: count(n) for program, count in counts.items()}
            kept = [Item(f"values that {p.name} gives", found[p].kept) for p in programs]
            largest = max(programs, key=lambda p: found[p].peak - found[p].kept)
            work = found[largest].peak - found[largest].kept
            return [*fixed, *kept, Item(f"work of {largest.name}", max(work, working))]

        capacity.check("a step", need, batch, model.device, in_pieces=True)
    model.note_fitting(programs, batch)


def _of_factors(curvature: Curvature, solver: Solver) -> Iterator[tuple[Item, int]]:
    """Yields what factors and what is made of them take, and what that works in."""
    inner = curvature.preconditioner
    if inner is not None:
        curvature, solver = inner, getattr(solver, "preconditioner", solver)
    if not isinstance(curvature, KroneckerCurvature):
        return
    sketch = curvature.sketch
    for block in sketch.blocks if not curvature.is_filled else ():
        for name, x in block.tensors.items():
            shape = " × ".join(f"{n:,}" for n in x.shape)
            yield Item(f"{name} of layer {block.layer!r}, {shape},", x.nbytes, SMALLER), 0
    bases = _bases(sketch)
    yield Item("new bases of factors", bases.kept, SMALLER), bases.peak - bases.kept
    if isinstance(solver, Direct):
        made = solver.footprint(sketch)
        kept = made.kept * (1 if solver.is_made else 2)
        yield Item("inverses of factors", kept, SMALLER), made.peak - made.kept


def _bases(sketch: BlockDiagonal) -> Footprint:
    """Returns the bytes that new eigenbases of factors take, where blocks keep some."""
    kept = [x for b in sketch.blocks for name, x in b.tensors.items() if name.startswith("basis_")]
    with Allocations(lazily=True) as found:
        spectra = diagonalise([Symmetric(x) for x in kept])
        footprint = found.footprint
    del spectra
    return footprint

"""What a step needs in memory, counted before the first one at a batch size.

While a step goes on it holds the tape of its linearization, what every program on it gives, flat
vectors, and factors and inverses twice where new ones are made; one program or factorisation at a
time works besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import LBFGS, Optimizer

from ...compiler.graph.program import Program
from .. import capacity
from ..capacity import Item
from ..curvatures.kronecker import KroneckerCurvature
from ..footprint import META, Allocations, Footprint
from ..parts.eigen import Symmetric, diagonalise
from ..parts.tags import Tag
from ..solvers.direct import Direct

if TYPE_CHECKING:
    from ..model.model import Model
    from ..parts.block import BlockDiagonal
    from ..parts.protocols import Curvature, Solver

# Flat vectors that a step holds at most besides its gradient, as measured: directions, proposals,
# averages, parameters before it; and those that conjugate gradients work with, on all or by block.
VECTORS, ITERATED, BY_BLOCK = 6, 8, 2
MOST = 256  # times its parameters: what no optimizer of torch.optim keeps by default
LESS = "take an optimizer that keeps less, e.g. torch.optim.SGD without momentum"
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
    iterated = BY_BLOCK if Tag.BLOCKS in solver.needs else ITERATED
    vectors = VECTORS + (0 if isinstance(solver, Direct) else iterated)
    fixed = [Item("flat vectors", vectors * model.params.nbytes), *(item for item, _ in factors)]
    if not model.runner.plenty(programs, batch, sum(i.size for i in fixed) // model.dtype.itemsize):
        working = max((work for _, work in factors), default=0)
        counts = model.runner.footprints(model.programs[True], programs, batch)

        def need(n: int) -> list[Item]:
            found = {program: count(n) for program, count in counts.items()}
            kept = [Item(f"values that {p.name} gives", found[p].kept) for p in programs]
            largest = max(programs, key=lambda p: found[p].peak - found[p].kept)
            work = found[largest].peak - found[largest].kept
            return [*fixed, *kept, Item(f"work of {largest.name}", max(work, working))]

        capacity.check("a step", need, batch, model.device, in_pieces=True)
    model.runner.note_fitting(programs, batch)


def _of_factors(curvature: Curvature, solver: Solver) -> Iterator[tuple[Item, int]]:
    """Yields what factors and what is made of them take, and what that works in."""
    inner = curvature.preconditioner
    if inner is not None:
        curvature, solver = inner, getattr(solver, "preconditioner", solver)
    if not isinstance(curvature, KroneckerCurvature):
        return
    sketch = curvature.sketch
    for block in sketch.held if not curvature.is_filled else ():
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
    kept = [x for b in sketch.held for name, x in b.tensors.items() if name.startswith("basis_")]
    with Allocations(lazily=True) as found:
        spectra = diagonalise([Symmetric(x) for x in kept])
        footprint = found.footprint
    del spectra
    return footprint


def check_kept(
    model: Model, seen: Sequence[Tensor], make: Callable[[list[Parameter]], Optimizer]
) -> None:
    """Checks that the state of an optimizer of torch.optim fits into the memory that is free.

    It is held twice, to be put back where a step is taken back.

    Args:
        model: the model.
        seen: the parameters that the optimizer sees.
        make: makes such an optimizer for parameters.

    Raises:
        NewtritonError: it does not fit.
    """
    size, available = model.params.nbytes, capacity.free(model.device)
    if available is None or MOST * size < available:
        return
    twins = [Parameter(torch.empty_like(p, device=META), requires_grad=False) for p in seen]
    optimizer = make(twins)
    for twin in twins:
        twin.grad = torch.empty_like(twin)
    # Some look at numbers, which there are none of, and L-BFGS asks for a closure.
    with Allocations(lazily=True) as found, suppress(RuntimeError, TypeError):
        optimizer.step()
    peak, kept = found.footprint
    if isinstance(optimizer, LBFGS):  # pairs of steps and gradients
        peak = kept = 2 * optimizer.param_groups[0]["history_size"] * size
    name = type(optimizer).__name__
    items = [Item("flat vectors", 2 * size), Item(f"the state of {name}", peak + kept, LESS)]
    capacity.check(f"a step of {name}", lambda n: items, None, model.device)

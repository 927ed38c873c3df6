"""Which curvature, solver, step rule and form of the damping do not go together, and why.

What a part needs and the others offer are tags, see `parts.tags`, which has a sentence for each tag
that may be missing. Here stands what no tag expresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...compiler.graph.errors import NewtritonError
from ...compiler.language.loss import Loss, refusal
from ..curvatures.ekfac import EKFAC
from ..parts.tags import MISSING, Tag

if TYPE_CHECKING:
    from ..parts.protocols import Curvature, Solver, Stepper

# What a form of the damping needs: C + γI, or EA-CG's (1 − α)C + αI.
FORMS: dict[str, frozenset[Tag]] = {
    "additive": frozenset(),
    "convex": frozenset({Tag.CONSTANT_DAMPING}),
}

UNUSED = (
    "the curvature gathers factors that the solver does not use: give the solver a "
    "preconditioner, TruncatedCG(preconditioner=KFI()), or leave the factors out"
)


def check_combination(
    curvature: Curvature, solver: Solver, rule: Stepper, form: str, criterion: Loss
) -> None:
    """Checks that the parts go together, and that loss and network have the curvature.

    Raises:
        NewtritonError: they do not; the error names all three, and says what to take instead.
    """
    for sentence in _refusals(curvature, solver, rule, form, criterion):
        raise NewtritonError(
            f"curvature {curvature.name!r} with solver {solver.name!r} and rule {rule.name!r}: "
            f"{sentence}"
        )


def _refusals(
    curvature: Curvature, solver: Solver, rule: Stepper, form: str, criterion: Loss
) -> Iterator[str]:
    """Yields a sentence for each way in which the parts do not go together."""
    inner = curvature.preconditioner
    for kind in (curvature.name, None if inner is None else inner.name, rule.matrix):
        sentence = None if kind is None else refusal(criterion, EKFAC.get(kind, kind))
        if sentence is not None:
            yield sentence
    missing = (solver.needs | rule.needs | FORMS[form]) - (curvature.tags | rule.tags)
    yield from (MISSING[tag] for tag in Tag if tag in missing)
    if Tag.PRECONDITIONER in curvature.tags - solver.needs:
        yield UNUSED

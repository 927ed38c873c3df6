"""Which curvature, solver, step rule and form of the damping do not go together, and why.

What a part needs and the others offer are tags, see `parts.tags`, which has a sentence for each tag
that may be missing. Here stands what no tag expresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...compiler.curvature.factors import KINDS
from ...compiler.graph.errors import MissingRule, NewtritonError
from ...compiler.language.loss import Loss, refusal
from ..parts.protocols import Foreseeing
from ..parts.tags import MISSING, Tag

if TYPE_CHECKING:
    from ...compiler.programs import Programs
    from ..parts.protocols import Curvature, Solver, StepRule

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
    curvature: Curvature, solver: Solver, rule: StepRule, form: str, criterion: Loss
) -> None:
    """Checks that the parts go together, and that the loss has the curvature they work with.

    Raises:
        NewtritonError: they do not; the error names all three, and says what to take instead.
    """
    for sentence in _refusals(curvature, solver, rule, form, criterion):
        raise NewtritonError(
            f"curvature {curvature.name!r} with solver {solver.name!r} and rule {rule.name!r}: "
            f"{sentence}"
        )


def check_network(curvature: Curvature) -> None:
    """Checks that the compiler has the rules for the factors that a curvature takes of a network.

    Raises:
        MissingRule: it has not; the error names what it lacks, and the kinds of factors it has.
    """
    for part in (curvature, curvature.preconditioner):
        if not isinstance(part, Foreseeing) or Tag.BLOCKS not in part.tags:
            continue
        try:
            part.programs(part.model, 1)
        except MissingRule as error:
            kinds = [kind for kind in KINDS if _has_factors(part.model.programs[True], kind)]
            named = ", ".join(map(repr, kinds))
            instead = f"take factors of the kind {named}, or" if kinds else "take"
            raise MissingRule(
                f"curvature {part.name!r}: {error}. For this network {instead} the curvature 'ggn' "
                "or 'hessian' with solver='truncated-cg'"
            ) from error


def _has_factors(programs: Programs, kind: str) -> bool:
    """Whether loss and network have factors of a kind."""
    try:
        programs.factors(kind)
    except NewtritonError:
        return False
    return True


def _refusals(
    curvature: Curvature, solver: Solver, rule: StepRule, form: str, criterion: Loss
) -> Iterator[str]:
    """Yields a sentence for each way in which the parts do not go together."""
    inner = curvature.preconditioner
    for kind in (curvature.name, None if inner is None else inner.name, rule.matrix):
        sentence = None if kind is None else refusal(criterion, kind)
        if sentence is not None:
            yield sentence
    missing = (solver.needs | rule.needs | FORMS[form]) - (curvature.tags | rule.tags)
    yield from (MISSING[tag] for tag in Tag if tag in missing)
    if Tag.PRECONDITIONER in curvature.tags - solver.needs:
        yield UNUSED

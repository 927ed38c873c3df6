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
from ..curvatures.ekfac import EKFAC
from ..parts.protocols import Foreseeing
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
        MissingRule: the network has an op without a rule for the curvature's factors.
    """
    for sentence in _refusals(curvature, solver, rule, form, criterion):
        raise NewtritonError(
            f"curvature {curvature.name!r} with solver {solver.name!r} and rule {rule.name!r}: "
            f"{sentence}"
        )
    _check_network(curvature)


def _check_network(curvature: Curvature) -> None:
    """Checks that the compiler has the rules for the factors that a curvature takes of a network.

    Raises:
        MissingRule: it has not; the error names what it lacks, and the kinds of factors it has.
    """
    for part in (curvature, curvature.preconditioner):
        if part is None or part.blocks is None or not isinstance(part, Foreseeing):
            continue
        try:
            part.programs(part.model, 1)
        except MissingRule as error:
            layers = frozenset(block.layer for block in part.blocks.blocks)
            named = ", ".join(repr(kind) for kind in KINDS if _has_factors(part, kind, layers))
            instead = f"take factors of the kind {named}, or" if named else "take"
            raise MissingRule(
                f"curvature {part.name!r}: {error}. For this network {instead} the curvature 'ggn' "
                "or 'hessian' with solver='truncated-cg'"
            ) from error


def _has_factors(curvature: Curvature, kind: str, layers: frozenset[str]) -> bool:
    """Whether loss and network have factors of a kind for the layers."""
    try:
        curvature.model.programs[True].factors(kind, layers=layers)
    except NewtritonError:
        return False
    return True


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

"""Which curvature, solver and step rule do not go together, and why: one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...compiler.graph.errors import NewtritonError
from ...compiler.language.loss import Loss, refusal
from ..parts.protocols import Tag

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..parts.protocols import Curvature, Solver, StepRule


@dataclass(frozen=True)
class Refusal:
    """Parts for which `holds` is true are refused with a sentence."""

    holds: Callable[[Any, Any, Any, str], bool]  # curvature, solver, rule, form of the damping
    sentence: str


REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        lambda curvature, solver, rule, form: (
            solver.name in ("kfi", "eigen", "cg", "ea-cg") and Tag.KRONECKER not in curvature.tags
        ),
        "this solver works on Kronecker factors: take solver='truncated-cg' (or 'steihaug' with "
        "the trust region), or a Kronecker curvature like 'kfac'",
    ),
    Refusal(
        lambda curvature, solver, rule, form: (
            solver.name == "ea-cg" and not getattr(curvature, "means", ())
        ),
        "EA-CG works on the mean of the inputs: KroneckerCurvature(model, kind, inputs='mean'), or "
        "solver='cg' for full factors",
    ),
    Refusal(
        lambda curvature, solver, rule, form: (
            form == "convex" and rule.name in ("quadratic", "levenberg-marquardt")
        ),
        "this rule scales the damping, which must stay below 1 in the form (1 − α)C + αI: take "
        "form='additive'",
    ),
    Refusal(
        lambda curvature, solver, rule, form: (
            rule.name == "fixed" and Tag.SEMIDEFINITE not in curvature.tags
        ),
        "a step along almost no curvature has no bound at a fixed rate: take a rule that measures "
        "its steps, like 'trust-region', or the curvature 'ggn'",
    ),
    Refusal(
        lambda curvature, solver, rule, form: solver.bounded and rule.radius is None,
        "this solver stops at a radius and the rule has none: take rule='trust-region', or "
        "solver='truncated-cg'",
    ),
    Refusal(
        lambda curvature, solver, rule, form: (
            getattr(solver, "preconditioner", None) is not None
            and not hasattr(curvature, "preconditioner")
        ),
        "the solver has a preconditioner and the curvature brings no factors for it: wrap it, "
        "Preconditioned(curvature, KroneckerCurvature(model))",
    ),
    Refusal(
        lambda curvature, solver, rule, form: (
            hasattr(curvature, "preconditioner") and getattr(solver, "preconditioner", None) is None
        ),
        "the curvature gathers factors that the solver does not use: give the solver a "
        "preconditioner, TruncatedCG(preconditioner=KFI()), or leave the factors out",
    ),
)


def check_combination(
    curvature: Curvature, solver: Solver, rule: StepRule, form: str, loss: Loss
) -> None:
    """An error that names the three parts where they do not go together, or not with the loss."""
    factors = getattr(curvature, "preconditioner", None)
    kinds = (curvature.name, getattr(factors, "name", ""), getattr(rule, "model", ""))
    table = (r.sentence for r in REFUSALS if r.holds(curvature, solver, rule, form))
    for sentence in (*(refusal(loss, kind) for kind in kinds), *table):
        if sentence is not None:
            raise NewtritonError(
                f"curvature {curvature.name!r} with solver {solver.name!r} and rule {rule.name!r}: "
                f"{sentence}"
            )

"""The parts of an optimizer by name, each with its defaults."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ...compiler.curvature.factors import KINDS
from ...compiler.graph.options import check_option
from ..curvatures.kronecker import STRUCTURES, KroneckerCurvature
from ..curvatures.matrix_free import MatrixFree
from ..parts.protocols import (
    Curvature,
    Solver,
    StepRule,
    check_curvature,
    check_rule,
    check_solver,
)
from ..parts.tags import Tag
from ..rules.fixed import Fixed
from ..rules.line_search import LevenbergMarquardt
from ..rules.quadratic_model import QuadraticModel
from ..rules.trust_region import TrustRegion
from ..solvers.block_cg import BlockCG, MeanCG
from ..solvers.cg import Steihaug, TruncatedCG
from ..solvers.direct import KFI, Eigen

if TYPE_CHECKING:
    from ..model.model import Model

# Curvatures that gather factors, and take the options of `KroneckerCurvature`.
FACTORED: dict[str, Callable[..., Curvature]] = {
    kind: partial(KroneckerCurvature, kind=kind) for kind in STRUCTURES
}

CURVATURES: dict[str, Callable[..., Curvature]] = {
    **FACTORED,
    "ggn": MatrixFree,
    "hessian": lambda model: MatrixFree(model, "hessian"),
    "ggn-layers": lambda model: MatrixFree(model, blocks="layers"),
    "hessian-layers": lambda model: MatrixFree(model, "hessian", blocks="layers"),
}

# Solvers that factorise, and take the count of refreshes between two factorisations.
DIRECT: dict[str, Callable[[int], Solver]] = {"kfi": KFI, "eigen": Eigen}

SOLVERS: dict[str, Callable[..., Solver]] = {
    **DIRECT,
    "cg": BlockCG,
    "ea-cg": MeanCG,
    "truncated-cg": TruncatedCG,
    "steihaug": Steihaug,
}

RULES: dict[str, Callable[[float], StepRule]] = {
    "fixed": lambda damping: Fixed(),
    "quadratic": QuadraticModel,
    "trust-region": lambda damping: TrustRegion(),
    "levenberg-marquardt": lambda damping: LevenbergMarquardt(),
}


def resolve(
    model: Model,
    curvature: Curvature | str,
    solver: Solver | str,
    rule: StepRule | str,
    damping: float,
) -> tuple[Curvature, Solver, StepRule]:
    """Returns the three parts: names are looked up, objects stay what they are.

    Args:
        model: the model whose curvature it is.
        curvature: a curvature, or one of `CURVATURES`. Kronecker factors by name keep the mean of
            the inputs where the solver is given by name too and needs that.
        solver: a solver, or one of `SOLVERS`.
        rule: a step rule, or one of `RULES`.
        damping: the optimizer's damping, where a rule made here has one of its own to start with.

    Raises:
        NewtritonError: a name is unknown, or an object is no such part.
    """
    by_name, solver = isinstance(solver, str), resolve_solver(solver)
    curvature = resolve_curvature(model, curvature, by_name and Tag.MEANS in solver.needs)
    if isinstance(rule, str):
        check_option("rule", rule, tuple(RULES))
        rule = RULES[rule](damping)
    return curvature, solver, check_rule("rule", rule)


def resolve_solver(solver: Solver | str, every: int = 1) -> Solver:
    """Returns a solver: a name is looked up.

    Args:
        solver: a solver, or one of `SOLVERS`.
        every: refreshes of the curvature between two factorisations, where it makes some.

    Raises:
        NewtritonError: the name is unknown.
    """
    if not isinstance(solver, str):
        return check_solver("solver", solver)
    check_option("solver", solver, tuple(SOLVERS))
    return DIRECT[solver](every) if solver in DIRECT else SOLVERS[solver]()


def resolve_curvature(
    model: Model, curvature: Curvature | str, means: bool, **options: Any
) -> Curvature:
    """Returns a curvature: a name is looked up.

    Args:
        model: the model whose curvature it is.
        curvature: a curvature, or one of `CURVATURES`.
        means: whether factors by name keep the mean of the inputs.
        options: those of factors by name.

    Raises:
        NewtritonError: the name is unknown.
    """
    if not isinstance(curvature, str):
        return check_curvature("curvature", curvature)
    check_option("curvature", curvature, tuple(CURVATURES))
    if means and curvature in KINDS:
        options = {"inputs": "mean", "apart": True, **options}
    return CURVATURES[curvature](model, **options)

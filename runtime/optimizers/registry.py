"""The parts of an optimizer by name, each with its defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...compiler.curvature.factors import KINDS
from ...compiler.graph.options import check_option
from ..curvatures.kronecker import STRUCTURES, KroneckerCurvature
from ..curvatures.matrix_free import MatrixFree
from ..parts.protocols import Curvature, Solver, StepRule
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

CURVATURES: dict[str, Callable[[Model], Curvature]] = {
    **{kind: lambda model, kind=kind: KroneckerCurvature(model, kind) for kind in STRUCTURES},
    "ggn": MatrixFree,
    "hessian": lambda model: MatrixFree(model, "hessian"),
    "ggn-layers": lambda model: MatrixFree(model, blocks="layers"),
    "hessian-layers": lambda model: MatrixFree(model, "hessian", blocks="layers"),
}

SOLVERS: dict[str, Callable[[], Solver]] = {
    "kfi": KFI,
    "eigen": Eigen,
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
        NewtritonError: a name is unknown.
    """
    by_name = isinstance(solver, str)
    if isinstance(solver, str):
        check_option("solver", solver, tuple(SOLVERS))
        solver = SOLVERS[solver]()
    if isinstance(curvature, str):
        check_option("curvature", curvature, tuple(CURVATURES))
        if by_name and Tag.MEANS in solver.needs and curvature in KINDS:
            curvature = KroneckerCurvature(model, curvature, inputs="mean", apart=True)
        else:
            curvature = CURVATURES[curvature](model)
    if isinstance(rule, str):
        check_option("rule", rule, tuple(RULES))
        rule = RULES[rule](damping)
    return curvature, solver, rule

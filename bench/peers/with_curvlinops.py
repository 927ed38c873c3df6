"""curvlinops' side: its linear operators, made anew in each call, since they keep their factors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import cache
from typing import Any

from torch import nn

from ..second_order import ClassesSecond, with_math
from .problem import DAMPING, Call, Named, Problem, dot

NAME = "curvlinops"


def calls(problem: Problem, wanted: Collection[str]) -> Iterator[Call]:
    """Yields the calls: operators of all parameters, factors of the layers that it takes."""
    import curvlinops  # noqa: PLC0415 (only where it is installed)

    net = problem.copy()
    module = ClassesSecond(net)
    everything = dict(net.named_parameters())
    some = {name: everything[name] for name in problem.kronecker}
    terms = problem.labels[0].numel()

    def operator(kind: type, params: dict[str, nn.Parameter], **options: Any) -> Any:
        return kind(
            module, nn.CrossEntropyLoss(), list(params.values()), [(problem.x, problem.y)],
            check_deterministic=False, num_data=problem.samples, **options,
        )  # fmt: skip

    def product(op: Any, vector: Named, params: dict[str, nn.Parameter]) -> Named:
        return dict(zip(params, op @ [vector[name] for name in params], strict=True))

    def matrix(kind: type, vector: Named) -> Named:
        return with_math(product, operator(kind, everything), vector, everything)

    def structured(kind: type, fisher: str) -> Any:
        return operator(
            kind, some, fisher_type=fisher, num_per_example_loss_terms=terms,
            separate_weight_and_bias=False,
        )  # fmt: skip

    def kfac() -> Any:
        return structured(curvlinops.KFACLinearOperator, "mc").compute_kronecker_factors()

    def ekfac() -> Any:
        op = structured(curvlinops.EKFACLinearOperator, "mc")
        op.compute_kronecker_factors()
        op.compute_eigenvalue_correction()

    @cache
    def known() -> Any:
        op = structured(curvlinops.KFACLinearOperator, "empirical")
        op.compute_kronecker_factors()
        return op

    def inverse() -> Named:
        op = curvlinops.KFACInverseLinearOperator(known(), DAMPING, use_heuristic_damping=True)
        return product(op, problem.v, some)

    def hvp(vector: Named = problem.v) -> Named:
        return matrix(curvlinops.HessianLinearOperator, vector)

    def forms() -> Named:
        of_u, of_v = hvp(problem.u), hvp()
        return {
            "uHu": dot(of_u, problem.u), "uHv": dot(of_u, problem.v), "vHv": dot(of_v, problem.v)
        }  # fmt: skip

    def ggnvp() -> Named:
        return matrix(curvlinops.GGNLinearOperator, problem.v)

    def form() -> Named:
        return {"vHv": dot(hvp(), problem.v)}

    made: dict[str, tuple[Callable[[], Any], Callable[[], Named]]] = {
        "hvp": (hvp, hvp),
        "ggnvp": (ggnvp, ggnvp),
        "form": (form, form),
        "forms": (forms, forms),
        "kfac": (kfac, lambda: product(known(), problem.w, some)),
        "ekfac": (
            ekfac,
            lambda: product(
                structured(curvlinops.EKFACLinearOperator, "empirical"), problem.w, some
            ),
        ),
        "inverse": (inverse, inverse),
    }
    for operation, (run, numbers) in made.items():
        if operation in wanted:
            yield Call(NAME, operation, run, numbers)

"""Every curvature with every solver and step rule: refused in a sentence, or the loss falls.

A covering set of the pairs runs here. All of them:
`python -m tests.runtime.optimizers.test_combinations`.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterable, Iterator

import pytest
import torch

import newtriton as nt
from newtriton.compiler.curvature.factors import KINDS
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.curvatures.kronecker import STRUCTURES, KroneckerCurvature
from newtriton.runtime.curvatures.matrix_free import MatrixFree, WithPreconditioner
from newtriton.runtime.curvatures.sides import Full, balance
from newtriton.runtime.optimizers.registry import CURVATURES, RULES, SOLVERS, resolve
from newtriton.runtime.parts.protocols import Status
from newtriton.runtime.parts.tags import Tag
from newtriton.runtime.rules.fixed import Fixed
from newtriton.runtime.solvers.block_cg import MeanCG
from newtriton.runtime.solvers.cg import TruncatedCG
from newtriton.runtime.solvers.direct import KFI

from ...sources import ROOT
from ..problems import LOSSES, NETS, dense, problem

Case = tuple[str, ...]  # curvature, solver, rule, network, loss
STEPS = 8


def is_refused(curvature: str, solver: str, rule: str) -> bool:
    """What the table says, in words of its own."""
    kronecker = curvature in STRUCTURES
    blockwise = solver in ("kfi", "eigen", "cg", "ea-cg")
    no_means = solver == "ea-cg" and curvature.startswith("ekfac")
    unbounded = curvature.startswith("hessian") and rule == "fixed"
    no_radius = solver == "steihaug" and rule != "trust-region"
    return (blockwise and not kronecker) or no_means or unbounded or no_radius


def all_cases() -> Iterator[Case]:
    """Everything that is not refused."""
    for parts in itertools.product(CURVATURES, SOLVERS, RULES):
        if not is_refused(*parts):
            for net, loss in itertools.product(NETS, LOSSES):
                yield (*parts, net, loss)


def covering(cases: Iterable[Case]) -> list[Case]:
    """A greedy choice in which every pair of values that occurs together occurs."""
    cases = list(cases)

    def pairs(case: Case) -> set[tuple]:
        return set(itertools.combinations(enumerate(case), 2))

    missing = set().union(*map(pairs, cases))
    chosen = []
    while missing:
        best = max(cases, key=lambda case: len(pairs(case) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


def train(curvature: str, solver: str, rule: str, net: str, loss: str) -> list[float]:
    """The losses of a few steps."""
    model, [(x, y)] = problem(net, loss)
    optimizer = nt.SecondOrder(model, curvature, solver, rule, damping=1.0)
    reports = [optimizer.step(x, y) for _ in range(STEPS)]
    return [*(report.loss for report in reports), model.objective(x, y)]


@pytest.mark.parametrize("case", covering(all_cases()), ids="-".join)
def test_the_loss_falls(case: Case) -> None:
    losses = train(*case)
    assert losses[-1] < 0.98 * losses[0]


SOLVED = sorted({case[:2] for case in all_cases() if case[2] == "trust-region"})


@pytest.mark.parametrize("parts", SOLVED, ids="-".join)
def test_a_solver_is_as_close_to_the_dense_solve_as_it_says(parts: tuple[str, str]) -> None:
    """Within its tolerance of the residual, or exact; KFI is on the factors that it damps."""
    name, damping = parts[1], 10.0  # above the Hessian's lowest eigenvalue
    model, [(x, y)] = problem("cnn")
    curvature, solver, _ = resolve(model, *parts, "trust-region", damping)
    lin = model.linearize(x, y)
    curvature.update(lin)
    solution = solver.solve(curvature, damping, lin.gradient, 1e6)
    assert solution.status is Status.SOLVED
    of_pairs = name == "kfi" and parts[0] in KINDS  # other blocks are damped as a whole
    for factors in curvature.factors.values() if of_pairs else ():
        pi = balance(Full(factors.A_stored, "A"), Full(factors.G, "G"))
        factors.A_stored.diagonal().add_(pi * damping**0.5)
        factors.G.diagonal().add_(damping**0.5 / pi)
    system = dense(curvature.mv, model.layout.numel)
    if not of_pairs:
        system += damping * torch.eye(model.layout.numel)
    stated = solver.stop.tolerance if hasattr(solver, "stop") else 1e-12
    residual = system @ solution.x - lin.gradient
    assert float(residual.norm() / lin.gradient.norm()) <= stated


PARTS = list(itertools.product(CURVATURES, SOLVERS, RULES))


@pytest.mark.parametrize("parts", PARTS, ids="-".join)
def test_what_does_not_go_together_is_refused_by_name(parts: tuple[str, str, str]) -> None:
    model, _ = problem("mlp")
    curvature, solver, rule = parts
    if not is_refused(*parts):
        nt.SecondOrder(model, curvature, solver, rule)
        return
    named = f"curvature '{curvature.partition('-layers')[0]}' with solver '{solver}' and rule"
    with pytest.raises(NewtritonError, match=named):
        nt.SecondOrder(model, curvature, solver, rule)


def test_parts_that_lack_each_other_are_refused() -> None:
    model, _ = problem("mlp")
    factors = KroneckerCurvature(model)
    both = WithPreconditioner(MatrixFree(model), factors)
    with pytest.raises(NewtritonError, match="EA-CG works on the mean"):
        nt.SecondOrder(model, factors, MeanCG(), "fixed")
    with pytest.raises(NewtritonError, match="brings no factors"):
        nt.SecondOrder(model, MatrixFree(model), TruncatedCG(preconditioner=KFI()), "fixed")
    with pytest.raises(NewtritonError, match="does not use"):
        nt.SecondOrder(model, both, TruncatedCG(), "fixed")
    for rule in ("quadratic", "levenberg-marquardt"):
        with pytest.raises(NewtritonError, match=r"form=.additive."):
            nt.SecondOrder(model, factors, KFI(), rule, 0.1, form="convex")


def test_parts_are_judged_by_their_tags_and_not_by_their_names() -> None:
    model, _ = problem("mlp")

    class Renamed(KFI):
        name = "cholesky"

    class Flat(Fixed):
        name = "no-needs"
        needs = frozenset()

    with pytest.raises(NewtritonError, match=r"'cholesky'.*works on Kronecker factors"):
        nt.SecondOrder(model, "ggn", Renamed(), "trust-region")
    nt.SecondOrder(model, "hessian", "truncated-cg", Flat())
    both = WithPreconditioner(MatrixFree(model), KroneckerCurvature(model))
    assert both.tags == {Tag.SEMIDEFINITE, Tag.PRECONDITIONER}
    nt.SecondOrder(model, both, TruncatedCG(preconditioner=Renamed()), "fixed")


ROOMS = ("curvatures", "solvers", "rules")


@pytest.mark.parametrize("room", ROOMS)
def test_no_part_imports_another_kind_of_part(room: str) -> None:
    others = "|".join(other for other in ROOMS if other != room)
    for path in sorted((ROOT / "runtime" / room).glob("*.py")):
        assert not re.search(rf"from \.\.({others})\b", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"curvature": "kfax"}, "curvature is 'kfax'"),
        ({"solver": "lu"}, "solver is 'lu'"),
        ({"rule": "adam"}, "rule is 'adam'"),
        ({"damping": None}, "damping is None"),
        ({"damping": 1.0, "form": "convex"}, r"damping is 1\.0.*< 1"),
        ({"form": "squared"}, "form is 'squared'"),
        ({"sample": 0.0}, r"sample is 0\.0"),
        ({"sample": 1.5}, r"sample is 1\.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_refuses_options(options: dict, named: str) -> None:
    model, _ = problem("mlp")
    with pytest.raises(NewtritonError, match=named):
        nt.SecondOrder(model, **options)


@pytest.mark.parametrize("kind", ["kfra", "pch-1", "pch-2"])
@pytest.mark.parametrize(
    "make",
    [
        nt.SecondOrder,
        lambda model, kind: nt.NewtonCG(model, preconditioner=kind),
        lambda model, kind: nt.EACG(model, factors=kind),
        lambda model, kind: nt.Preconditioned(model, torch.optim.SGD, curvature=kind, lr=0.1),
    ],
)
def test_a_network_without_rules_for_the_factors_is_refused_at_once(make, kind: str) -> None:
    net = nt.Sequential(nt.Conv2d(4, 3), nt.BatchNorm2d(), nt.ReLU(), nt.Flatten(), nt.Linear(3))
    model = nt.compile(net, (1, 5, 5), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    named = rf"'{kind}'.*BatchNorm2d.*'kfac', 'empirical', 'kflr'.*'ggn'"
    with pytest.raises(nt.MissingRule, match=named):
        make(model, kind)
    make(model, "kflr")


@pytest.mark.parametrize("kind", ["kfra", "pch-1", "pch-2"])
def test_only_layers_that_are_preconditioned_need_rules(kind: str) -> None:
    net = nt.Sequential(nt.Conv2d(4, 3), nt.BatchNorm2d(), nt.ReLU(), nt.Flatten(), nt.Linear(3))
    model = nt.compile(net, (1, 5, 5), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    options = {"curvature": kind, "lr": 0.1}
    with pytest.raises(nt.MissingRule, match="BatchNorm2d"):
        nt.Preconditioned(model, torch.optim.SGD, plain=["4"], **options)
    optimizer = nt.Preconditioned(model, torch.optim.SGD, plain=["0"], **options)
    assert optimizer.step(torch.randn(6, 1, 5, 5), torch.arange(6) % 3).accepted


if __name__ == "__main__":
    fell = []
    for one in all_cases():
        found = train(*one)
        fell.append(found[-1] < found[0])
        print(f"{'fell' if fell[-1] else 'ROSE'} {found[0]:.4f} {found[-1]:.4f}", *one)
    print(f"the loss fell in {sum(fell)} of {len(fell)} combinations")
    sys.exit(not all(fell))

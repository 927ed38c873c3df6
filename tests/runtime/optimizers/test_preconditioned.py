"""torch.optim's optimizers on preconditioned gradients, against directions computed by hand."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Node
from newtriton.compiler.language.network import Scope
from newtriton.runtime.curvatures.kronecker import KroneckerCurvature
from newtriton.runtime.curvatures.matrix_free import MatrixFree, WithPreconditioner
from newtriton.runtime.optimizers.registry import CURVATURES, SOLVERS
from newtriton.runtime.solvers.cg import TruncatedCG
from newtriton.runtime.solvers.direct import KFI

from ..problems import dense, problem
from ..stand_in import assert_identical
from ..transfers import counted

SGD, ADAM = torch.optim.SGD, torch.optim.Adam
CLASSES: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (SGD, {"lr": 0.05}),
    "nesterov": (SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": (ADAM, {"lr": 0.05}),
    "adamw": (torch.optim.AdamW, {"lr": 0.05, "weight_decay": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01}),
}


class Scale:
    """A gain of each feature, which is spread over the samples."""

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the features, each times its gain."""
        width = x.shape[1]
        gain = scope.parameter("gain", (width,), "ones", (width, width))
        return ops.multiply(x, ops.broadcast(gain, x.shape))


class Exponential:
    """A gain of each feature, the exponential of its parameter, for which there is no rule."""

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the features, each times its gain."""
        width = x.shape[1]
        gain = scope.parameter("gain", (width,), "zeros", (width, width))
        positive = ops.map_(scalar.exp(scalar.var(0)), gain)
        return ops.multiply(x, ops.broadcast(positive, x.shape))


def mixed(*middle: Any) -> tuple[nt.Model, Tensor, Tensor]:
    """A network with layers in its middle that have no Kronecker rule."""
    net = nt.Sequential(nt.Linear(5), *middle, nt.Tanh(), nt.Linear(3))
    model = nt.compile(net, (4,), nt.CrossEntropyLoss(), dtype=torch.float64, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    return model, x, torch.arange(6) % 3


def step_of(
    make: Callable[[nt.Model], nt.Preconditioned], model: nt.Model, x: Tensor, y: Tensor
) -> tuple[dict[str, Tensor], nt.Preconditioned]:
    """Returns the step by parameter, and the optimizer that made it."""
    before, optimizer = model.params.clone(), make(model)
    assert optimizer.step(x, y).accepted
    return model.unflatten(model.params - before), optimizer


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("solver", ["eigen", "truncated-cg"])
def test_equals_the_class_on_the_direction_of_dense_algebra(name: str, solver: str) -> None:
    cls, options = CLASSES[name]
    model, [(x, y)] = problem("mlp", weight_decay=0.02)
    curvature: Any = KroneckerCurvature(model, "kflr", burn_in=0, moving_average=0.0)
    if solver == "truncated-cg":
        curvature = MatrixFree(model)
    cg = TruncatedCG(100, 1e-13) if solver == "truncated-cg" else solver
    ours = nt.Preconditioned(model, cls, curvature=curvature, solver=cg, damping=0.3, **options)
    parameter = torch.nn.Parameter(model.params.clone())
    theirs = cls([parameter], **options)
    for _ in range(4):
        lin = model.linearize(x, y)
        by_hand = KroneckerCurvature(model, "kflr") if solver == "eigen" else MatrixFree(model)
        by_hand.update(lin)
        matrix = dense(by_hand.mv, model.layout.numel)
        matrix.diagonal().add_(0.3 + 0.02)
        parameter.grad = torch.linalg.solve(matrix, lin.gradient)
        theirs.step()
        report = ours.step(x, y)
        assert report.accepted
        assert report.loss == pytest.approx(lin.objective)
        torch.testing.assert_close(model.params, parameter.detach(), rtol=1e-7, atol=1e-9)


def test_the_default_is_the_kronecker_inverse() -> None:
    model, [(x, y)] = problem("cnn")
    x_hat = KroneckerCurvature(model, seed=4)
    lin = model.linearize(x, y)
    x_hat.update(lin)
    expected = KFI().solve(x_hat, 0.1 + model.weight_decay, lin.gradient).x
    before = model.params.clone()
    nt.Preconditioned(model, SGD, lr=0.5, damping=0.1, seed=4).step(x, y)
    torch.testing.assert_close(model.params, before - 0.5 * expected)


def test_an_eigenbasis_is_taken_as_often_as_factors_are_inverted() -> None:
    model, [(x, y)] = problem("cnn")
    plain = next(iter(model.layout.layers))
    options = {"curvature": "ekfac", "plain": plain, "every": (2, 6), "lr": 0.1}
    optimizer = nt.Preconditioned(model, SGD, **options)
    curvature: Any = optimizer.curvature
    assert (curvature.every, curvature.refresh, curvature.kind) == (2, 3, "kfac")
    reports = [optimizer.step(x, y) for _ in range(8)]
    assert reports[-1].loss < reports[0].loss
    assert curvature.factors.keys() == model.layout.layers.keys() - {plain}


# --- parameters that keep their plain gradient ----------------------------------------------------


@pytest.mark.parametrize("middle", [Scale, Exponential, nt.Linear])
@pytest.mark.parametrize("by_object", [False, True])
def test_parameters_without_a_kronecker_rule_keep_their_plain_gradient(
    middle: Any, by_object: bool
) -> None:
    layer = nt.Linear(5) if middle is nt.Linear else middle()
    model, x, y = mixed(layer)
    plain = ["1"] if middle is nt.Linear else []
    layers = None if middle is Scale else ["0", "3"]

    def make(model: nt.Model) -> nt.Preconditioned:
        curvature: Any = KroneckerCurvature(model, "kflr", layers=layers) if by_object else "kflr"
        return nt.Preconditioned(model, SGD, lr=0.5, damping=0.2, plain=plain, curvature=curvature)

    lin = model.linearize(x, y)
    known = KroneckerCurvature(model, "kflr", layers=["0", "3"])
    known.update(lin)
    gradient = model.unflatten(lin.gradient)
    solved = model.unflatten(KFI().solve(known, 0.2 + 0.1, lin.gradient).x)
    moved, optimizer = step_of(make, model, x, y)
    for name, step in moved.items():
        expected = gradient[name] if name.startswith("1.") else solved[name]
        torch.testing.assert_close(step, -0.5 * expected, msg=name)
    if not by_object:
        assert optimizer.curvature.factors.keys() == {"0", "3"}, "others are not gathered"


def test_batch_norm_is_trained_beside_factors_and_its_statistics_follow() -> None:
    net = nt.Sequential(
        *(nt.Conv2d(4, 3, bias=False), nt.BatchNorm2d(), nt.SiLU(), nt.Flatten(), nt.Linear(3)),
    )
    model = nt.compile(net, (2, 4, 4), nt.CrossEntropyLoss(), dtype=torch.float64)
    x, y = torch.randn(9, 2, 4, 4, dtype=torch.float64), torch.arange(9) % 3
    gradient = model.unflatten(model.linearize(x, y).gradient)
    moved, _ = step_of(lambda m: nt.Preconditioned(m, SGD, lr=0.1), model, x, y)
    for name in ("1.weight", "1.bias"):
        torch.testing.assert_close(moved[name], -0.1 * gradient[name])
    assert not torch.allclose(moved["0.weight"], -0.1 * gradient["0.weight"])
    assert int(model.buffers["1.num_batches_tracked"]) == 1


# --- the bound by κ -------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [1e-6, 1e6])
def test_clipping_bounds_the_form_of_what_is_preconditioned(clip: float) -> None:
    model, x, y = mixed(Scale())
    gradient = model.linearize(x, y).gradient
    options = {"lr": 0.5, "curvature": "kflr"}
    free, _ = step_of(lambda m: nt.Preconditioned(m, SGD, **options), model, x, y)
    model = mixed(Scale())[0]
    bound, _ = step_of(lambda m: nt.Preconditioned(m, SGD, clip=clip, **options), model, x, y)
    of_factors = [name for name in free if not name.startswith("1.")]
    slopes = model.unflatten(gradient)
    form = -0.5 * sum(float((free[name] * slopes[name]).sum()) for name in of_factors)
    factor = min(1.0, math.sqrt(clip / form))
    assert (factor == 1.0) == (clip > 1.0)
    for name, step in bound.items():
        expected = free[name] * (factor if name in of_factors else 1.0)
        torch.testing.assert_close(step, expected, msg=name)


def test_clipping_follows_the_learning_rate_and_takes_zero() -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = nt.Preconditioned(model, SGD, lr=0.0, clip=1e-3, curvature="kflr")
    report = optimizer.step(x, y)
    assert (report.accepted, report.step_norm) == (True, 0.0)
    norms = []
    for lr in (10.0, 100.0):
        optimizer.optimizer.param_groups[0]["lr"] = lr
        saved = model.params.clone()
        norms.append(optimizer.step(x, y).step_norm)
        model.params.copy_(saved)
    assert norms[0] == pytest.approx(norms[1], rel=1e-2), "the rate is above the bound"


# --- schedules and states -------------------------------------------------------------------------

SCHEDULES: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "step": lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 6),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=8),
    "plateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda n: 1.0 / (1 + n)),
}


def advance(schedule: Any, loss: float) -> None:
    plateau = isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau)
    schedule.step(loss) if plateau else schedule.step()


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_learning_rates_work_on_its_optimizer(name: str) -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = nt.Preconditioned(model, SGD, lr=0.1, momentum=0.5)
    lone = SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours, theirs = (SCHEDULES[name](o) for o in (optimizer.optimizer, lone))
        for _ in range(6):
            lr = lone.param_groups[0]["lr"]
            report = optimizer.step(x, y)
            assert report.lr == lr
            lone.step()
            advance(ours, report.loss)
            advance(theirs, report.loss)


@pytest.mark.parametrize("schedule_first", [True, False])
@pytest.mark.parametrize("name", CLASSES)
def test_a_run_resumes_bit_for_bit(name: str, schedule_first: bool) -> None:
    cls, options = CLASSES[name]

    def made() -> tuple[nt.Model, Tensor, Tensor, nt.Preconditioned]:
        model, [(x, y)] = problem("cnn")
        optimizer = nt.Preconditioned(model, cls, every=(2, 4), clip=1e-3, seed=3, **options)
        return model, x, y, optimizer

    model, x, y, optimizer = made()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer.optimizer, 3)
    for _ in range(7):
        optimizer.step(x, y)
        schedule.step()
    optimizer.damping = 0.02
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), schedule.state_dict()], file)
    file.seek(0)
    of_model, of_optimizer, of_schedule = torch.load(file, weights_only=True)
    other_model, _, _, other = made()
    if not schedule_first:
        other.load_state_dict(of_optimizer)
    other_schedule = torch.optim.lr_scheduler.StepLR(other.optimizer, 3)
    other_model.load_state_dict(of_model)
    other.load_state_dict(of_optimizer)
    other_schedule.load_state_dict(of_schedule)
    for _ in range(6):
        assert optimizer.step(x, y) == other.step(x, y)
        schedule.step()
        other_schedule.step()
    assert torch.equal(model.params, other_model.params)
    assert_identical(optimizer.state_dict(), other.state_dict())


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = nt.Preconditioned(model, ADAM, lr=0.1)
    optimizer.step(x, y)
    before = optimizer.state_dict()
    plain = nt.TorchOptimizer(model, ADAM, lr=0.1).state_dict()
    with pytest.raises(nt.NewtritonError, match=r"missing curvature.*missing damping"):
        optimizer.load_state_dict(plain)
    with pytest.raises(nt.NewtritonError, match="damping is -1"):
        optimizer.load_state_dict({**before, "damping": -1.0})
    other = nt.Preconditioned(problem("mlp")[0], SGD, lr=0.1)
    with pytest.raises(nt.NewtritonError, match="options that only one of the two has"):
        optimizer.load_state_dict({**before, "optimizer": other.state_dict()["optimizer"]})
    assert_identical(optimizer.state_dict(), before)


# --- steps that cannot be made --------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_a_step_that_is_not_finite_is_taken_back_with_the_optimizers_state(name: str) -> None:
    cls, options = CLASSES[name]
    model, [(x, y)] = problem("mlp")
    optimizer = nt.Preconditioned(model, cls, **options)
    optimizer.step(x, y)
    before, state = model.params.clone(), optimizer.state_dict()["optimizer"]["state"]
    optimizer.optimizer.param_groups[0]["lr"] = math.inf
    for n in range(1, 10):
        report = optimizer.step(x, y)
        assert (report.accepted, report.rejected, report.step_norm) == (False, n, 0.0)
        assert report.status == "a step that is not finite"
    with pytest.raises(nt.NewtritonError, match="10 steps in a row"):
        optimizer.step(x, y)
    assert torch.equal(model.params, before)
    assert_identical(optimizer.state_dict()["optimizer"]["state"], state)
    optimizer.optimizer.param_groups[0]["lr"] = options["lr"]
    assert optimizer.step(x, y).rejected == 0


def test_a_loss_that_is_not_finite_leaves_curvature_and_all_else_alone() -> None:
    model, [(x, y)] = problem("mlp", "mse")
    optimizer = nt.Preconditioned(model, SGD, lr=0.1, momentum=0.9)
    optimizer.step(x, y)
    before, state = model.params.clone(), optimizer.state_dict()
    report = optimizer.step(x, y * 1e200)
    assert (report.accepted, report.status, report.damping) == (False, "loss inf", 0.01)
    assert torch.equal(model.params, before)
    assert_identical(optimizer.state_dict(), {**state, "rejected": 1})


def test_a_solve_that_fails_makes_no_step_and_says_why() -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = nt.Preconditioned(model, SGD, lr=0.1, momentum=0.9)
    before = model.params.clone()
    optimizer.curvature.update = lambda lin: False  # type: ignore[method-assign]
    assert optimizer.step(x, y).status == "curvature that is not finite"
    assert torch.equal(model.params, before)
    assert not optimizer.optimizer.state[optimizer.flat]


def test_an_interrupt_takes_the_step_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = nt.Preconditioned(model, SGD, lr=0.1, momentum=0.9)
    optimizer.step(x, y)
    before, step = model.params.clone(), SGD.step
    state = optimizer.state_dict()["optimizer"]

    def interrupted(*arguments: Any, **options: Any) -> None:
        step(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(SGD, "step", interrupted)
    optimizer.optimizer.step = interrupted.__get__(optimizer.optimizer)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        optimizer.step(x, y)
    assert torch.equal(model.params, before)
    assert_identical(optimizer.state_dict()["optimizer"], state)


# --- combinations, costs, training ----------------------------------------------------------------

REFUSED = {  # curvature, solver → what the refusal says
    ("hessian", "truncated-cg"): "negative one, has no bound",
    ("ggn", "steihaug"): "stops at a radius",
    ("ggn", "kfi"): "works on Kronecker factors",
    ("kfac", "kfi"): None,
    ("kfac", "eigen"): None,
    ("kfac", "cg"): None,
    ("kfac", "ea-cg"): None,
    ("kfac", "truncated-cg"): None,
    ("ggn", "truncated-cg"): None,
    ("ggn-layers", "truncated-cg"): None,
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("curvature", CURVATURES)
def test_every_curvature_goes_with_every_solver_or_says_why_not(
    curvature: str, solver: str
) -> None:
    model, [(x, y)] = problem("mlp")
    options = {"curvature": curvature, "solver": solver, "damping": 0.1, "lr": 0.05}
    known = (curvature, solver)
    try:
        optimizer = nt.Preconditioned(model, SGD, **options)
    except nt.NewtritonError as error:
        matrix = curvature.removesuffix("-layers")
        assert f"curvature {matrix!r} with solver {solver!r} and rule 'SGD'" in str(error)
        assert (REFUSED.get(known) or "") in str(error)
        assert REFUSED.get(known, "") is not None, "this pair goes together"
        return
    assert REFUSED.get(known) is None
    first = model.objective(x, y)
    reports = [optimizer.step(x, y) for _ in range(3)]
    assert all(report.accepted for report in reports)
    assert model.objective(x, y) < first


def test_a_solver_with_a_preconditioner_of_its_own() -> None:
    model, [(x, y)] = problem("mlp")
    both = WithPreconditioner(MatrixFree(model), KroneckerCurvature(model))
    solver = TruncatedCG(preconditioner=KFI())
    optimizer = nt.Preconditioned(model, ADAM, curvature=both, solver=solver, lr=0.01)
    assert optimizer.step(x, y).cg_iterations > 0


def made(**options: Any) -> nt.Preconditioned:
    cls = options.pop("cls", SGD)
    return nt.Preconditioned(problem("mlp")[0], cls, **{"lr": 0.1, **options})


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"cls": torch.optim.LBFGS}, "L-BFGS searches along directions of its own"),
    ({"momentun": 0.9}, r"torch\.optim\.SGD.* has no option 'momentun'.*did you mean 'momentum'"),
    ({"damping": -1.0}, "damping is -1"),
    ({"clip": 0.0}, "clip is 0"),
    ({"every": 0}, "every is 0"),
    ({"every": 3, "curvature": "ggn", "solver": "truncated-cg"}, "every is 3: it is of factors"),
    ({"curvature": "k-fac"}, "curvature is 'k-fac': one of"),
    ({"solver": "lu"}, "solver is 'lu': one of"),
    ({"plain": ["7"]}, "plain names '7': give layers, of '0', '2'"),
    ({"plain": ["0", "2"]}, "no layer with a Kronecker rule is left to precondition"),
    ({"plain": "0", "curvature": "ggn", "solver": "truncated-cg"}, "plain is .* Kronecker"),
    ({"seed": -1}, "seed is -1"),
]


@pytest.mark.parametrize(("options", "message"), FAULTS, ids=[m for _, m in FAULTS])
def test_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(nt.NewtritonError, match=message):
        made(**options)


def test_refuses_a_curvature_of_which_nothing_is_left() -> None:
    model, _, _ = mixed(Scale())
    for layers, plain in ((["1"], []), (None, ["0", "3"])):
        curvature = KroneckerCurvature(model, layers=layers)
        with pytest.raises(nt.NewtritonError, match="no layer with a Kronecker rule is left"):
            nt.Preconditioned(model, SGD, curvature=curvature, plain=plain, lr=0.1)


def test_refuses_a_loss_without_the_curvature_and_data_in_place_of_a_batch() -> None:
    model = nt.compile(nt.Linear(3), (4,), nt.SigmoidMarginLoss())
    with pytest.raises(nt.NewtritonError, match="'kfac' draws labels from the model"):
        nt.Preconditioned(model, SGD, lr=0.1)
    with pytest.raises(nt.NewtritonError, match="SGD steps on a batch"):
        made().step([(torch.zeros(2, 4), torch.zeros(2))])


def test_the_report_says_what_the_step_did() -> None:
    model, [(x, y)] = problem("mlp")
    report = nt.Preconditioned(model, SGD, lr=0.1, solver="cg", damping=0.5).step(x, y)
    assert (report.lr, report.damping, report.new_loss, report.rho) == (0.1, 0.5, None, None)
    assert report.cg_iterations > 0
    assert report.step_norm > 0.0
    assert "iterations" in report.status or report.status == "solved"


def test_between_refreshes_a_step_waits_for_the_device_as_often_as_without_curvature() -> None:
    counts = []
    for make in (
        lambda model: nt.TorchOptimizer(model, SGD, lr=0.1),
        lambda model: nt.Preconditioned(model, SGD, lr=0.1, every=50, clip=1e-3),
    ):
        model, [(x, y)] = problem("mlp")
        optimizer = make(model)
        for _ in range(6):
            optimizer.step(x, y)
        with counted() as transfers:
            optimizer.step(x, y)
            counts.append((transfers.reads.total(), transfers.copies.total()))
    assert counts[0] == counts[1]


def test_memory_that_a_solver_keeps_is_not_changed_by_the_optimizer() -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = nt.Preconditioned(model, SGD, lr=0.1, momentum=0.9, nesterov=True, foreach=True)
    solve, kept = optimizer.solver.solve, []

    def noted(*arguments: Any) -> Any:
        solution = solve(*arguments)
        kept.append((solution.x, solution.x.clone()))
        return solution

    optimizer.solver.solve = noted  # type: ignore[method-assign]
    for _ in range(3):
        optimizer.step(x, y)
    assert all(torch.equal(x, copy) for x, copy in kept)


@pytest.mark.parametrize(("cls", "lr"), [(SGD, 0.05), (ADAM, 0.03), (torch.optim.RMSprop, 0.01)])
def test_trains_digits(cls: type[torch.optim.Optimizer], lr: float) -> None:
    train, test = nt.digits()
    model = nt.compile(nt.models.mlp((32,)), (1, 8, 8), nt.CrossEntropyLoss(), device="cpu")
    optimizer = nt.Preconditioned(model, cls, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer.optimizer, 4)
    history = nt.fit(
        model, optimizer, nt.Batches(*train, 128), [test], 4, progress=False,
        callbacks=[lambda _: schedule.step()],
    )  # fmt: skip
    assert history.epochs[-1].validation_accuracy > 0.93
    assert history.steps[0]["damping"] == 0.01
    assert history.steps[-1]["lr"] < lr


@pytest.mark.parametrize("c", [1e5, 1e-5])
def test_a_loss_and_dampings_times_c_make_the_same_direction(c: float) -> None:
    ends = []
    for factor in (1.0, c):
        net = nt.Sequential(nt.Linear(5), nt.Tanh(), nt.Linear(3))
        loss = nt.Scaled(nt.CrossEntropyLoss(), factor)
        model = nt.compile(net, (4,), loss, dtype=torch.float64, weight_decay=1e-3 * factor)
        _, [(x, y)] = problem("mlp")
        optimizer = nt.Preconditioned(model, SGD, lr=0.1, momentum=0.9, damping=0.1 * factor)
        for _ in range(5):
            optimizer.step(x, y)
        ends.append(model.params)
    torch.testing.assert_close(*ends, rtol=1e-8, atol=1e-10)

"""Failures injected into steps: what fails, where and in which step is drawn from a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.model.linearization import Linearization
from newtriton.runtime.model.model import Model
from newtriton.runtime.optimizers import second_order
from newtriton.runtime.optimizers.report import PATIENCE, StepReport

from ..training.kills import differing

Batch = tuple[Tensor, Tensor]


class Injected(RuntimeError):
    """An error that nobody but a test raises."""


RAISED = (Injected, KeyboardInterrupt, SystemExit, MemoryError, torch.OutOfMemoryError)


class Counted(TorchDispatchMode):
    """Counts PyTorch's calls, and raises an error at one of them.

    Args:
        at: the number of that call, from 1; 0 for none.
        error: what is raised.
    """

    def __init__(self, at: int = 0, error: type[BaseException] = Injected) -> None:
        super().__init__()
        self.calls, self.at, self.error = 0, at, error

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.calls += 1
        if self.calls == self.at:
            raise self.error(f"injected at call {self.at}, {func}")
        return func(*args, **(kwargs or {}))


@dataclass
class Failing:
    """A function that fails at some of its calls.

    Attributes:
        function: what it calls otherwise.
        fail: gives what a failed call gives, from what it would have given.
        first: the first call that fails, from 0.
        last: the last one.
        calls: how many there have been.
    """

    function: Callable[..., Any]
    fail: Callable[[Any], Any]
    first: int = 0
    last: float = math.inf
    calls: int = field(default=0, init=False)

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self if instance is None else partial(self, instance)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Returns what the function gives, or what the failure makes of it."""
        self.calls += 1
        fails = self.first <= self.calls - 1 <= self.last
        found = self.function(*args, **options)
        return self.fail(found) if fails else found


def raising(error: BaseException) -> Callable[[Any], Any]:
    """A failure that raises an error."""

    def fail(_: Any) -> Any:
        raise error

    return fail


def filled(value: float) -> Callable[[Any], Any]:
    """A failure that gives the same tensors full of a number."""

    def fail(found: Any) -> Any:
        if isinstance(found, float):
            return value
        if isinstance(found, Tensor):
            if not found.is_floating_point():
                return found
            return torch.full_like(found, _in_range(value, found))
        if isinstance(found, Mapping):
            for factors in found.values():
                if isinstance(factors, Tensor):
                    factors.fill_(_in_range(value, factors))
                    continue
                for tensor in factors.tensors.values():
                    tensor.fill_(_in_range(value, tensor))
            return found
        return type(found)(map(fail, found))

    return fail


def _in_range(value: float, like: Tensor) -> float:
    """The number, or a large one that its dtype has."""
    return min(value, 0.1 * torch.finfo(like.dtype).max) if math.isfinite(value) else value


LINEAR_ALGEBRA = ("cholesky_ex", "solve_triangular", "eigh", "qr", "svd")
CUSOLVER = RuntimeError("cusolver error: CUSOLVER_STATUS_EXECUTION_FAILED, when calling `syevd`")


def places() -> dict[str, tuple[Any, str]]:
    """What can be made to fail: an owner and the name of its attribute, by a name of their own."""
    linalg = {f"linalg.{name}": (torch.linalg, name) for name in LINEAR_ALGEBRA}
    return {
        **linalg,
        "factors": (Linearization, "kronecker_factors"),
        "products": (Linearization, "data_product"),
        "forms": (Linearization, "quadratic_forms"),
        "trial loss": (second_order, "mean_objective"),
        "objective": (Model, "objective"),
        "gradient": (Model, "gradient"),
    }


def failures(draw: np.random.Generator, name: str) -> tuple[str, Callable[[Any], Any]]:
    """A way in which a place fails, with its name."""
    found: dict[str, Callable[[Any], Any]] = {
        "nan": filled(math.nan),
        "inf": filled(math.inf),
        "huge": filled(1e300),
        "zero": filled(0.0),
        "error": raising(Injected(name)),
    }
    if name.startswith("linalg"):
        error = torch.linalg.LinAlgError("no convergence")  # type: ignore[attr-defined]
        found |= {"no convergence": raising(error), "cusolver": raising(CUSOLVER)}
    kind = str(draw.choice([*found]))
    return kind, found[kind]


# --- what is trained ----------------------------------------------------------------------------

NETS: dict[str, Callable[[], Any]] = {
    "mlp": lambda: nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3)),
    "batch norm": lambda: nt.Sequential(
        nt.Linear(4), nt.BatchNorm1d(), nt.Tanh(), nt.Dropout(0.2), nt.Linear(3)
    ),
    "dropout": lambda: nt.Sequential(nt.Linear(4), nt.SiLU(), nt.Dropout(0.1), nt.Linear(3)),
}


def _with_preconditioner(model: nt.Model) -> nt.SecondOrder:
    curvature = nt.WithPreconditioner(nt.MatrixFree(model), nt.KroneckerCurvature(model))
    solver = nt.TruncatedCG(5, preconditioner=nt.KFI())
    return nt.SecondOrder(model, curvature, solver, nt.LevenbergMarquardt(), noise="wiener")


def _scheduled(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1.0 / (1.0 + 0.01 * t))


OPTIMIZERS: dict[str, Callable[[nt.Model], Any]] = {
    "fitre": lambda model: nt.FITRE(model, every=(1, 2)),
    "fitre noise": lambda model: nt.FITRE(model, every=1, noise="wiener"),
    "kfac": lambda model: nt.KFAC(model, every=(1, 2)),
    "kfra": lambda model: nt.KFRA(model, average=0.9),
    "kflr": nt.KFLR,
    "eacg": lambda model: nt.EACG(model, lr=0.1),
    "newton-cg": nt.NewtonCG,
    "ekfac": lambda model: nt.SecondOrder(model, "ekfac", "kfi", "trust-region", damping=0.1),
    "eigen": lambda model: nt.SecondOrder(
        model, "kflr", nt.Eigen(basis="qr"), "quadratic", follow=True, noise="wiener"
    ),
    "mean-cg": lambda model: nt.SecondOrder(model, "pch-1", "ea-cg", "quadratic", damping=0.1),
    "steihaug": lambda model: nt.SecondOrder(
        model, "hessian", "steihaug", "trust-region", damping=0.01, sample=0.5
    ),
    "preconditioned cg": _with_preconditioner,
    "sgd": lambda model: nt.TorchOptimizer(
        model, torch.optim.SGD, lr=0.05, momentum=0.9, schedule=_scheduled
    ),
    "adam": lambda model: nt.TorchOptimizer(model, torch.optim.Adam, lr=0.02),
    "lbfgs": lambda model: nt.TorchOptimizer(
        model, torch.optim.LBFGS, lr=0.5, max_iter=3, line_search_fn="strong_wolfe"
    ),
    "preconditioned": lambda model: nt.Preconditioned(
        model, torch.optim.SGD, lr=0.02, momentum=0.5, every=1, schedule=_scheduled
    ),
}


# Their factors go along chains of layers, or their samples may have one sample only.
WITHOUT_BATCH_NORM = ("kfra", "eacg", "mean-cg", "newton-cg", "steihaug")


class Loader:
    """Batches that raise an error or give a bad batch at one place of one pass.

    Args:
        batches: the batches.
    """

    def __init__(self, batches: list[Batch]) -> None:
        self.batches, self.at, self.given = batches, -1, 0
        self.bad: Callable[[Batch], Batch] = lambda batch: batch

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            self.given += 1
            yield self.bad(batch) if self.given - 1 == self.at else batch


class Training:
    """A model, an optimizer and batches, of which a seed has drawn the kinds.

    Args:
        draw: what draws them.
    """

    def __init__(self, draw: np.random.Generator) -> None:
        self.net, self.kind = str(draw.choice([*NETS])), str(draw.choice([*OPTIMIZERS]))
        dtype = torch.float64 if draw.random() < 0.5 else torch.float32
        generator = torch.Generator().manual_seed(int(draw.integers(1 << 30)))
        y = torch.randint(3, (24,), generator=generator)
        x = torch.randn(24, 5, generator=generator, dtype=dtype)
        x[:, :3] += 2.0 * torch.nn.functional.one_hot(y, 3)
        self.batches = [(x[:8], y[:8]), (x[8:16], y[8:16]), (x[16:], y[16:])]
        self.whole = [(x, y)]
        if self.kind in WITHOUT_BATCH_NORM and self.net == "batch norm":
            self.net = "dropout"
        self.model = nt.compile(
            NETS[self.net](), (5,), nt.CrossEntropyLoss(), weight_decay=1e-3, dtype=dtype,
            seed=1, device="cpu", backend="aten",
        )  # fmt: skip
        self.optimizer = OPTIMIZERS[self.kind](self.model)
        self.loader, self.steps, self.said = Loader(self.batches), 0, ""

    def step(self, bad: Callable[[Batch], Batch] | None = None) -> StepReport:
        """Makes a step, on a batch that may be bad."""
        self.steps += 1
        if self.optimizer.takes_data:
            return self.optimizer.step(self.loader)
        batch = self.batches[self.steps % 3]
        return self.optimizer.step(*(batch if bad is None else bad(batch)))

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def loss(self) -> float:
        """The loss of all batches, in evaluation mode."""
        ((x, y),) = self.whole
        return float(self.model.loss(x, y))


def not_finite(value: Any, place: str = "") -> list[str]:
    """The places where a state has numbers that are not finite."""
    if isinstance(value, Mapping):
        return [p for name in value for p in not_finite(value[name], f"{place}.{name}")]
    if isinstance(value, (list, tuple)):
        return [p for i, part in enumerate(value) for p in not_finite(part, f"{place}.{i}")]
    if isinstance(value, Tensor):
        return [] if bool(value.isfinite().all()) else [place]
    return [place] if isinstance(value, float) and not math.isfinite(value) else []


# What a step that could not be made may have moved: how careful the next one is, and what is drawn.
CAREFUL = (
    ".optimizer.rule", ".optimizer.damping", ".optimizer.rejected", ".optimizer.dropout",
    ".optimizer.generator", ".optimizer.curvature.generator",
    ".optimizer.curvature.preconditioner.generator",
)  # fmt: skip


def check_refused(before: dict[str, Any], after: dict[str, Any], report: StepReport) -> None:
    """Checks what a step leaves that has not been made."""
    moved = differing(after["model"], before["model"])
    assert not moved, f"a refused step has moved {moved}: {report}"
    assert report.status not in {s.value for s in nt.Status if not s.failed}, report
    if report.status.startswith("loss ") or "that is not finite" in report.status:
        moved = differing(after, before)
        moved = [place for place in moved if not place.startswith(CAREFUL)]
        assert not moved, f"{report.status} has moved {moved}"


def check_report(training: Training, before: dict[str, Any], report: StepReport) -> None:
    """Checks what a step leaves that has ended in a report."""
    after = training.state()
    assert not (places := not_finite(after)), f"{places} are not finite: {report}"
    if not report.accepted:
        check_refused(before, after, report)
    elif report.new_loss is not None:
        assert math.isfinite(report.new_loss), report


def check_goes_on(training: Training) -> None:
    """Checks that clean steps lower the loss, of averages that begin anew where they have to."""
    first, left, norm = training.loss(), 2, math.nan
    first = first if math.isfinite(first) else math.inf  # as it may be after a step that was made
    for _ in range(60):
        try:
            norm = training.step().step_norm
        except NewtritonError as error:
            left -= "in a row" in str(error)
            if left < 0 or "in a row" not in str(error):
                raise
        if training.loss() < first:
            return
    # PyTorch's search may find no step along a direction that other batches have led to.
    if training.kind != "lbfgs" or norm != 0.0:
        raise AssertionError(f"60 clean steps do not lower the loss {first}")


# --- trials -------------------------------------------------------------------------------------


def trial(seed: int, folder: Path) -> str:
    """Makes a few steps, one or many of which fail; see `tests/runtime/optimizers/failures.py`.

    Returns:
        how the failing step ended: "undone", "refused", "accepted" or "gave up".
    """
    draw = np.random.default_rng(seed)
    training = Training(draw)
    for _ in range(int(draw.integers(0, 4))):
        training.step()
    kind = str(draw.choice([*KINDS]))
    said = f"seed {seed}: {training.kind} on {training.net}, {training.model.dtype}, {kind}"
    try:
        outcome = KINDS[kind](draw, training)
        check_goes_on(training)
    except AssertionError as error:
        raise AssertionError(f"{said} {training.said}: {error}") from error
    except Exception as error:
        raise AssertionError(f"{said} {training.said}: {type(error).__name__}: {error}") from error
    return outcome


def _undone(training: Training, error: type[BaseException], counted: Counted | None = None) -> str:
    """Makes a step that has to raise an error and to leave nothing."""
    before = training.state()
    try:
        with counted or nullcontext():
            training.step()
    except error as raised:
        found = differing(training.state(), before)
        assert not found, f"{type(raised).__name__} ({raised}) has moved {found}"
        return "undone"
    return ""


def a_call_raises(draw: np.random.Generator, training: Training) -> str:
    """An operator of PyTorch raises an error, or an interrupt comes, in the middle of a step."""
    with Counted() as counted:
        training.step()
    error = RAISED[int(draw.integers(len(RAISED)))]
    failing = Counted(int(draw.integers(1, counted.calls + 1)), error)
    return _undone(training, error, failing) or "unharmed"


def a_place_fails(draw: np.random.Generator, training: Training) -> str:
    """A part of a step fails once, or from then on until the optimizer gives up."""
    known = places()
    name = str(draw.choice([*known]))
    owner, attribute = known[name]
    how, fail = failures(draw, name)
    first, lasts = int(draw.integers(0, 3)), draw.random() < 0.3
    failing = Failing(vars(owner)[attribute], fail, first, math.inf if lasts else first)
    outcome, training.said = "unharmed", f"{name} gives {how}, {'lasting' if lasts else 'once'}"
    with patch.object(owner, attribute, failing):
        for _ in range(2 * PATIENCE if lasts else 1):
            before = training.state()
            try:
                report = training.step()
            except (Injected, NewtritonError) as error:
                if "in a row" in str(error):
                    outcome = "gave up"
                    break
                found = differing(training.state(), before)
                assert not found, f"{name}, {how}: {error} has moved {found}"
                outcome = "undone"
                continue
            check_report(training, before, report)
            outcome = "accepted" if report.accepted else "refused"
    assert math.isfinite(training.loss()), f"{name}, {how}: the loss is not finite"
    return outcome


BAD: dict[str, Callable[[Batch], Batch]] = {
    "nan": lambda batch: (torch.full_like(batch[0], math.nan), batch[1]),
    "inf": lambda batch: (torch.full_like(batch[0], math.inf), batch[1]),
    "labels": lambda batch: (batch[0], batch[1] + 2),
    "shape": lambda batch: (batch[0][:, :3], batch[1]),
    "dtype": lambda batch: (batch[0], batch[1].bool()),
    "float labels": lambda batch: (batch[0], batch[1].double() * math.nan),
    "empty": lambda batch: (batch[0][:0], batch[1][:0]),
    "fewer labels": lambda batch: (batch[0], batch[1][:-1]),
    "large": lambda batch: (batch[0] * torch.finfo(batch[0].dtype).max / 8, batch[1]),
    "large squares": lambda batch: (batch[0] * torch.finfo(batch[0].dtype).max ** 0.51, batch[1]),
}


def a_batch_is_bad(draw: np.random.Generator, training: Training) -> str:
    """A batch cannot be stepped on, or the data raise an error in one of their passes."""
    name = str(draw.choice([*BAD, "raises"]))
    bad = BAD.get(name, raising(Injected("the data raise")))
    loader = training.loader
    loader.bad, loader.at = bad, loader.given + int(draw.integers(0, 6))
    before = training.state()
    try:
        report = training.step(bad)
    except (NewtritonError, Injected) as error:
        found = differing(training.state(), before)
        assert not found, f"{name}: {error} has moved {found}"
        return "undone"
    finally:
        loader.at = -1
    check_report(training, before, report)
    return "accepted" if report.accepted else "refused"


def a_schedule_fails(draw: np.random.Generator, training: Training) -> str:
    """A schedule raises an error, or gives what is no learning rate."""
    schedule = getattr(training.optimizer, "schedule", None)
    if schedule is None:
        return "no schedule"
    rate = [math.nan, -1.0, math.inf, None][int(draw.integers(4))]
    fail = raising(Injected("the schedule")) if rate is None else filled(rate)
    good = schedule.lr_lambdas[0]
    schedule.lr_lambdas[0] = lambda step: fail(good(step))
    try:
        return _undone(training, Injected if rate is None else NewtritonError) or "unharmed"
    finally:
        schedule.lr_lambdas[0] = good


KINDS: dict[str, Callable[[np.random.Generator, Training], str]] = {
    "a call raises": a_call_raises,
    "a place fails": a_place_fails,
    "a batch is bad": a_batch_is_bad,
    "a schedule fails": a_schedule_fails,
}

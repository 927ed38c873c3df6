"""Good calls of what trains a network: optimizers and their parts, data, diagnostics, records."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.optim.lr_scheduler import StepLR

import newtriton as nt

from .calls import Call, Maker
from .describing import NUMBERS
from .values import HUGE

TRAINING: dict[str, Maker] = {}
RESTORED = set[str]()  # methods that optimizers alone call, with states that they have checked

SAMPLES = 6
WHERE: dict[str, Any] = {"backend": "aten", "device": "cpu"}


def _model(dtype: torch.dtype = torch.float32) -> nt.Model:
    net = nt.Sequential(nt.Linear(3), nt.Tanh(), nt.Linear(3))
    return nt.compile(net, (4,), nt.CrossEntropyLoss(), **WHERE, dtype=dtype, weight_decay=0.01)


def _data(samples: int = SAMPLES) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns samples, always the same."""
    x = torch.randn(samples, 4, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(samples) % 3


def state_of(model: nt.Model) -> Any:
    """Returns all that a model has of its own."""
    return [model.params, model.buffers, model.weight_decay, model.dropout.state_dict()]


# --- optimizers -----------------------------------------------------------------------------------


def _steps(optimizer: Any) -> Any:
    """Makes steps with a copy of an optimizer, whose model is a copy too."""
    made = copy.deepcopy(optimizer)
    x, y = _data()
    reports = [made.step(x, y) for _ in range(2)]
    return [str(optimizer), [report.loss for report in reports], made.model.params]


Parts = Callable[[nt.Model], Mapping[str, Any]]

KRONECKER = {"sharing": "reduce", "max_factor": 100, "max_copies": 50, "seed": 2}
PRESETS: dict[str, list[dict[str, Any]]] = {
    "FITRE": [
        {
            "damping": 0.1, "max_radius": 1.0, "initial_radius": 0.5, "case": "subspace",
            "momentum": 0.5, "factors": "kflr", "every": 2, "moving_average": 0.5, "burn_in": 1,
            "reject_below": 0.1, "noise": "wiener", **KRONECKER,
        },
        {"noise": None, "every": (1, 2), "case": "kfac+gradient"},
    ],
    "KFAC": [
        {
            "damping": 0.1, "momentum": True, "samples": 2, "every": (1, 2), "burn_in": 1,
            "moving_average": 0.5, "average": 0.9, "noise": None, **KRONECKER,
        },
        {},
    ],
    "KFRA": [
        {
            "damping": 0.1, "momentum": False, "every": 2, "moving_average": 0.5, "burn_in": 1,
            "average": 0.9, "noise": "wiener", **KRONECKER,
        }
    ],
    "KFLR": [
        {
            "damping": 0.1, "momentum": False, "every": 2, "moving_average": 0.5, "burn_in": 1,
            "average": 0.9, "noise": "wiener", **KRONECKER,
        }
    ],
    "EACG": [
        {
            "lr": 0.1, "alpha": 0.1, "factors": "pch-1", "limit": 3, "tolerance": 0.01,
            "momentum": 0.5, "apart": False, "pos_eig": -0.5, "noise": "wiener", **KRONECKER,
        }
    ],
    "NewtonCG": [
        {
            "damping": 0.5, "sample": 0.5, "curvature": "hessian", "product": "r-operator",
            "limit": 3, "tolerance": 0.2, "progress": 0.001, "preconditioner": "kfac",
            "noise": "wiener", "seed": 2,
        }
    ],
    "SecondOrder": [
        {
            "curvature": "kfac", "solver": "eigen", "rule": "fixed", "damping": 0.2,
            "form": "convex", "sample": 0.5, "noise": "wiener", "follow": True, "seed": 2,
        },
        {"curvature": "ggn", "solver": "steihaug", "rule": "trust-region"},
    ],
}  # fmt: skip
CLASSES: dict[str, list[tuple[type[torch.optim.Optimizer], dict[str, Any]]]] = {
    "TorchOptimizer": [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        (torch.optim.Adam, {"lr": 0.01, "schedule": functools.partial(StepLR, step_size=1)}),
        (torch.optim.Adafactor, {"lr": 0.01}),
        (torch.optim.LBFGS, {"lr": 0.5, "max_iter": 2}),
    ],
    "Preconditioned": [
        (
            torch.optim.SGD,
            {
                "lr": 0.1, "curvature": "kfac", "solver": "kfi", "damping": 0.1, "every": 2,
                "clip": 0.1, "plain": ["2"], "seed": 2,
            },
        )
    ],
}  # fmt: skip


def _optimizer(name: str, rng: Random) -> Any:
    """Returns an optimizer."""
    if name in PRESETS:
        return getattr(nt, name)(_model(), **rng.choice(PRESETS[name]))
    cls, options = rng.choice(CLASSES[name])
    return getattr(nt, name)(_model(), cls, **options)


def _making(name: str) -> Maker:
    def make(rng: Random) -> Call:
        model, args, options = _model(), (), {}
        if name in PRESETS:
            options = rng.choice(PRESETS[name])
        else:
            cls, options = rng.choice(CLASSES[name])
            args = (cls,)
        return Call(getattr(nt, name), (model, *args), options, _steps, lambda: state_of(model))

    return make


def _stepping(name: str) -> Maker:
    def make(rng: Random) -> Call:
        optimizer = _optimizer(name, rng)
        args: tuple[Any, ...] = _data()
        if optimizer.takes_data and rng.random() < 0.5:
            args = ([_data(2), _data(4)],)
        if rng.random() < 0.5:
            optimizer.step(*_data())
        return Call(
            optimizer.step, args, {}, lambda report: [report.loss, report.step_norm],
            lambda: [state_of(optimizer.model), optimizer.state_dict()], pure=False,
        )  # fmt: skip

    return make


def _loading(name: str) -> Maker:
    def make(rng: Random) -> Call:
        chosen = rng.getrandbits(32)
        optimizer, other = (_optimizer(name, Random(chosen)) for _ in range(2))
        other.step(*_data())
        return Call(
            optimizer.load_state_dict, (other.state_dict(),), {},
            lambda _: optimizer.step(*_data()).loss,
            lambda: [state_of(optimizer.model), optimizer.state_dict()], pure=False,
        )  # fmt: skip

    return make


def _saving(name: str) -> Maker:
    def make(rng: Random) -> Call:
        optimizer = _optimizer(name, rng)
        return Call(optimizer.state_dict, state=lambda: state_of(optimizer.model))

    return make


for _name in (*PRESETS, *CLASSES):
    TRAINING[_name] = _making(_name)
    TRAINING[f"{_name}.step"] = _stepping(_name)
    TRAINING[f"{_name}.load_state_dict"] = _loading(_name)
    TRAINING[f"{_name}.state_dict"] = _saving(_name)


def _bootstrapping(rng: Random) -> Call:
    optimizer = nt.FITRE(_model(), burn_in=0)
    return Call(
        optimizer.bootstrap, ([_data(2), _data(4)],), {},
        lambda _: optimizer.curvature.gathered,
        lambda: [state_of(optimizer.model), optimizer.state_dict()], pure=False,
    )  # fmt: skip


TRAINING["SecondOrder.bootstrap"] = _bootstrapping


# --- parts of optimizers --------------------------------------------------------------------------

FACTORS: dict[str, Any] = {
    "kind": "kflr", "samples": 2, "moving_average": 0.5, "every": 2, "burn_in": 1, "seed": 2,
    "layers": ["0", "2"], "refresh": 2, "relative": True, "sharing": "reduce", "max_factor": 100,
    "max_copies": 50,
}  # fmt: skip
MEANS: dict[str, Any] = {"kind": "pch-1", "inputs": "mean", "apart": True, "pos_eig": -0.5}
BASES: dict[str, Any] = {"kind": "ekfac", "basis": "qr"}

# What a part is made with, beside the model of a curvature, and the other two parts.
CURVATURES: dict[str, list[tuple[dict[str, Any], str, str]]] = {
    "KroneckerCurvature": [
        (FACTORS, "kfi", "fixed"),
        (MEANS, "ea-cg", "fixed"),
        (BASES, "eigen", "trust-region"),
    ],
    "MatrixFree": [
        (
            {"kind": "ggn", "blocks": "whole", "product": "r-operator", "forecast": 10},
            "truncated-cg",
            "levenberg-marquardt",
        )
    ],
}
SOLVERS: dict[str, tuple[dict[str, Any], str]] = {
    "KFI": ({"every": 2, "pi": False}, "kfac"),
    "Eigen": ({"every": 2, "basis": "qr"}, "kfac"),
    "BlockCG": ({"limit": 3, "tolerance": 0.1}, "kfac"),
    "MeanCG": ({"limit": 3, "tolerance": 0.1}, "kfac"),
    "TruncatedCG": ({"limit": 3, "tolerance": 0.1, "progress": 0.01}, "ggn"),
    "Steihaug": ({"limit": 3, "tolerance": 0.1, "progress": 0.01}, "ggn"),
}
RULES: dict[str, tuple[dict[str, Any], str, str]] = {
    "Fixed": ({"lr": 0.1, "momentum": 0.5, "refuse": True}, "kfac", "kfi"),
    "LevenbergMarquardt": (
        {"model": "ggn", "sufficient": 0.001, "halvings": 5, "drop": 0.5, "boost": 2.0},
        "ggn",
        "truncated-cg",
    ),
    "QuadraticModel": (
        {"damping": 0.1, "momentum": False, "model": "ggn", "every": 2, "greedy": 3},
        "kfac",
        "kfi",
    ),
    "TrustRegion": (
        {
            "max_radius": 2.0, "initial_radius": 1.0, "min_radius": 0.01, "case": "subspace",
            "momentum": 0.5, "reject_below": 0.1, "model": "ggn",
        },
        "kfac",
        "kfi",
    ),
}  # fmt: skip


def _with(**parts: Any) -> Any:
    """Makes steps with an optimizer of some parts, on a model of its own unless they have one."""
    held = parts.get("curvature")
    model = _model() if isinstance(held, str) or held is None else held.model
    return _steps(nt.SecondOrder(model, **parts))


def _curvature_makers(name: str) -> None:
    def parts(rng: Random) -> tuple[Any, dict[str, Any], str, str]:
        options, solver, rule = rng.choice(CURVATURES[name])
        solver = nt.MeanCG() if solver == "ea-cg" else solver
        return _model(), options, solver, rule

    def made(rng: Random) -> Call:
        model, options, solver, rule = parts(rng)
        kind, rest = options["kind"], {n: v for n, v in options.items() if n != "kind"}

        def use(curvature: Any) -> Any:
            return _with(curvature=curvature, solver=copy.deepcopy(solver), rule=rule)

        return Call(getattr(nt, name), (model, kind), rest, use, lambda: state_of(model))

    def part(rng: Random) -> Any:
        model, options, _, _ = parts(rng)
        return getattr(nt, name)(model, **options)

    TRAINING[name] = made
    _of_part(name, part)


def _of_part(name: str, made: Callable[[Random], Any]) -> None:
    """Registers what saves the state of a part; the optimizer checks one that is restored."""
    TRAINING[f"{name}.state_dict"] = lambda rng: Call(made(rng).state_dict)
    RESTORED.add(f"{name}.load_state_dict")


for _name in CURVATURES:
    _curvature_makers(_name)


def _preconditioner(rng: Random) -> Any:
    model = _model()
    return nt.WithPreconditioner(nt.MatrixFree(model), nt.KroneckerCurvature(model, "kflr"))


def _joining(rng: Random) -> Call:
    model = _model()
    args = nt.MatrixFree(model), nt.KroneckerCurvature(model, "kflr")
    solver = nt.TruncatedCG(preconditioner=nt.KFI())

    def use(curvature: Any) -> Any:
        return _with(curvature=curvature, solver=copy.deepcopy(solver), rule="fixed")

    return Call(nt.WithPreconditioner, args, {}, use, lambda: state_of(model))


TRAINING["WithPreconditioner"] = _joining
_of_part("WithPreconditioner", _preconditioner)


def _solver_makers(name: str) -> None:
    options, curvature = SOLVERS[name]

    def use(solver: Any) -> Any:
        held: Any = curvature
        if name == "MeanCG":
            held = nt.KroneckerCurvature(_model(), "pch-1", inputs="mean", apart=True)
        elif getattr(solver, "preconditioner", None) is not None:
            held = _preconditioner(Random(0))
        rule = "trust-region" if name == "Steihaug" else "fixed"
        return _with(curvature=held, solver=solver, rule=rule)

    TRAINING[name] = lambda rng: Call(getattr(nt, name), (), options, use)
    _of_part(name, lambda rng: getattr(nt, name)(**options))


def _rule_makers(name: str) -> None:
    options, curvature, solver = RULES[name]

    def use(rule: Any) -> Any:
        return _with(curvature=curvature, solver=solver, rule=rule)

    TRAINING[name] = lambda rng: Call(getattr(nt, name), (), options, use)
    _of_part(name, lambda rng: getattr(nt, name)(**options))


for _name in SOLVERS:
    _solver_makers(_name)
for _name in RULES:
    _rule_makers(_name)


def _averaged(average: Any) -> Any:
    for step in range(3):
        average.update(torch.full((4,), float(step)))
    return [average.mean, average.steps]


TRAINING["PolyakAverage"] = lambda rng: Call(nt.PolyakAverage, (0.9,), {}, _averaged)
_of_part("PolyakAverage", lambda rng: nt.PolyakAverage(0.9))


# --- data -----------------------------------------------------------------------------------------


def _passed(batches: Any) -> Any:
    try:
        return [[x, y] for x, y in copy.copy(batches)]
    except (RuntimeError, TypeError) as error:  # of a transform, which is the user's
        raise nt.NewtritonError(str(error)) from error


def _doubled(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return 2 * x


def _halved(x: torch.Tensor) -> torch.Tensor:
    return x / 2


LABELS = NUMBERS | {  # which a model refuses
    ("y", f"{number} in it") for number in (-1, -100, HUGE, -HUGE, 1 << 20, 1000)
}
BATCHES = {"shuffle": True, "seed": 2, "transform": _doubled}


def _lazy() -> nt.Lazy:
    return nt.Lazy(_data()[0], [_halved])


def _batching(rng: Random) -> Call:
    x, y = _data()
    held: Any = rng.choice([x, (x, x[:, :2]), {"a": x, "b": x}, _lazy()])
    transform = _doubled if isinstance(held, torch.Tensor) else None
    options = {**BATCHES, "drop_last": True, "transform": transform}
    return Call(nt.Batches, (held, y, 2), options, _passed, taken=LABELS)


TRAINING["Batches"] = _batching
TRAINING["DataParallel"] = lambda rng: Call(
    nt.DataParallel, (), {"batch_norm": "rank", "factors": "bf16", "bucket": 9, "timeout": 1.5},
    lambda made: [made.batch_norm, made.factors, made.bucket],
)  # fmt: skip
TRAINING["GrowingBatches"] = lambda rng: Call(
    nt.GrowingBatches, (*_data(), 1, 4), {**BATCHES, "steps": 3}, _passed, taken=LABELS
)


def _resuming(name: str, *args: int, **options: Any) -> None:
    """Registers what saves and restores where batches are."""

    def made() -> Any:
        return getattr(nt, name)(*_data(), *args, **options)

    def resuming(rng: Random) -> Call:
        batches, other = made(), made()
        next(iter(other))
        return Call(
            batches.load_state_dict, (other.state_dict(),), {}, lambda _: _passed(batches),
            batches.state_dict, pure=False,
        )  # fmt: skip

    TRAINING[f"{name}.load_state_dict"] = resuming
    TRAINING[f"{name}.state_dict"] = lambda rng: Call(made().state_dict)


_resuming("Batches", 2, **BATCHES)
_resuming("GrowingBatches", 1, 4, steps=3)
TRAINING["Lazy"] = lambda rng: Call(
    nt.Lazy, (_data()[0], [_halved]), {"transform": _doubled},
    lambda lazy: [lazy[1:3], list(lazy.shape)],
    taken=NUMBERS | {("transform", "an object whose methods raise")},
)  # fmt: skip
TRAINING["Lazy.subset"] = lambda rng: Call(
    _lazy().subset, (torch.tensor([2, 0]),), {}, lambda lazy: lazy[:]
)
TRAINING["CropFlip"] = lambda rng: Call(
    nt.CropFlip, (1,), {},
    lambda crop: crop(torch.ones(2, 1, 4, 4), torch.Generator().manual_seed(1)),
)  # fmt: skip
TRAINING["curves"] = lambda rng: Call(nt.curves, (3, 2), {}, list)
TRAINING["digits"] = lambda rng: Call(nt.digits, (0.2, 2), {}, lambda parts: list(parts[0]))
TRAINING["split"] = lambda rng: Call(
    nt.split, (nt.Samples(*_data(12)), 0.5, 2), {}, lambda parts: [list(part) for part in parts]
)
TRAINING["available"] = lambda rng: Call(nt.available, ("mnist", "nowhere"), {}, bool)


def _pairs() -> list[tuple[torch.Tensor, int]]:
    """Returns a dataset: samples with their labels."""
    x, y = _data()
    return list(zip(x, y.tolist(), strict=True))


def _shown(samples: nt.Samples) -> Any:
    """Returns samples as what two equal calls agree in."""
    return [part.in_memory() if isinstance(part, nt.Lazy) else part for part in samples]


TRAINING["from_dataset"] = lambda rng: Call(nt.from_dataset, (_pairs(),), {}, _shown)


def _set(rng: Random) -> Call:
    name: Any = rng.choice(["digits", {"train": _pairs(), "test": _pairs()}, (_pairs(), _pairs())])
    preprocessing = ["min-max", "standard"] if name == "digits" else "none"
    return Call(
        nt.load, (name,), {"root": ".", "preprocessing": preprocessing},
        lambda parts: _shown(parts[0]), taken=frozenset({("name", "an integer for a key")}),
    )  # fmt: skip


TRAINING["load"] = _set


# --- diagnostics ----------------------------------------------------------------------------------


def _linearized(rng: Random) -> Any:
    model = _model(torch.float64)
    x, y = _data()
    if rng.random() < 0.5:
        return model.linearize(x.double(), y)
    return nt.LinearizedData(model, [(x.double()[:2], y[:2]), (x.double()[2:], y[2:])])


def _diagnosing(name: str, *args: Any, **options: Any) -> None:
    def make(rng: Random) -> Call:
        lin = _linearized(rng)
        return Call(getattr(nt, name), (lin, *args), options, str, lambda: state_of(lin.model))

    TRAINING[name] = make


_diagnosing("alignment", ["kfac", "kflr"], solver="kfi", damping=0.1, tolerance=1e-6, limit=200)
_diagnosing("density", "ggn", vectors=2, steps=5, width=0.1, seed=2)
_diagnosing("diagonal", "hessian", products=3, seed=2)
_diagnosing("layer_errors", ["kfac", "kflr"], of="bias", limit=50)
_diagnosing("spectrum", "ggn", 2, tolerance=1e-3, limit=100, basis=20, seed=2)
_diagnosing("trace", "hessian", products=6, seed=2)


def _of_data(name: str, arguments: Callable[[nt.Model], tuple[Any, ...]], **options: Any) -> None:
    """Registers a method of linearized data."""

    def make(rng: Random) -> Call:
        model = _model(torch.float64)
        x, y = _data()
        lin = nt.LinearizedData(model, [(x.double()[:2], y[:2]), (x.double()[2:], y[2:])])
        return Call(
            getattr(lin, name), arguments(model), options,
            lambda found: str(found) if name == "kronecker_factors" else found,
            lambda: state_of(model), taken=NUMBERS,
        )  # fmt: skip

    TRAINING[f"LinearizedData.{name}"] = make


def _vector(model: nt.Model) -> torch.Tensor:
    return torch.linspace(-1.0, 1.0, model.params.numel(), dtype=model.dtype)


_of_data("hvp", lambda model: (_vector(model),))
_of_data("ggnvp", lambda model: (_vector(model), "r-operator"))
_of_data("data_product", lambda model: (_vector(model), "ggn", "r-operator"), by_layer=True)
_of_data("quadratic_forms", lambda model: ([_vector(model), model.params.clone()], "ggn"))
_of_data("block", lambda model: (["0.weight", "0.bias"], "ggn"))
_of_data("kronecker_factors", lambda model: ("kflr", 1), layers=["0"])


def _linearizing(rng: Random) -> Call:
    model = _model(torch.float64)
    x, y = _data()
    return Call(
        nt.LinearizedData, (model, [(x.double(), y)]), {}, lambda lin: lin.hvp(_vector(model)),
        lambda: state_of(model),
    )  # fmt: skip


TRAINING["LinearizedData"] = _linearizing


# --- training -------------------------------------------------------------------------------------


def _enough(history: nt.History) -> bool:
    """Ends a training that is to go on for 2³¹ epochs, which is no mistake."""
    return len(history.epochs) >= 3


def _fitting(rng: Random) -> Call:
    model = _model()
    optimizer: Any = nt.FITRE(model, burn_in=1) if rng.random() < 0.5 else nt.NewtonCG(model)
    train: Any = nt.Batches(*_data(), 3) if rng.random() < 0.5 else [_data(3)]
    options: dict[str, Any] = {"progress": False, "callbacks": [_enough], "average": False}
    if rng.random() < 0.5:
        folder = tempfile.mkdtemp(dir=".")
        options |= {"checkpoint": folder, "checkpoint_every": 1, "resume": "auto", "keep": 2}
    else:
        options |= {"history": nt.History()}

    def state() -> Any:
        return [state_of(model), optimizer.state_dict()]

    def use(history: nt.History) -> Any:
        return [[epoch.loss for epoch in history.epochs], model.params]

    args = (model, optimizer, train, _data(2), 1)
    taken = frozenset({("checkpoint_every", "its text")})
    return Call(nt.fit, args, options, use, state, pure=False, taken=taken)


def _evaluating(rng: Random) -> Call:
    model = _model()
    return Call(nt.evaluate, (model, [_data(3), _data(2)]), {}, list, lambda: state_of(model))


TRAINING["fit"] = _fitting
TRAINING["evaluate"] = _evaluating


def _history() -> nt.History:
    history = nt.History()
    model = _model()
    return nt.fit(model, nt.FITRE(model), [_data()], _data(2), 2, progress=False, history=history)


def _saved(rng: Random) -> Call:
    history = _history()
    return Call(
        history.save, ("history.json",), {},
        lambda _: nt.History.load("history.json").epochs[-1].number, history.text,
    )  # fmt: skip


def _read(rng: Random) -> Call:
    path = Path("read.json")
    _history().save(path)
    return Call(nt.History.load, (path,), {}, lambda history: len(history.epochs))


def _drawn(rng: Random) -> Call:
    history = _history()
    return Call(
        history.plot, ("plot.svg", ["epochs", "seconds"]), {}, lambda figure: len(figure.axes),
        history.text,
    )  # fmt: skip


def _all_drawn(rng: Random) -> Call:
    args = ({"a": _history(), "b": [_history(), _history()]}, "plot.svg", ["epochs", "seconds"])
    return Call(nt.plot_histories, args, {}, lambda figure: len(figure.axes))


TRAINING["History.save"] = _saved
TRAINING["History.load"] = _read
TRAINING["History.plot"] = _drawn
TRAINING["EarlyStopping"] = lambda rng: Call(
    nt.EarlyStopping, (2, "loss"), {"min_delta": 0.1}, lambda stops: stops(_history())
)
TRAINING["plot_histories"] = _all_drawn


# --- trackers and reports -------------------------------------------------------------------------


def _followed(tracker: Any) -> Any:
    """Follows a run of a step, and returns how far it was found to be."""
    begun = {"event": "begun", "run": "a", "time": "", "steps": 0, "epochs": 0}
    place = tracker.begin(begun)
    tracker.record({"event": "step", "step": 1, "epoch": 1, "loss": 0.5})
    tracker.end({**begun, "event": "ended", "steps": 1})
    return list(place)


TRAINING["Tracker"] = lambda rng: Call(nt.Tracker, (), {}, _followed)
TRAINING["JSONLines"] = lambda rng: Call(nt.JSONLines, ("run.jsonl",), {"steps": True}, _followed)
TRAINING["TensorBoard"] = lambda rng: Call(nt.TensorBoard, ("events",), {}, _followed)
# Elsewhere than on this machine nothing is to happen: these are made, and follow nothing.
TRAINING["WandB"] = lambda rng: Call(nt.WandB, ("digits",), {"mode": "offline"}, str)
TRAINING["MLflow"] = lambda rng: Call(
    nt.MLflow, ("digits",), {"tracking_uri": "sqlite:///a.db", "run_name": "a"}, str
)
TRAINING["Trackio"] = lambda rng: Call(nt.Trackio, ("digits",), {"name": "a"}, str)


def _reported(rng: Random) -> Call:
    return Call(nt.report, ({"a": _history(), "b": _history()}, "report.html"), {})


TRAINING["report"] = _reported

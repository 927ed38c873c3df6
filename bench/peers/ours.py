"""Our side: a captured model, linearized anew in each call, as a step finds it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

import newtriton as nt

from .problem import DAMPING, Call, Named, Problem

NAME = "newtriton"
PRESETS: Mapping[str, Callable[..., nt.SecondOrder]] = {
    f"{NAME}, FITRE": nt.FITRE,
    f"{NAME}, K-FAC": nt.KFAC,
}
STEPS = tuple(PRESETS)


def calls(problem: Problem, wanted: Collection[str]) -> Iterator[Call]:
    """Yields the calls; FITRE and K-FAC take their steps at their defaults, past their burn-in."""
    model = _model(problem)
    u, v, w = (model.flatten(each) for each in (problem.u, problem.v, problem.w))

    def call(
        operation: str, run: Callable[[], Any], numbers: Callable[[], Named]
    ) -> Iterator[Call]:
        if operation in wanted:
            yield Call(NAME, operation, run, numbers)

    def linearized() -> nt.Linearization:
        return model.linearize(problem.x, problem.y)

    def gradient() -> Tensor:
        return model.gradient(problem.x, problem.y)[1]

    def hvp() -> Tensor:
        return linearized().hvp(v)

    def ggnvp() -> Tensor:
        return linearized().ggnvp(v)

    def form() -> Tensor:
        return linearized().quadratic_forms([v])

    def forms() -> Tensor:
        return linearized().quadratic_forms([u, v])

    yield from call("gradient", gradient, lambda: model.unflatten(gradient()))
    yield from call("hvp", hvp, lambda: model.unflatten(hvp()))
    yield from call("ggnvp", ggnvp, lambda: model.unflatten(ggnvp()))
    yield from call("form", form, lambda: {"vHv": form()[0, 0]})
    yield from call("forms", forms, lambda: _three(forms()))
    layers = list(problem.layers)

    def factors() -> Mapping[str, object]:
        return linearized().kronecker_factors("kfac", layers=layers)

    @cache
    def curvature(kind: str) -> nt.KroneckerCurvature:
        made = nt.KroneckerCurvature(model, kind, moving_average=0.0, layers=layers)
        made.update(linearized())
        return made

    def ekfac() -> bool:
        return curvature("ekfac").update(linearized())

    def inverse() -> Tensor:
        return nt.KFI().prepare(curvature("empirical"), DAMPING).solve(v).x

    def of_layers(flat: Tensor) -> Named:
        found = model.unflatten(flat)
        return {name: found[name] for name in problem.kronecker}

    yield from call("kfac", factors, lambda: of_layers(curvature("empirical").mv(w)))
    yield from call("ekfac", ekfac, lambda: of_layers(curvature("ekfac-empirical").mv(w)))
    yield from call("inverse", inverse, lambda: of_layers(inverse()))
    if "step" in wanted:
        for provider, preset in PRESETS.items():
            yield _step(problem, provider, preset)


def _model(problem: Problem) -> nt.Model:
    """Returns a model of a copy of the network."""
    return nt.from_torch(problem.copy(), problem.x, nt.CrossEntropyLoss())


def _three(matrix: Tensor) -> Named:
    """Returns the forms of two directions by name."""
    return {"uHu": matrix[0, 0], "uHv": matrix[0, 1], "vHv": matrix[1, 1]}


def _step(problem: Problem, provider: str, preset: Callable[..., nt.SecondOrder]) -> Call:
    """Returns the step of an optimizer; it is compared on the loss that it starts from."""

    @cache
    def optimizer() -> nt.SecondOrder:
        return preset(_model(problem), burn_in=1)

    def run() -> nt.StepReport:
        return optimizer().step(problem.x, problem.y)

    def loss() -> Named:
        loss = _model(problem).linearize(problem.x, problem.y).objective
        return {"loss": torch.tensor(loss, dtype=torch.float64)}

    return Call(provider, "step", run, loss)

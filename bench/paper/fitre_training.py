"""FITRE against Nesterov's momentum and L-BFGS on VGGs, and what batch norm changes for each.

Kylasa et al. (2020), section 4. On images smaller than the paper's, VGG goes without its first
pools, and at sizes below `full` it is thinner: all its convolutions are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from statistics import mean
from typing import Any

import torch

import newtriton as nt

from ...compiler.layers.models import VGG
from ...runtime.model.factors import KroneckerFactors
from ..protocol.data import Chosen, choose
from ..protocol.experiment import Row, Setting
from ..protocol.training import curve, most

CASES = ("kfac", "kfac+gradient", "subspace")  # the last is beyond the paper's Algorithm 1
# Section 4, "Hyperparameter Tuning".
DAMPINGS = (1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2)
RADII = (1e-2, 1e-1, 1e0, 1e1, 1e2)
RATES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2)
MOMENTUM = 0.9

FITRE, DEFAULTS, SGD = "FITRE kfac", "FITRE, newtriton's defaults", "SGD"
L_BFGS = ("L-BFGS, batches", "L-BFGS, all data")

Make = Callable[..., Any]  # an optimizer of a model, a seed and options


@dataclass(frozen=True)
class Problem:
    """What is trained.

    Attributes:
        table: the table of the paper that shows it.
        data: the paper's data set.
        depth: the number in VGG's name.
        init: the rule for the first weights.
        batch_norm: whether a batch norm follows each convolution.
        every: the frequencies with which the factors are refreshed.
        decays: the weight decays λ.
        epochs: how many epochs the paper's runs have.
        cases: FITRE's cases.
        bfgs: whether L-BFGS is compared too.
    """

    table: str
    data: str
    depth: int
    init: str
    batch_norm: bool = False
    every: tuple[int, ...] = (5,)
    decays: tuple[float, ...] = (0.0,)
    epochs: int = 50
    cases: tuple[str, ...] = CASES
    bfgs: bool = False


@dataclass(frozen=True)
class Scale:
    """How much of a problem is run.

    Attributes:
        thin: what VGG's widths are divided by.
        samples: how many samples are trained on at most; None for all.
        batch_size: the samples in a batch.
        epochs: the epochs of a run; None for the paper's.
        longer: how many times more epochs the first-order methods get, whose steps are cheaper.
        rates: the learning rates to choose from.
        points: pairs (γ, Δ_max) to choose from.
        anew: whether each case, frequency and decay gets a choice of its own; the first one's else.
    """

    thin: int
    samples: int | None
    batch_size: int
    epochs: int | None
    longer: int
    rates: tuple[float, ...]
    points: tuple[tuple[float, float], ...]
    anew: bool = False


PAPER = Scale(1, None, 200, None, 1, RATES, tuple(product(DAMPINGS, RADII)), anew=True)
SMOKE = Scale(16, 100, 50, 1, 1, (0.1,), ((0.1, 1.0),))
SMALL = Scale(16, 1500, 100, 8, 3, RATES, ((0.001, 1.0), (0.01, 0.1), (0.01, 1.0), (0.1, 1.0)))


def network(
    depth: int, pixels: int, classes: int, *, batch_norm: bool, init: str, thin: int = 1
) -> nt.Sequential:
    """Returns the paper's VGG for images of any size.

    Args:
        depth: the number in VGG's name.
        pixels: the side of an image; below 32 the first pools, down to it, are left out.
        classes: the number of outputs.
        batch_norm: whether a batch norm follows each convolution.
        init: the rule for the first weights.
        thin: what the widths are divided by.
    """
    skipped = max(0, 6 - pixels.bit_length())
    layers: list[Any] = []
    for width in VGG[depth]:
        if isinstance(width, int):
            norm = [nt.BatchNorm2d()] if batch_norm else []
            layers += [nt.Conv2d(width // thin, 3, padding=1, init=init), *norm, nt.SiLU()]
        elif skipped:
            skipped -= 1
        else:
            layers.append(nt.MaxPool2d(2))
    return nt.Sequential(*layers, nt.Flatten(), nt.Linear(classes, init=init))


# --- methods -------------------------------------------------------------------------------------


class OnBatches:
    """L-BFGS with a step on each batch, where `fit` would make one on all data.

    Args:
        optimizer: L-BFGS.
    """

    def __init__(self, optimizer: nt.TorchOptimizer) -> None:
        self.step = optimizer.step


def fitre(model: nt.Model, seed: int, *, case: str, damping: float, radius: float, every: int):
    """Returns FITRE as it stands in the paper."""
    return nt.FITRE(model, damping, radius, case=case, every=every, noise=None, seed=seed)


def defaults(model: nt.Model, seed: int):
    """Returns FITRE at newtriton's defaults."""
    return nt.FITRE(model, seed=seed)


def sgd(model: nt.Model, seed: int, *, rate: float):
    """Returns SGD with Nesterov's momentum."""
    return nt.TorchOptimizer(model, torch.optim.SGD, lr=rate, momentum=MOMENTUM, nesterov=True)


def lbfgs(model: nt.Model, seed: int, *, batches: bool):
    """Returns L-BFGS with 20 pairs and cubic interpolation, an iteration a step."""
    made = nt.TorchOptimizer(
        model, torch.optim.LBFGS, history_size=20, max_iter=1, max_eval=25,
        line_search_fn="strong_wolfe",
    )  # fmt: skip
    return OnBatches(made) if batches else made


# --- runs ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A problem at a scale, with its data.

    Attributes:
        problem: what is trained.
        scale: how much of it.
        data: the data.
        seeds: the seeds of weights, order and labels.
    """

    problem: Problem
    scale: Scale
    data: Chosen
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, problem: Problem, scale: Scale, setting: Setting) -> Task:
        """Returns a problem with its data."""
        data = choose(setting, problem.data, "fitre").at_most(scale.samples)
        return cls(problem, scale, data, setting.seeds)

    @property
    def name(self) -> str:
        """What rows call the network."""
        thin = f"/{self.scale.thin}" if self.scale.thin > 1 else ""
        return f"VGG{self.problem.depth}{thin}"

    def run(
        self, method: str, make: Make, options: Mapping[str, Any], seed: int,
        *, longer: bool = False, decay: float = 0.0,
    ) -> Row:  # fmt: skip
        """Returns the row of a training run.

        Args:
            method: what the row calls the optimizer.
            make: makes it.
            options: its options.
            seed: the seed of weights, order and labels.
            longer: whether it gets the epochs of a first-order method.
            decay: λ.
        """
        problem, scale, (train, test) = self.problem, self.scale, (self.data.train, self.data.test)
        classes = int(train.y.max()) + 1
        net = network(
            problem.depth, min(train.x.shape[-2:]), classes,
            batch_norm=problem.batch_norm, init=problem.init, thin=scale.thin,
        )  # fmt: skip
        loss = nt.CrossEntropyLoss()
        model = nt.compile(net, tuple(train.x.shape[1:]), loss, weight_decay=decay, seed=seed)
        batches = nt.Batches(*train, scale.batch_size, seed=seed)
        whole, held_out = (
            nt.Batches(*part, 1000, shuffle=False, transform=lambda x, _: x)
            for part in (train, test)
        )
        epochs = (scale.epochs or problem.epochs) * (scale.longer if longer else 1)
        before, first = model.params.clone(), first_layer(model, train, scale.batch_size)
        found = curve(model, make(model, seed, **options), batches, whole, held_out, epochs)
        what = {
            "data": self.data.name, "table": problem.table, "network": self.name,
            "init": problem.init, "batch_norm": problem.batch_norm, "method": method,
            "decay": decay, **options, "seed": seed,
        }  # fmt: skip
        ends = {
            "final_loss": found["loss"][-1],
            "final_accuracy": found["accuracy"][-1],
            "best_accuracy": most(found),
            "refused_share": found["refused"][-1] / max(1, found["update"][-1]),
            "moved": float((model.params - before).norm()),
        } | first
        return what | found | ends

    def runs(self, method: str, make: Make, options: Mapping[str, Any], **more: Any) -> list[Row]:
        """Returns the rows of a method that is not tuned, one for each seed."""
        return [self.run(method, make, options, seed, **more) for seed in self.seeds]

    def tuned(
        self,
        method: str,
        make: Make,
        grid: Iterable[Mapping[str, Any]],
        score: Callable[[Row], float],
        **more: Any,
    ) -> list[Row]:
        """Returns rows of every point of a grid with the first seed, and of the best with all.

        Only the rows of the best point, which are `chosen`, keep their curves.

        Args:
            method: what the rows call the optimizer.
            make: makes it.
            grid: the options to choose from.
            score: what makes a row better than others.
            more: what else `run` is given.
        """
        points = list(grid)
        rows = [self.run(method, make, point, self.seeds[0], **more) for point in points]
        best = max(range(len(rows)), key=lambda index: score(rows[index]))
        others = [brief(row) for index, row in enumerate(rows) if index != best]
        again = [self.run(method, make, points[best], s, **more) for s in self.seeds[1:]]
        return others + [row | {"chosen": True} for row in (rows[best], *again)]


def first_layer(model: nt.Model, train: nt.Samples, batch_size: int) -> dict[str, float]:
    """Returns the norm of the gradient by the first layer's weights, and their mean curvature.

    The curvature is the mean of the diagonal of A ⊗ G, which γ is added to.
    """
    x, y = (part[:batch_size].to(model.device) for part in train)
    _, gradient, _ = model.gradient(x, y)
    name, first = next(iter(model.unflatten(gradient).items()))
    layer = name.rpartition(".")[0]
    found = model.linearize(x, y).kronecker_factors("empirical", layers=[layer])[layer]
    assert isinstance(found, KroneckerFactors)
    a, g = (side.diagonal(dim1=-2, dim2=-1).mean() for side in (found.A, found.G))
    return {"first_gradient": float(first.norm()), "first_curvature": float(a * g)}


def brief(row: Row) -> Row:
    """Returns a row without its curves."""
    return {name: value for name, value in row.items() if not isinstance(value, list)}


def average(row: Row) -> float:
    """Returns the mean accuracy over the epochs, by which the paper chooses γ and Δ_max."""
    return mean(row["accuracy"][1:] or [0.0])


def compared(task: Task) -> Iterator[Row]:
    """Yields the rows of all methods on a problem."""
    problem, scale, points = task.problem, task.scale, task.scale.points
    variants = [("kfac", *pair) for pair in product(problem.every, problem.decays)]
    variants += [(case, problem.every[0], problem.decays[0]) for case in problem.cases[1:]]
    for case, every, decay in variants:
        grid = [{"case": case, "damping": d, "radius": r, "every": every} for d, r in points]
        rows = task.tuned(f"FITRE {case}", fitre, grid, average, decay=decay)
        yield from rows
        if not scale.anew:
            points = ((rows[-1]["damping"], rows[-1]["radius"]),)
    yield from task.runs(DEFAULTS, defaults, {})
    for decay in problem.decays:
        grid = [{"rate": rate} for rate in scale.rates]
        yield from task.tuned(SGD, sgd, grid, most, longer=True, decay=decay)
    for method, batches in zip(L_BFGS, (True, False), strict=True) if problem.bfgs else ():
        yield from task.runs(method, lbfgs, {"batches": batches}, longer=not batches)


def measured(setting: Setting, problems: Iterable[Problem]) -> list[Row]:
    """Returns the rows of problems at a setting's scale."""
    scale = setting.of(smoke=SMOKE, default=SMALL, full=PAPER)
    return [row for p in problems for row in compared(Task.of(p, scale, setting))]

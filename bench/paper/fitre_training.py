"""FITRE against Nesterov's momentum and L-BFGS on VGGs, and what batch norm changes for each.

Kylasa et al. (2020), section 4. On images smaller than the paper's, VGG goes without its first
pools, and at sizes below `full` it is thinner: all its convolutions are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import torch

import newtriton as nt

from ...compiler.layers.models import VGG
from .data import Chosen, choose
from .experiment import Experiment, Finding, Row, Setting, Verdict
from .figures import curves, panels
from .training import curve, first_below, most

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CASES = ("kfac", "kfac+gradient", "subspace")  # the last is beyond the paper's Algorithm 1
# Section 4, "Hyperparameter Tuning".
DAMPINGS = (1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2)
RADII = (1e-2, 1e-1, 1e0, 1e1, 1e2)
RATES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2)
DECAYS = (0.0, 1e-4, 1e-5, 1e-6)
MOMENTUM = 0.9
CLOSE = 0.01  # accuracies that differ by less count as equal

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
SMALL = Scale(16, 1500, 100, 8, 3, RATES, ((0.01, 0.1), (0.01, 1.0), (0.1, 1.0), (1.0, 1.0)))


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
        data = choose(setting, problem.data, "fitre")
        if scale.samples is not None and scale.samples < len(data.train.y):
            data = fewer(data, scale.samples)
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
        before, below = model.params.clone(), first_gradient(model, train, scale.batch_size)
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
            "first_gradient": below,
        }
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


def first_gradient(model: nt.Model, train: nt.Samples, batch_size: int) -> float:
    """Returns the norm of the gradient by the first layer's weights, on a batch."""
    x, y = (part[:batch_size].to(model.device) for part in train)
    _, gradient, _ = model.gradient(x, y)
    return float(next(iter(model.unflatten(gradient).values())).norm())


def fewer(data: Chosen, samples: int) -> Chosen:
    """Returns data with so many samples at most in each part, of every class its share."""
    parts = [
        nt.split(part, samples / len(part.y))[1] if samples < len(part.y) else part
        for part in (data.train, data.test)
    ]
    return Chosen(f"{samples} samples of {data.name}", *parts)


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


def convergence(setting: Setting) -> list[Row]:
    """Returns the rows of `fitre-convergence`."""
    small = (
        Problem("Table 6", "cifar100", 11, "kaiming", cases=CASES[:1]),
        Problem("Table 7", "cifar100", 16, "kaiming", every=(5, 25), bfgs=True),
        Problem("Table 7", "cifar100", 16, "default", cases=CASES[:1]),
    )
    smoke = (replace(small[1], depth=11),)
    return measured(setting, setting.of(smoke=smoke, default=small, full=tuple(tables())))


def tables() -> Iterator[Problem]:
    """Yields the problems of Tables 4–9, and the paper's third data set."""
    inits = ("default", "kaiming")
    for (table, depth), init in product((("Table 4", 11), ("Table 5", 16)), inits):
        yield Problem(table, "tiny-imagenet", depth, init, every=(5, 25), decays=DECAYS, epochs=25)
    for (table, depth), init in product((("Table 6", 11), ("Table 7", 16), ("Table 8", 19)), inits):
        yield Problem(
            table, "cifar100", depth, init, every=(5, 10), decays=DECAYS, bfgs=depth == 16
        )
    for depth, init in product(VGG, inits):
        yield Problem("section 4", "cifar10", depth, init, every=(5, 10), decays=DECAYS)


def batch_norm(setting: Setting) -> list[Row]:
    """Returns the rows of `fitre-batch-norm`."""
    depths = setting.of(smoke=(11,), default=(11,), full=tuple(VGG))
    all_cases = {"kaiming": CASES, "default": setting.of(smoke=(), default=CASES[:1], full=CASES)}
    problems = [
        Problem("Table 11", "cifar100", depth, init, norm, cases=cases)
        for depth, (init, cases), norm in product(depths, all_cases.items(), (False, True))
        if cases
    ]
    return measured(setting, problems)


def measured(setting: Setting, problems: Iterable[Problem]) -> list[Row]:
    """Returns the rows of problems at a setting's scale."""
    scale = setting.of(smoke=SMOKE, default=SMALL, full=PAPER)
    return [row for p in problems for row in compared(Task.of(p, scale, setting))]


# --- what the rows say ---------------------------------------------------------------------------


class Lines:
    """The curves of a problem: for each method those of its best point, a row for each seed.

    Args:
        rows: the rows of the problem.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = [row for row in rows if "epoch" in row]
        self.searched = rows
        first = self.of(FITRE)[0]
        self.epochs = first["epoch"][-1]
        self.every, self.decay = first["every"], first["decay"]

    def of(self, method: str, every: int | None = None) -> list[Row]:
        """Returns the curves of a method, with the first weight decay."""
        found = [row for row in self.rows if row["method"] == method]
        found = [row for row in found if row["decay"] == found[0]["decay"]]
        every = found[0].get("every") if found and every is None else every
        return [row for row in found if row.get("every") == every]

    def value(self, method: str, get: Callable[[Row], float | None], **of: Any) -> float:
        """Returns the median over seeds of a number; one that is None counts as infinite."""
        values = [get(row) for row in self.of(method, **of)]
        return median(float("inf") if value is None else value for value in values)

    def loss(self, method: str) -> float:
        """Returns the loss after FITRE's last epoch."""
        return self.value(method, lambda row: at(row, "epoch", self.epochs))

    def loss_in_time(self, method: str) -> float:
        """Returns the loss when FITRE's seconds are over."""
        seconds = self.value(FITRE, lambda row: row["seconds"][-1])
        return self.value(method, lambda row: at(row, "seconds", seconds))

    def accuracy(self, method: str, **of: Any) -> float:
        """Returns the best accuracy."""
        return self.value(method, most, **of)

    def seconds_to(self, method: str, level: float, **of: Any) -> float:
        """Returns the seconds to an accuracy, infinite where it is not reached."""
        return self.value(method, lambda row: reached(row, level, "seconds"), **of)

    def epochs_to(self, method: str, level: float) -> float:
        """Returns the epochs to an accuracy, infinite where it is not reached."""
        return self.value(method, lambda row: reached(row, level, "epoch"))

    def update(self, method: str, **of: Any) -> float:
        """Returns the milliseconds of an update."""
        return 1e3 * self.value(
            method, lambda row: row["seconds"][-1] / max(1, row["update"][-1]), **of
        )


def at(row: Row, field: str, value: float) -> float | None:
    """Returns the last loss before a field is above a value; None after a fault."""
    if row.get("fault"):
        return None
    found = [loss for t, loss in zip(row[field], row["loss"], strict=True) if t <= value]
    return found[-1]


def reached(row: Row, level: float, field: str) -> float | None:
    """Returns where the accuracy first reaches a level, None if it does not."""
    pairs = zip(row["accuracy"], row[field], strict=True)
    return next((t for v, t in pairs if v is not None and v >= level), None)


def grouped(rows: Iterable[Row]) -> dict[str, Lines]:
    """Returns the curves of each problem by its network and first weights."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        norm = " with batch norm" * row["batch_norm"]
        found.setdefault(f"{row['network']}{norm}, {row['init']} weights", []).append(row)
    return {name: Lines(group) for name, group in found.items()}


def verdict(holds: Sequence[bool]) -> Verdict:
    """Returns "agrees" where a claim holds on all problems, "contradicts" where on none."""
    return "agrees" if all(holds) else "open" if any(holds) else "contradicts"


def listed(groups: Mapping[str, Lines], describe: Callable[[Lines], str]) -> str:
    """Returns what is said of each problem, in one sentence."""
    return "; ".join(f"{name}: {describe(lines)}" for name, lines in groups.items()) + "."


def number(value: float, unit: str = "") -> str:
    """Returns a number in two digits, or that there is none."""
    return f"{value:.2g}{unit}" if value < float("inf") else "never"


# --- fitre-convergence ---------------------------------------------------------------------------


def level(lines: Lines) -> float:
    """Returns the accuracy to which seconds are counted: a point below SGD's best."""
    return lines.accuracy(SGD) - 0.01


def three(lines: Lines, get: Callable[[str], float], unit: str = "") -> str:
    """Returns a number of FITRE, of newtriton's defaults and of SGD."""
    return ", ".join(number(get(method), unit) for method in (FITRE, DEFAULTS, SGD))


def convergence_findings(rows: list[Row]) -> list[Finding]:
    """Returns what the rows say of Tables 4–9."""
    groups = grouped(rows)
    every = list(groups.values())
    order = "FITRE's best point, newtriton's defaults, SGD's best rate"
    chosen = listed(
        groups,
        lambda g: (
            f"γ = {g.of(FITRE)[0]['damping']:g}, Δ_max = {g.of(FITRE)[0]['radius']:g} and "
            f"rate {g.of(SGD)[0]['rate']:g}"
        ),
    )
    found = [
        Finding(
            "FITRE brings the training loss lower than well-tuned SGD in as many epochs (Tables "
            "4–8, column 2), by an order of magnitude for VGG19 on CIFAR-100 (Table 8).",
            f"the loss after FITRE's epochs ({order}): "
            + listed(groups, lambda g: f"{three(g, g.loss)} after {g.epochs}"),
            verdict([g.loss(FITRE) < g.loss(SGD) for g in every]),
            f"medians over seeds. Both are tuned as in the paper, with one seed: {chosen}",
        ),
        Finding(
            '"at any given wall-clock instance" its loss is lower, too (Tables 4–8, column 1).',
            f"the loss when FITRE's seconds are over ({order}): "
            + listed(groups, lambda g: three(g, g.loss_in_time)),
            verdict([g.loss_in_time(FITRE) < g.loss_in_time(SGD) for g in every]),
            "our seconds are a CPU's, with the same compiled gradient below all methods; the "
            "paper's are CUDA against PyTorch 1.0's. Milliseconds of an update: "
            + listed(groups, lambda g: three(g, g.update)),
        ),
        Finding(
            "FITRE needs less time to a test accuracy: 3.2 times less to 50 % for VGG16 on Tiny "
            "ImageNet (Table 5, row 4), 4 to 5 times less for VGG16 and VGG19 on CIFAR-100 "
            "(Tables 7 and 8); for VGG11 SGD catches up (Table 6).",
            f"seconds and epochs to a point below SGD's best accuracy ({order}): "
            + listed(
                groups,
                lambda g: (
                    f"{three(g, lambda m: g.seconds_to(m, level(g)), ' s')} and "
                    f"{three(g, lambda m: g.epochs_to(m, level(g)))} to {level(g):.1%}"
                ),
            ),
            verdict([g.seconds_to(FITRE, level(g)) < g.seconds_to(SGD, level(g)) for g in every]),
            f"best accuracies: {listed(groups, lambda g: percent(g, FITRE, DEFAULTS, SGD))}",
        ),
    ]
    found += [*frequency(groups), *weights(groups), *quasi_newton(groups), *cases(groups)]
    return found


def percent(lines: Lines, *methods: str) -> str:
    """Returns the best accuracies of methods."""
    return ", ".join(f"{lines.accuracy(method):.1%}" for method in methods)


def frequency(groups: Mapping[str, Lines]) -> Iterator[Finding]:
    """Yields what is found of the frequency with which factors are refreshed."""
    for name, lines in groups.items():
        pace = sorted({row["every"] for row in lines.rows if row["method"] == FITRE})
        if len(pace) < 2:
            continue
        often, seldom = [lines.accuracy(FITRE, every=k) for k in pace[:2]]
        times = [lines.update(FITRE, every=k) for k in pace[:2]]
        yield Finding(
            "factors refreshed every 25 batches in place of 5 give a better test accuracy, and "
            "less time (Tables 4 and 5).",
            f"{name}: {often:.1%} every {pace[0]} and {seldom:.1%} every {pace[1]}; "
            f"{times[0]:.3g} and {times[1]:.3g} ms an update.",
            "open" if abs(often - seldom) < CLOSE else verdict([seldom > often]),
            f"accuracies that differ by less than {100 * CLOSE:g} point count as equal; the point "
            f"is the best one of every {pace[0]}.",
        )


def weights(groups: Mapping[str, Lines]) -> Iterator[Finding]:
    """Yields what is found of the first weights."""
    for name, lines in groups.items():
        other = groups.get(name.replace("default", "kaiming"))
        if other is None or other is lines:
            continue
        yield Finding(
            "Kaiming's weights generalise better than PyTorch's default ones (Tables 4 and 5).",
            f"{name}: {percent(lines, FITRE, DEFAULTS, SGD)} with FITRE, newtriton's defaults and "
            f"SGD; {percent(other, FITRE, DEFAULTS, SGD)} with Kaiming's.",
            verdict([other.accuracy(m) > lines.accuracy(m) for m in (FITRE, SGD)]),
            "the loss at the end of all epochs: "
            + "; ".join(
                three(g, lambda m, g=g: g.value(m, lambda row: row["loss"][-1]))
                for g in (lines, other)
            )
            + ".",
        )


def quasi_newton(groups: Mapping[str, Lines]) -> Iterator[Finding]:
    """Yields what is found of L-BFGS."""
    for name, lines in groups.items():
        methods = [method for method in L_BFGS if lines.of(method)]
        if not methods:
            continue
        best = max(methods, key=lines.accuracy)
        goal = min(lines.accuracy(FITRE), lines.accuracy(best)) - 0.01
        times = [lines.seconds_to(method, goal) for method in (FITRE, best)]
        yield Finding(
            "L-BFGS with 20 gradients is about 8 times slower than FITRE, and its test accuracy is "
            "significantly lower (Table 9).",
            f"{name}: best accuracies {percent(lines, FITRE, DEFAULTS, *methods)} with FITRE, "
            f"newtriton's defaults, {' and '.join(methods)}; {number(times[0], ' s')} and "
            f"{number(times[1], ' s')} to {goal:.1%} with FITRE and {best}.",
            verdict([lines.accuracy(FITRE) > lines.accuracy(best) + CLOSE]),
            "the paper does not say on what L-BFGS steps, a batch or all data, so that both are "
            "here, with one iteration of strong Wolfe's search a step. An epoch of all data is "
            "one iteration.",
        )


def cases(groups: Mapping[str, Lines]) -> Iterator[Finding]:
    """Yields what is found of the three cases."""
    methods = [f"FITRE {case}" for case in CASES]
    yield Finding(
        "Algorithm 1 has two cases, along the natural gradient alone or the better of it and the "
        "gradient; section 3 speaks of their combination. No table sets them side by side.",
        f"best accuracy and last loss of {', '.join(CASES)}: "
        + listed(
            {name: lines for name, lines in groups.items() if lines.of(methods[-1])},
            lambda g: (
                f"{percent(g, *methods)} and "
                + ", ".join(number(g.loss(method)) for method in methods)
            ),
        ),
        "open",
        "there is no number to compare with; all three have the point that is best for the first.",
    )


def convergence_figure(rows: list[Row]) -> Figure:
    """Draws loss and accuracy by second and epoch, a line of pictures for each problem."""
    groups = grouped(rows)
    made, axes = panels(len(groups), 4)
    for line, (name, lines) in zip(axes, groups.items(), strict=True):
        named = [row | {"line": label(row, lines)} for row in lines.rows]
        for ax, (y, x) in zip(
            line, product(("loss", "accuracy"), ("seconds", "epoch")), strict=True
        ):
            curves(ax, named, x, y, by="line", log=y == "loss")
            ax.set(title=name)
    return made


def label(row: Row, lines: Lines) -> str:
    """Returns what the legend calls a row."""
    every = row.get("every", lines.every)
    pace = f", every {every}" if every != lines.every else ""
    return row["method"] + pace + (f", λ = {row['decay']:g}" if row["decay"] else "")


CONVERGENCE = Experiment(
    "Does FITRE learn faster than Nesterov's momentum and L-BFGS, by epoch and by second?",
    "Tables 4–9",
    convergence,
    convergence_figure,
    convergence_findings,
)


# --- fitre-batch-norm ----------------------------------------------------------------------------

LEARNED = 0.1  # the training loss to which epochs are counted
Pairs = dict[str, tuple[Lines, Lines]]


def paired(rows: Iterable[Row]) -> Pairs:
    """Returns the curves of each problem without batch norm and with it."""
    groups = grouped(rows)
    names = [(name, name.replace(",", " with batch norm,", 1)) for name in groups]
    return {name: (groups[name], groups[other]) for name, other in names if other in groups}


def trained_rates(lines: Lines, best: float) -> str:
    """Returns how many of SGD's rates come within two points of an accuracy."""
    first = min(row["seed"] for row in lines.searched)
    found = [r for r in lines.searched if r["method"] == SGD and r["seed"] == first]
    return f"{sum(r['best_accuracy'] >= best - 2 * CLOSE for r in found)} of {len(found)}"


def learned(lines: Lines, method: str) -> float:
    """Returns the epochs to a training loss of `LEARNED`."""
    return lines.value(method, lambda row: first_below(row, LEARNED, at="epoch"))


def batch_norm_findings(rows: list[Row]) -> list[Finding]:
    """Returns what the rows say of Table 11."""
    return [f for name, pair in paired(rows).items() for f in norm_found(name, *pair)]


def norm_found(name: str, without: Lines, norm: Lines) -> Iterator[Finding]:
    """Yields the findings on a problem without batch norm and with it."""

    def both(get: Callable[[Lines], str]) -> str:
        return f"{get(without)} without and {get(norm)} with it"

    def described(method: str) -> str:
        return (
            f"best accuracy {both(lambda g: percent(g, method))}; epochs to a training loss of "
            f"{LEARNED}: {both(lambda g: number(learned(g, method)))}"
        )

    best = max(g.accuracy(m) for g in (without, norm) for m in (FITRE, SGD))
    gains = [norm.accuracy(method) - without.accuracy(method) for method in (SGD, FITRE)]
    yield Finding(
        "without batch norm SGD tends to diverge or makes no significant progress (Table 11).",
        f"{name}: SGD's best rate: {described(SGD)}. Rates within 2 points of {best:.1%}: "
        f"{both(lambda g: trained_rates(g, best))}.",
        verdict([gains[0] > 5 * CLOSE]),
        "more than 5 points of accuracy count as no significant progress. At the start the "
        f"gradient by the first layer's weights has norm "
        f"{both(lambda g: number(g.value(SGD, lambda row: row['first_gradient'])))}.",
    )
    same = abs(gains[1]) <= 2 * CLOSE and learned(without, FITRE) <= 2 * learned(norm, FITRE)
    yield Finding(
        "batch norm is irrelevant to how FITRE minimises the loss (Table 11).",
        f"{name}: FITRE's best point: {described(FITRE)}. At newtriton's defaults: "
        f"{described(DEFAULTS)}. Milliseconds of an update: "
        f"{both(lambda g: number(g.update(FITRE)))}.",
        verdict([same]),
        "accuracies within 2 points and epochs within a factor of 2 count as equal."
        + "".join(
            f" Case {case}: {described(f'FITRE {case}')}."
            for case in CASES[1:]
            if without.of(f"FITRE {case}")
        ),
    )


def batch_norm_figure(rows: list[Row]) -> Figure:
    """Draws losses and accuracies with and without batch norm, and SGD's rates."""
    pairs = paired(rows)
    made, axes = panels(len(pairs), 3)
    for line, (name, pair) in zip(axes, pairs.items(), strict=True):
        named = [
            row | {"line": row["method"] + ", batch norm" * row["batch_norm"]}
            for method in (FITRE, DEFAULTS, SGD)
            for lines in pair
            for row in lines.of(method)
        ]
        curves(line[0], named, "epoch", "loss", by="line")
        curves(line[1], named, "epoch", "accuracy", by="line", log=False)
        for lines, what in zip(pair, ("SGD", "SGD, batch norm"), strict=True):
            found = sorted(
                (row["rate"], row["best_accuracy"])
                for row in lines.searched
                if row["method"] == SGD and row["seed"] == lines.searched[0]["seed"]
            )
            line[2].plot(*zip(*found, strict=True), "o-", label=what)
        line[2].set(xscale="log", xlabel="learning rate", ylabel="best accuracy")
        line[2].grid(alpha=0.3)
        line[2].legend(fontsize="small")
        for ax in line:
            ax.set_title(name)
    return made


BATCH_NORM = Experiment(
    "Does FITRE need batch norm, and does SGD?",
    "Table 11",
    batch_norm,
    batch_norm_figure,
    batch_norm_findings,
)

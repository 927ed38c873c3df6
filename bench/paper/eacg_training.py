"""EA-CG's training runs: which curvature and which solver, on two criteria, against SGD.

A method is tried at the points of the paper's grid from one seed, and run from all seeds at the one
with the lowest training loss. The default network has the paper's form and three hidden layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

import newtriton as nt

from ...runtime.curvatures.kronecker import KroneckerCurvature
from ...runtime.rules.fixed import Fixed
from ...runtime.solvers.block_cg import BlockCG
from ...runtime.solvers.direct import KFI
from ..protocol.data import Chosen, choose
from ..protocol.experiment import Experiment, Finding, Row, Setting, Verdict
from ..protocol.figures import curves, panels
from ..protocol.training import curve, first_below, least

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The paper's Fisher matrix takes the labels that are given, its Gauss–Newton matrix is KFRA's.
KINDS = {"Fisher": "empirical", "GN": "kfra", "PCH-1": "pch-1", "PCH-2": "pch-2"}
CRITERIA: dict[str, Callable[[], nt.Loss]] = {
    "cross entropy": nt.CrossEntropyLoss,
    "eq. 14": nt.SigmoidMarginLoss,
}
RATES, ALPHAS = (0.05, 0.1, 0.2), (0.01, 0.02, 0.05, 0.1)
LIMITS, TOLERANCES = (5, 10, 20, 50), (1e-10, 1e-5, 1e-2, 1e-1)
WIDTHS = (1024, 512, 256, 128, 64, 32, 16)
MOMENTUM = 0.9  # of SGD


@dataclass(frozen=True)
class Method:
    """What trains.

    Attributes:
        solver: "KFI", "CG" (eq. 11a), "EA-CG" (eq. 11b), "SGD", or "SGD at η/α".
        curvature: one of `KINDS`; nothing for SGD.
    """

    solver: str
    curvature: str = ""

    @property
    def name(self) -> str:
        """The name that rows and pictures have."""
        return f"{self.curvature} × {self.solver}" if self.curvature else self.solver

    def suits(self, criterion: str) -> bool:
        """Whether it goes with a criterion: Gauss–Newton matrices need a convex one."""
        return self.curvature != "GN" or CRITERIA[criterion]().convex

    def points(self, setting: Setting) -> list[dict[str, Any]]:
        """Returns the points of its grid; the limits of CG vary at the full size alone."""
        full = setting.size == "full"
        axes: dict[str, Sequence[float]] = {
            "lr": setting.of(smoke=RATES[1:2], default=RATES, full=RATES),
            "batch": setting.of(smoke=(100,), default=(100,), full=(100, 500, 1000)),
        }
        if self != BASELINE:
            axes["alpha"] = setting.of(smoke=ALPHAS[:1], default=ALPHAS, full=ALPHAS)
        if "CG" in self.solver:
            axes["limit"] = LIMITS if full else (10,)
            axes["tolerance"] = TOLERANCES if full else (1e-5,)
        return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]

    def optimizer(self, model: nt.Model, point: dict[str, Any]) -> Any:
        """Returns the optimizer of a point."""
        lr = point["lr"]
        if self == BASELINE:
            return nt.TorchOptimizer(model, torch.optim.SGD, lr=lr, momentum=MOMENTUM)
        alpha = point["alpha"]
        if self == CONTROL:
            return nt.TorchOptimizer(model, torch.optim.SGD, lr=lr / alpha)
        kind = KINDS[self.curvature]
        if self.solver == "EA-CG":
            stop = {"limit": point["limit"], "tolerance": point["tolerance"]}
            return nt.EACG(model, lr, alpha, factors=kind, noise=None, **stop)
        factors = KroneckerCurvature(model, kind, moving_average=0.0, burn_in=0, apart=True)
        if self.solver == "KFI":
            return nt.SecondOrder(model, factors, KFI(), Fixed(lr), alpha)
        solver = BlockCG(point["limit"], point["tolerance"])
        return nt.SecondOrder(model, factors, solver, Fixed(lr), alpha, form="convex")


BASELINE = Method("SGD")
CONTROL = Method("SGD at η/α")  # what EA-CG is where no curvature is: all along the mean input
BY_CURVATURE = [BASELINE, CONTROL, *(Method(s, c) for s, c in product(("KFI", "EA-CG"), KINDS))]
SOLVED = ("PCH-1", "Fisher")  # the curvatures with which solvers are compared
BY_SOLVER = [
    *(BASELINE, CONTROL),
    *(Method(s, c) for c, s in product(SOLVED, ("KFI", "CG", "EA-CG"))),
]


# --- rows -----------------------------------------------------------------------------------------


def trained(
    data: Chosen, widths: tuple[int, ...], criterion: str, method: Method,
    point: dict[str, Any], seed: int, epochs: int,
) -> Row:  # fmt: skip
    """Returns the row of a run."""
    net, shape = nt.models.mlp(widths), tuple(data.train.x.shape[1:])
    model = nt.compile(net, shape, CRITERIA[criterion](), backend="aten", seed=seed)
    batches = nt.Batches(*data.train, batch_size=point["batch"], seed=seed)
    optimizer = method.optimizer(model, point)
    found = curve(model, optimizer, batches, [data.train], [data.test], epochs)
    features = data.train.x[0].numel()
    network = "-".join(map(str, (features, *widths, 10)))
    what = {"data": data.name, "network": network, "criterion": criterion, "method": method.name}
    return {"part": "training", **what, "seed": seed, **point, **found}


def training(setting: Setting, methods: Iterable[Method]) -> list[Row]:
    """Returns the rows of methods on both criteria, from all seeds, at their best points."""
    data = choose(setting, "cifar10").at_most(setting.of(smoke=1500, default=1500, full=None))
    widths = setting.of(smoke=(16,), default=(64, 32, 16), full=WIDTHS)
    tries, epochs = setting.of(smoke=(1, 1), default=(10, 40), full=(200, 200))
    rows: list[Row] = []
    for criterion, method in product(CRITERIA, methods):
        if not method.suits(criterion):
            continue
        run = data, widths, criterion, method
        best, *others = points = method.points(setting)
        if others:
            tried = [final(trained(*run, point, setting.seeds[0], tries)) for point in points]
            best = points[tried.index(min(tried))]
        rows += [trained(*run, best, seed, epochs) for seed in setting.seeds]
    return rows


def step_times(setting: Setting) -> list[Row]:
    """Returns the seconds of a step of each solver on the paper's network, with PCH-1."""
    widths = setting.of(smoke=(32, 16), default=WIDTHS, full=WIDTHS)
    x, y = torch.rand(100, 3, 32, 32), torch.arange(100) % 10
    rows: list[Row] = []
    for method in (BASELINE, *(Method(s, "PCH-1") for s in ("KFI", "CG", "EA-CG"))):
        model = nt.compile(nt.models.mlp(widths), (3, 32, 32), nt.CrossEntropyLoss(), seed=0)
        point = {"lr": 0.1, "alpha": 0.05, "limit": 10, "tolerance": 1e-5}
        optimizer, seconds = method.optimizer(model, point), []
        for _ in range(3):
            start = perf_counter()
            optimizer.step(x, y)
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(perf_counter() - start)
        network = "-".join(map(str, (3072, *widths, 10)))
        what = {"part": "step", "network": network, "method": method.name}
        rows.append({**what, "seconds_per_step": min(seconds)})
    return rows


def curvature_rows(setting: Setting) -> list[Row]:
    """Returns the rows of all curvatures with both solvers."""
    return training(setting, BY_CURVATURE)


def solver_rows(setting: Setting) -> list[Row]:
    """Returns the rows of all solvers with two curvatures, and the times of their steps."""
    return [*step_times(setting), *training(setting, BY_SOLVER)]


# --- the picture ----------------------------------------------------------------------------------


def figure(rows: list[Row]) -> Figure:
    """Returns losses by second and by epoch, and accuracy by epoch, for each criterion."""
    rows = [row for row in rows if row["part"] == "training"]
    made, axes = panels(len(CRITERIA), 3)
    shown = (("seconds", "loss"), ("epoch", "loss"), ("epoch", "accuracy"))
    for line, criterion in zip(axes, CRITERIA, strict=True):
        own = [row for row in rows if row["criterion"] == criterion and "fault" not in row]
        for each, (x, y) in zip(line, shown, strict=True):
            curves(each, own, x, y, log=y == "loss")
            each.set_title(criterion)
    return made


# --- what the rows say ----------------------------------------------------------------------------

GIVEN_UP = (  # 1/(1 + e^{−δε}) and 1/(1 + e^{δ(1−ε)}) for δ = 5, ε = 0.2
    "A sample that is wrong for certain costs 0.731 and has no gradient, one that is right 0.018: "
    "a run that ends near 0.09 has given up one class of ten, and some leave that sooner."
)
SIMILAR = 1.5  # the ratio of epochs to a level up to which curves count as similar
Measure = Callable[[list[Row]], list[float]]  # a number for each row, the smaller the better


def final(row: Row) -> float:
    """Returns the loss after the last epoch, infinite where the run had a fault."""
    return inf if "fault" in row or row["loss"][-1] is None else row["loss"][-1]


def losses(rows: list[Row]) -> list[float]:
    """Returns the losses after the last epoch."""
    return [final(row) for row in rows]


def wrong(rows: list[Row]) -> list[float]:
    """Returns the shares of test samples that are wrong after the last epoch, in per cent."""
    return [inf if "fault" in row else 100.0 * (1.0 - row["accuracy"][-1]) for row in rows]


def _until(rows: list[Row], at: str) -> list[float]:
    level = max(least(row) for row in rows)
    reached = [first_below(row, level, at=at) for row in rows]
    return [inf if value is None else float(value) for value in reached]


def epochs(rows: list[Row]) -> list[float]:
    """Returns after how many epochs each loss is as low as all become."""
    return _until(rows, "epoch")


def seconds(rows: list[Row]) -> list[float]:
    """Returns after how many seconds each loss is as low as all become."""
    return _until(rows, "seconds")


def judged(holds: Sequence[bool]) -> Verdict:
    """Returns what comparisons say of a claim: it agrees where all hold, and is open where some."""
    if all(holds):
        return "agrees"
    return "open" if any(holds) else "contradicts"


def measured(
    rows: list[Row], criterion: str, methods: Sequence[Method], measure: Measure
) -> dict[str, list[float]]:
    """Returns the numbers of methods by name, one for each seed, each seed's measured together."""
    chosen = [row for row in rows if row.get("criterion") == criterion]
    own = {m.name: [row for row in chosen if row["method"] == m.name] for m in methods}
    by_seed = [measure([*group]) for group in zip(*own.values(), strict=True)]
    return dict(zip(own, map(list, zip(*by_seed, strict=True)), strict=True))


def medians(numbers: dict[str, list[float]], unit: str) -> str:
    """Returns the medians over seeds by method."""
    return ", ".join(f"{name} {median(values):.3g}{unit}" for name, values in numbers.items())


def beats(numbers: dict[str, list[float]], first: str, others: Iterable[str]) -> list[bool]:
    """Returns whether a method is better than each of the others, for each seed."""
    return [a < b for other in others for a, b in zip(numbers[first], numbers[other], strict=True)]


def of_solvers(
    rows: list[Row], criterion: str, better: str, worse: str, measure: Measure, unit: str,
) -> tuple[str, list[bool]]:  # fmt: skip
    """Returns the medians of two solvers, and whether one is better, by curvature and seed."""
    holds: list[bool] = []
    texts: list[str] = []
    for curvature in SOLVED:
        pair = Method(better, curvature), Method(worse, curvature)
        numbers = measured(rows, criterion, pair, measure)
        holds += beats(numbers, pair[0].name, [pair[1].name])
        texts.append(medians(numbers, unit))
    return f"{'; '.join(texts)} (medians over seeds; {sum(holds)} of {len(holds)} pairs).", holds


def ratios(numbers: dict[str, list[float]]) -> list[float]:
    """Returns the largest of all methods' numbers over the smallest, for each seed."""
    return [max(each) / min(each) for each in zip(*numbers.values(), strict=True)]


def chosen(rows: list[Row], criterion: str) -> str:
    """Says which points of the grid methods were run at."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.get("criterion") == criterion and row["method"] != BASELINE.name:
            found.setdefault(f"η = {row['lr']}, α = {row['alpha']}", []).append(row["method"])
    texts = [f"{point} for {', '.join(dict.fromkeys(names))}" for point, names in found.items()]
    return f"The grid chose {'; '.join(texts)}."


def control(rows: list[Row], criterion: str) -> str:
    """Says how SGD at the rate η/α does, which is EA-CG without any curvature."""
    own = [r for r in rows if r["method"] == CONTROL.name and r["criterion"] == criterion]
    rate, end = own[0]["lr"] / own[0]["alpha"], median(losses(own))
    return f"plain SGD at the grid's best rate η/α, {rate:g}, ends at a loss of {end:.2g}"


# --- curvatures -----------------------------------------------------------------------------------


def similar(rows: list[Row]) -> Finding:
    """Returns whether curvatures do alike with EA-CG."""
    criterion = "cross entropy"
    methods = [Method("EA-CG", curvature) for curvature in KINDS]
    numbers = measured(rows, criterion, methods, epochs)
    found = ratios(numbers)
    ends = measured(rows, criterion, methods, losses)
    return Finding(
        "with cross entropy on CIFAR-10 the curvatures do alike with EA-CG (Figure 1).",
        f"epochs until the loss is as low as all become: {medians(numbers, '')}, largest over "
        f"smallest {min(found):.2g} to {max(found):.2g} by seed; losses at the end "
        f"{medians(ends, '')}.",
        judged([ratio <= SIMILAR for ratio in found]),
        f"alike means a ratio of at most {SIMILAR}. E[h]E[h]ᵀ has rank one, so that but for the "
        "mean input's direction steps are those of SGD at the rate η/α, whatever the curvature: "
        f"{control(rows, criterion)}. What curvature gives is that rates above it are stable, and "
        f"how far differs. {chosen(rows, criterion)}",
    )


def fastest(rows: list[Row]) -> Finding:
    """Returns whether KFI is fastest with the Fisher matrix."""
    criterion = "cross entropy"
    methods = [Method("KFI", curvature) for curvature in ("Fisher", "GN", "PCH-1")]
    numbers = measured(rows, criterion, methods, epochs)
    fisher, *others = (method.name for method in methods)
    holds, spread = beats(numbers, fisher, others), ratios(numbers)
    return Finding(
        "with cross entropy on CIFAR-10, KFI converges faster with the Fisher matrix than with GN "
        "and PCH (Figure 1).",
        f"epochs until the loss is as low as all become: {medians(numbers, '')}.",
        judged(holds),
        f"it is ahead in {sum(holds)} of {len(holds)} pairs, and the slowest takes "
        f"{min(spread):.2g} to {max(spread):.2g} times the epochs of the fastest, by seed.",
    )


def best(rows: list[Row]) -> Finding:
    """Returns whether EA-CG with the Fisher matrix is best with eq. 14."""
    criterion = "eq. 14"
    first, *others = (Method(s, c) for s, c in product(("EA-CG", "KFI"), ("Fisher", "PCH-1")))
    numbers = measured(rows, criterion, [first, *others], losses)
    holds = beats(numbers, first.name, [method.name for method in others])
    return Finding(
        "with eq. 14 on CIFAR-10, EA-CG with the Fisher matrix has the best performance "
        "(Figures 5 and 7).",
        f"losses at the end {medians(numbers, '')}.",
        judged(holds),
        f"it is ahead in {sum(holds)} of {len(holds)} pairs. {GIVEN_UP} And "
        f"{control(rows, criterion)}. {chosen(rows, criterion)}",
    )


def of_pch(rows: list[Row], criterion: str) -> Finding:
    """Returns whether PCH-1 and PCH-2 do alike."""
    found, texts = list[float](), list[str]()
    for solver in ("KFI", "EA-CG"):
        methods = [Method(solver, curvature) for curvature in ("PCH-1", "PCH-2")]
        numbers = measured(rows, criterion, methods, epochs)
        found += ratios(numbers)
        texts.append(medians(numbers, ""))
    return Finding(
        f"with {criterion}, PCH-1 and PCH-2 have similar losses and accuracies (Figures 9 and 11).",
        f"epochs until the loss is as low as both become: {'; '.join(texts)}.",
        judged([ratio <= SIMILAR for ratio in found]),
        f"alike means a ratio of at most {SIMILAR}; it is {min(found):.2g} to {max(found):.2g}. "
        "They differ in the diagonal E[φ''⊙ā] alone, where that is negative.",
    )


def curvature_findings(rows: list[Row]) -> list[Finding]:
    """Returns what the rows say of Fisher, Gauss–Newton and PCH matrices."""
    return [similar(rows), fastest(rows), best(rows), *(of_pch(rows, c) for c in CRITERIA)]


# --- solvers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """That a solver is better than another.

    Attributes:
        criterion: the criterion.
        better: the solver that is better.
        worse: the other.
        measure: the number that is compared.
        unit: its unit.
        paper: the paper's words.
        why: what was compared.
    """

    criterion: str
    better: str
    worse: str
    measure: Measure
    unit: str
    paper: str
    why: str

    def finding(self, rows: list[Row]) -> Finding:
        """Returns what the rows say of it."""
        pair = self.better, self.worse
        ours, holds = of_solvers(rows, self.criterion, *pair, self.measure, self.unit)
        return Finding(self.paper, ours, judged(holds), self.why)


CLAIMS = (
    Claim(
        "cross entropy", "EA-CG", "KFI", seconds, " s",
        "with cross entropy on CIFAR-10, EA-CG converges faster by the clock than KFI (Figure 1).",
        "seconds until the loss is as low as all become. On so small a network a step's time is "
        "not that of its arithmetic, as it is on the paper's: see the last finding.",
    ),
    Claim(
        "cross entropy", "KFI", "EA-CG", epochs, "",
        "with cross entropy on CIFAR-10, KFI's loss decreases faster by epochs (Figure 3).",
        "epochs until the loss is as low as all become. KFI divides by all of E[hhᵀ] ⊗ G, EA-CG by "
        "what lies along E[h]; elsewhere EA-CG's steps are the gradient's at the long rate η/α.",
    ),
    Claim(
        "eq. 14", "EA-CG", "KFI", losses, "",
        "with eq. 14 on CIFAR-10, EA-CG outperforms KFI in training loss by the clock (Figure 5), "
        "and by epochs they can hardly be told apart (Figure 7).",
        f"losses after the last epoch. {GIVEN_UP}",
    ),
    Claim(
        "eq. 14", "EA-CG", "KFI", wrong, " %",
        "with eq. 14 on CIFAR-10, EA-CG has better test accuracy than KFI (Figures 5 and 7).",
        "test samples that are wrong after the last epoch: a class that was given up decides.",
    ),
)  # fmt: skip


def accurate(rows: list[Row]) -> Finding:
    """Returns whether EA-CG has better test accuracy than KFI on cross entropy."""
    criterion = "cross entropy"
    ours, holds = of_solvers(rows, criterion, "EA-CG", "KFI", wrong, " %")
    full = measured(rows, criterion, [Method("CG", curvature) for curvature in SOLVED], wrong)
    return Finding(
        "with cross entropy on CIFAR-10, EA-CG has better test accuracy than KFI (Figures 1 and "
        "3).",
        ours,
        judged(holds),
        "test samples that are wrong after the last epoch; one sample of digits is 0.28 %. With "
        f"all of E[hhᵀ] in place of E[h]E[h]ᵀ, that is with eq. 11a, it is {medians(full, ' %')}: "
        "what lies between is the approximation, what is left the form of the damping.",
    )


def against_sgd(rows: list[Row]) -> Finding:
    """Returns whether EA-CG is competitive with SGD."""
    criterion = "cross entropy"
    ours = Method("EA-CG", "PCH-1")
    by_epoch = measured(rows, criterion, [ours, BASELINE], epochs)
    by_second = measured(rows, criterion, [ours, BASELINE], seconds)
    holds = [*beats(by_epoch, ours.name, ["SGD"]), *beats(by_second, "SGD", [ours.name])]
    return Finding(
        "on CIFAR-10 SGD is faster by the clock, while EA-CG with PCH is competitive with it "
        "(Figures 1 and 3, and the conclusion).",
        f"until the loss is as low as both become: {medians(by_epoch, ' epochs')}; "
        f"{medians(by_second, ' s')}.",
        judged(holds),
        "it agrees where EA-CG is ahead by epochs and SGD by the clock, for every seed. Besides, "
        f"{control(rows, criterion)}: long steps alone bring some of it. {chosen(rows, criterion)}",
    )


def costs(rows: list[Row]) -> Finding:
    """Returns what a step costs on the paper's network."""
    times = {row["method"]: row["seconds_per_step"] for row in rows if row["part"] == "step"}
    cg, full, inverse = (times[f"PCH-1 × {s}"] for s in ("EA-CG", "CG", "KFI"))
    network = next(row["network"] for row in rows if row["part"] == "step")
    shown = ", ".join(f"{name} {1e3 * each:.0f} ms" for name, each in times.items())
    return Finding(
        "a step of EA-CG takes O(|CG| Σ n_t² + 2 n_t n_{t−1}), one of KFI cubes of n_t (Table 1); "
        "EA-CG is much more efficient than CG on E[hhᵀ].",
        f"{shown} for a step on 100 images of {network}.",
        judged([cg < full, cg < inverse]),
        "the arithmetic is counted by a test as the paper counts it, and these are its seconds.",
    )


def solver_findings(rows: list[Row]) -> list[Finding]:
    """Returns what the rows say of KFI, CG, EA-CG and SGD."""
    found = [claim.finding(rows) for claim in CLAIMS]
    return [*found, accurate(rows), against_sgd(rows), costs(rows)]


CURVATURE = Experiment(
    "Which curvature trains best, Fisher, Gauss–Newton or PCH, with KFI and with EA-CG?",
    "Figures 1, 3, 5, 7, 9 and 11",
    curvature_rows,
    figure,
    curvature_findings,
)
SOLVER = Experiment(
    "Which solver trains best, KFI, CG or EA-CG, by epochs and by the clock?",
    "Figures 1, 3, 5 and 7, Table 1",
    solver_rows,
    figure,
    solver_findings,
)

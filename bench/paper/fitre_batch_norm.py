"""What batch norm changes for FITRE and for SGD (Kylasa et al. 2020, Table 11)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

from ...compiler.layers.models import VGG
from ..protocol.experiment import Experiment, Finding, Row, Setting
from ..protocol.figures import curves, one_legend, panels
from ..protocol.training import first_below
from .fitre_convergence import CLOSE, Lines, grouped, number, percent, verdict
from .fitre_training import CASES, DEFAULTS, FITRE, SGD, Problem, measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEARNED = 0.1  # the training loss to which epochs are counted
Pairs = dict[str, tuple[Lines, Lines]]


def measure(setting: Setting) -> list[Row]:
    """Returns the rows of `fitre-batch-norm`."""
    depths = setting.of(smoke=(11,), default=(11,), full=tuple(VGG))
    all_cases = {"kaiming": CASES, "default": setting.of(smoke=(), default=CASES[:1], full=CASES)}
    problems = [
        Problem("Table 11", "cifar100", depth, init, norm, cases=cases)
        for depth, (init, cases), norm in product(depths, all_cases.items(), (False, True))
        if cases
    ]
    return measured(setting, problems)


def paired(rows: Sequence[Row]) -> Pairs:
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


def findings(rows: list[Row]) -> list[Finding]:
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

    def first(field: str) -> str:
        return both(lambda g: number(g.value(SGD, lambda row: row[field])))

    def same(method: str) -> bool:
        epochs = sorted(learned(g, method) for g in (without, norm))
        gain = norm.accuracy(method) - without.accuracy(method)
        return abs(gain) <= 2 * CLOSE and epochs[1] <= 2 * epochs[0] < float("inf")

    best = max(g.accuracy(m) for g in (without, norm) for m in (FITRE, SGD))
    yield Finding(
        "without batch norm SGD tends to diverge or makes no significant progress (Table 11).",
        f"{name}: SGD's best rate: {described(SGD)}. Rates within 2 points of {best:.1%}: "
        f"{both(lambda g: trained_rates(g, best))}.",
        verdict([norm.accuracy(SGD) - without.accuracy(SGD) > 5 * CLOSE]),
        "more than 5 points of accuracy count as no significant progress. At the start the "
        f"gradient by the first layer's weights has norm {first('first_gradient')}.",
    )
    yield Finding(
        "batch norm is irrelevant to how FITRE minimises the loss (Table 11).",
        f"{name}: FITRE's best points: {described(FITRE)}. At newtriton's defaults: "
        f"{described(DEFAULTS)}. Milliseconds of an update: "
        f"{both(lambda g: number(g.update(FITRE)))}.",
        verdict([same(FITRE)]),
        "accuracies within 2 points and epochs within a factor of 2 count as equal; those at "
        f"newtriton's defaults are {'equal' if same(DEFAULTS) else 'not equal'}. At the "
        f"start the first layer's mean curvature is {first('first_curvature')}, and γ = "
        f"{both(lambda g: number(g.of(FITRE)[0]['damping']))}: where γ is larger, the direction "
        "is the gradient's, which depends on the parametrisation. Newtriton's default γ is a "
        "share of the mean curvature."
        + "".join(
            f" Case {case}: {described(f'FITRE {case}')}."
            for case in CASES[1:]
            if without.of(f"FITRE {case}")
        ),
    )


def figure(rows: list[Row]) -> Figure:
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
        curves(line[1], named, "epoch", "loss", by="line")
        curves(line[2], named, "epoch", "accuracy", by="line", log=False)
        one_legend(line[1:])
        for lines, what in zip(pair, ("SGD", "SGD, batch norm"), strict=True):
            found = sorted(
                (row["rate"], row["best_accuracy"])
                for row in lines.searched
                if row["method"] == SGD and row["seed"] == lines.searched[0]["seed"]
            )
            line[0].plot(*zip(*found, strict=True), "o-", label=what)
        line[0].set(xscale="log", xlabel="learning rate", ylabel="best accuracy")
        line[0].grid(alpha=0.3)
        line[0].legend(fontsize="small")
        for ax in line:
            ax.set_title(name)
    return made


BATCH_NORM = Experiment(
    "Does FITRE need batch norm, and does SGD?",
    "Table 11",
    measure,
    figure,
    findings,
)

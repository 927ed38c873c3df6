"""KFRA's autoencoders: Gauss–Newton methods against a grid of Adam.

Where the paper gives no number, the presets' holds: γ and τ start at 0.01. Of K-FAC's paper, which
it follows, they would start at 150, from which they need a hundred updates to fall to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

import newtriton as nt

from ..first_order import Adam
from ..protocol.data import choose
from ..protocol.experiment import Experiment, Finding, Row, Setting, Verdict
from ..protocol.figures import curves, panels
from ..protocol.training import curve_by_update, first_below, least, marks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Make = Callable[[nt.Model], Any]

# The paper's method as Algorithm 1 has it: factors of every batch, no momentum, no average.
LITERAL: dict[str, Any] = {"noise": None, "momentum": False, "every": 1}
LAST: dict[str, Any] = LITERAL | {"moving_average": 0.0, "burn_in": 0}
AVERAGED: dict[str, Any] = LITERAL | {"moving_average": 0.9}
METHODS: dict[str, Make] = {
    "KFRA": partial(nt.KFRA, **LAST),
    "KFRA, averaged": partial(nt.KFRA, **AVERAGED),
    "KFAC": partial(nt.KFAC, **LAST),
    "KFAC, averaged": partial(nt.KFAC, **AVERAGED),
    "KFRA, with momentum": partial(nt.KFRA, **AVERAGED | {"momentum": True}),
    "newtriton's KFRA": nt.KFRA,
    "newtriton's KFAC": nt.KFAC,
}
COMPARED = ("KFRA", "KFAC")  # what the paper compares with Adam
UNDRAWN = ("KFRA, with momentum", "KFLR")
EXACT: dict[str, Make] = {"KFLR": partial(nt.KFLR, **LAST)}  # a backward copy for every pixel
FIRST = 8  # updates of Adam for one of the others: 40,000 for 5,000


@dataclass(frozen=True)
class Images:
    """Images as the autoencoders take them.

    Attributes:
        x: the samples, N×D in [0, 1].
        name: what rows say of them.
    """

    x: torch.Tensor
    name: str


@dataclass(frozen=True)
class Task:
    """An autoencoder's data set and loss.

    Attributes:
        loss: makes the loss.
        updates: the paper's number of updates of second-order methods.
        count: how many images the paper trains on.
    """

    loss: Callable[[], nt.Loss]
    updates: int
    count: int


TASKS = {
    "CURVES": Task(nt.BCEWithLogitsLoss, 5000, 20000),
    "FACES": Task(nt.MSELoss, 20000, 103500),
    "MNIST": Task(nt.BCEWithLogitsLoss, 5000, 50000),
}


def images(setting: Setting, name: str) -> Images:
    """Returns the images of a task; smaller sizes have fewer, and curves in half resolution."""
    count = setting.of(smoke=80, default=2000, full=TASKS[name].count)
    if name != "CURVES":
        chosen = choose(setting, name.lower(), "none")
        return Images(in_unit_range(chosen.train.x[:count].flatten(1)), chosen.name)
    x = nt.curves(count).x
    if setting.size == "full":
        return Images(x, "curves")
    return Images(avg_pool2d(x.view(-1, 28, 28), 2).flatten(1), f"{count} curves of 14×14 pixels")


def in_unit_range(x: torch.Tensor) -> torch.Tensor:
    """Returns images with values in [0, 1], where they are scaled otherwise."""
    low, high = x.min(), x.max()
    return x if low >= 0 and high <= 1 else (x - low) / (high - low)


def hidden(setting: Setting) -> tuple[int, ...]:
    """Returns the widths down to the code: the paper's, or a tenth of them and a code of 6."""
    return setting.of(smoke=(12, 8, 6, 3), default=(100, 50, 25, 6), full=(1000, 500, 250, 30))


def adams(setting: Setting, updates: int) -> dict[str, Make]:
    """Returns Adam at its default rate, and what makes each Adam of the grid, by name.

    The paper's grid: rates 2⁻⁶ … 2⁻¹³, halved every 100, 50, 25, 12.5 or 6.25 % of the updates.
    """
    rates = [2.0**-k for k in setting.of(smoke=(6, 8), default=range(6, 14), full=range(6, 14))]
    shares = setting.of(smoke=(1.0,), default=(1.0, 0.25), full=(1.0, 0.5, 0.25, 0.125, 0.0625))
    grid: dict[str, Make] = {}
    for lr, share in product(rates, shares):
        period = max(1, round(share * updates))
        decay = "" if share == 1.0 else f", halved every {period}"
        grid[f"Adam 1/{1 / lr:.0f}{decay}"] = partial(Adam, lr=lr, period=period)
    return {"Adam, default": partial(Adam, lr=1e-3, period=updates), **grid}


def trained(
    model: nt.Model,
    first: torch.Tensor,
    make: Make,
    samples: nt.Samples,
    updates: int,
    seed: int,
    batch_size: int,
) -> Row:
    """Returns the curve of a method from the first weights, in the order of a seed.

    An update before that makes the programs, which no second of the curve is spent on.
    """
    batches = nt.Batches(*samples, batch_size, seed=seed, drop_last=True)
    whole = nt.Batches(*samples, 10000, shuffle=False)
    model.params.copy_(first)
    make(model).step(*(t[:batch_size].to(model.device) for t in samples))
    model.params.copy_(first)
    return curve_by_update(model, make(model), batches, whole, marks(updates))


def measure(setting: Setting) -> list[Row]:
    """Trains every autoencoder by every method."""
    rows: list[Row] = []
    for (name, task), seed in product(TASKS.items(), setting.seeds):
        data = images(setting, name)
        updates = setting.of(smoke=4, default=100, full=task.updates)
        size = setting.of(smoke=40, default=250, full=1000)
        samples = nt.Samples(data.x, data.x)
        net = nt.models.autoencoder(data.x.shape[1], hidden=hidden(setting))
        model = nt.compile(net, (data.x.shape[1],), task.loss(), seed=seed)
        first = model.params.clone()
        grid = adams(setting, FIRST * updates)
        exact = setting.of(smoke=EXACT, default=EXACT, full={})
        for method, make in (METHODS | exact | grid).items():
            key = {"set": name, "data": data.name, "method": method, "seed": seed}
            number = FIRST * updates if method in grid else updates
            rows.append(key | trained(model, first, make, samples, number, seed, size))
    return rows


def of(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    """Returns the rows with these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def last(row: Row) -> float:
    """Returns the last loss of a run; infinite where it has failed."""
    return np.inf if "fault" in row else row["loss"][-1]


def ranking(rows: Sequence[Row]) -> list[str]:
    """Returns the settings of Adam's grid, those with the lowest last loss first."""
    names = dict.fromkeys(row["method"] for row in rows if row["method"].startswith("Adam 1/"))
    return sorted(names, key=lambda name: np.mean([*map(last, of(rows, method=name))]))


def merged(rows: Sequence[Row], names: Sequence[str], method: str) -> list[Row]:
    """Returns the mean curve of several settings for each seed; failed runs are left out."""
    found: list[Row] = []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        runs = [r for r in rows if r["seed"] == seed and r["method"] in names and "fault" not in r]
        if runs:
            means = {k: np.mean([r[k] for r in runs], axis=0) for k in ("seconds", "loss")}
            found.append({"method": method, "seed": seed, "update": runs[0]["update"], **means})
    return found


def drawn(rows: Sequence[Row]) -> list[Row]:
    """Returns a task's curves as figure 2 has them: of Adam's grid the best, and means of more."""
    order = ranking(rows)
    quarter, half = (order[: max(1, len(order) // part)] for part in (4, 2))
    return [
        *(row for row in rows if not row["method"].startswith("Adam 1/")),
        *(row | {"method": "Adam, best"} for row in of(rows, method=order[0])),
        *merged(rows, quarter, "Adam, best quarter"),
        *merged(rows, half, "Adam, best half"),
    ]


def figure(rows: list[Row]) -> Figure:
    """Draws figure 2: losses by second above, by update below."""
    names = list(dict.fromkeys(row["set"] for row in rows))
    made, axes = panels(2, len(names))
    for column, name in enumerate(names):
        shown = [row for row in drawn(of(rows, set=name)) if row["method"] not in UNDRAWN]
        for at, x in zip(axes[:, column], ("seconds", "update"), strict=True):
            curves(at, shown, x, "loss")
            at.set_xscale("log")
            at.xaxis.set_minor_formatter("")
            at.set_title(name)
            at.get_legend().remove()
    made.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return made


def findings(rows: list[Row]) -> list[Finding]:
    """Returns the paper's claims of section 5.1 beside the rows."""
    tasks = {name: of(rows, set=name) for name in dict.fromkeys(row["set"] for row in rows)}
    return [
        _against_adam(tasks, "update", "updates"),
        _against_adam(tasks, "seconds", "seconds"),
        _kfra_against_kfac(tasks),
        _costs(tasks),
        _default_rate(tasks),
        _momentum(tasks),
    ]


def _against_adam(tasks: Mapping[str, Sequence[Row]], at: str, unit: str) -> Finding:
    """Returns how soon KFRA and K-FAC reach the last loss of the best Adam."""
    parts: list[str] = []
    sooner: list[bool] = []
    for name, rows in tasks.items():
        best = of(rows, method=ranking(rows)[0])
        shares: dict[str, list[float]] = {}
        left: dict[str, list[float]] = {}
        for method, adam in product((*COMPARED, "newtriton's KFRA", "newtriton's KFAC"), best):
            (run,) = of(rows, method=method, seed=adam["seed"])
            reached = first_below(run, last(adam), at=at)
            share = np.inf if reached is None else reached / adam[at][-1]
            shares.setdefault(method, []).append(float(share))
            left.setdefault(method, []).append(least(run) / last(adam))
            sooner += [share < 1.0] if method in COMPARED else []
        told = ", ".join(
            f"{method} {_share(found, left[method])}" for method, found in shares.items()
        )
        parts.append(f"{name} (Adam at its best {median(map(last, best)):.4g}): {told}")
    verdict: Verdict = "agrees" if all(sooner) else "open" if any(sooner) else "contradicts"
    if at == "update":
        paper = (
            "KFRA and K-FAC outperform the best Adam of 40 on all three data sets by update, run "
            "for an eighth of its updates (section 5.1, figure 2)."
        )
        why = (
            "both start from the same weights and see the same batches, and the rate and decay of "
            "Adam are chosen by the loss that is compared."
        )
    else:
        paper = (
            "They do so by GPU seconds, too, and more clearly on a CPU (section 5.1, figures 2 "
            "and 4)."
        )
        why = (
            "seconds are those of steps alone; an update of K-FAC or KFRA costs several of Adam's, "
            "and what is won depends on how many updates it saves."
        )
    if verdict != "agrees":
        why += f" In {sum(sooner)} of {len(sooner)} runs KFRA and K-FAC as the paper has them won."
    ours = f"{unit} that they needed for the last loss of the best Adam, as a share of its own, "
    return Finding(paper, ours + "; ".join(parts) + ".", verdict, why)


def _share(shares: Sequence[float], left: Sequence[float]) -> str:
    """Returns the median of shares; where that is infinite, how far from the loss a run ended."""
    middle = median(shares)
    return f"{middle:.2f}" if middle < np.inf else f"not reached ({median(left):.3f} of it)"


def _ratios(tasks: Mapping[str, Sequence[Row]], first: str, second: str) -> dict[str, list[float]]:
    """Returns the ratios of last losses of two methods by task, one for each seed."""
    return {
        name: [
            last(a) / last(b)
            for a, b in zip(of(rows, method=first), of(rows, method=second), strict=True)
        ]
        for name, rows in tasks.items()
    }


def _told(ratios: Mapping[str, Sequence[float]]) -> str:
    """Returns ratios as text, the range of the seeds of each task."""
    return ", ".join(f"{name} {min(r):.3f} to {max(r):.3f}" for name, r in ratios.items())


def _kfra_against_kfac(tasks: Mapping[str, Sequence[Row]]) -> Finding:
    """Returns which of the two has the lower loss."""
    pairs = ("KFRA", "KFAC"), ("KFRA, averaged", "KFAC, averaged")
    plain, averaged = (_ratios(tasks, *pair) for pair in pairs)
    every = [r for ratios in (plain, averaged) for found in ratios.values() for r in found]
    below = sum(r < 1.0 for r in every)
    verdict: Verdict = "open"
    if below in (0, len(every)):
        verdict = "agrees" if below else "contradicts"
    return Finding(
        "KFRA shows a noticeable speedup over K-FAC, by update and by second (section 5.1), and is "
        "marginally better (section 7).",
        f"last loss of KFRA over that of K-FAC after as many updates: {_told(plain)}; with "
        f"averaged curvature {_told(averaged)}.",
        verdict,
        f"KFRA is lower in {below} of {len(every)} pairs of runs from the same weights and "
        f"batches, all else equal.{_exact(tasks)} `kfra-alignment` measures how far both are from "
        "it, and how well their steps are aligned with the exact one.",
    )


def _exact(tasks: Mapping[str, Sequence[Row]]) -> str:
    """Returns how KFLR does, as a sentence; nothing where it did not run."""
    if not all(of(rows, method="KFLR") for rows in tasks.values()):
        return ""
    kfra, kfac = (_told(_ratios(tasks, method, "KFLR")) for method in ("KFRA", "KFAC"))
    return (
        " They differ in E[𝒢]: KFRA's recursion has a bias, K-FAC's draws are noisy, and KFLR has "
        f"it exactly. Last loss over that of KFLR, of KFRA: {kfra}; of K-FAC: {kfac}."
    )


def _costs(tasks: Mapping[str, Sequence[Row]]) -> Finding:
    """Returns what an update of the two costs."""
    ratios = {
        name: median(
            a["seconds"][-1] / b["seconds"][-1]
            for a, b in zip(of(rows, method="KFRA"), of(rows, method="KFAC"), strict=True)
        )
        for name, rows in tasks.items()
    }
    same = all(0.5 < ratio < 2.0 for ratio in ratios.values())
    return Finding(
        "An update of KFRA costs what one of K-FAC does (section 5.1).",
        "seconds of KFRA's updates over those of K-FAC's: "
        + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
        + ".",
        "agrees" if same else "contradicts",
        "KFRA's recursion takes products of D×D matrices where K-FAC takes those of N×D ones for "
        "its draws (appendix C.4); both invert the same factors.",
    )


def _default_rate(tasks: Mapping[str, Sequence[Row]]) -> Finding:
    """Returns how Adam's default rate does."""
    parts, failed = list[str](), 0
    for name, rows in tasks.items():
        best, default = (of(rows, method=m) for m in (ranking(rows)[0], "Adam, default"))
        faults = sum("fault" in row for row in default)
        failed += faults if name == "FACES" else 0
        ratio = median(least(d) / last(b) for d, b in zip(default, best, strict=True))
        parts.append(f"{name} {ratio:.2f}" + f", {faults} diverged" * bool(faults))
    used = " ".join(row["data"] for row in tasks["FACES"])
    stand_in = "in place of" in used
    verdict: Verdict = "agrees" if failed else "open" if stand_in else "contradicts"
    why = "its runs on FACES diverged." if failed else "no run diverged here"
    if not failed and stand_in:
        why += ", but the images are smaller ones, and so is the network: FACES itself is not here."
    elif not failed:
        why += "."
    return Finding(
        "Adam is sensitive to its rate, and diverges on FACES at its default 0.001 (section 5.1).",
        "lowest loss at the default rate over that of the best of the grid: "
        + "; ".join(parts)
        + ".",
        verdict,
        why,
    )


def _momentum(tasks: Mapping[str, Sequence[Row]]) -> Finding:
    """Returns what momentum on the updates does."""
    ratios = _ratios(tasks, "KFRA, with momentum", "KFRA, averaged")
    runs, without = (
        [row for rows in tasks.values() for row in of(rows, method=method)]
        for method in ("KFRA, with momentum", "KFRA, averaged")
    )
    failed = sum("fault" in row for row in runs)
    every = [r for found in ratios.values() for r in found]
    helps = all(r < 1.0 for r in every) and not failed
    harms = all(r > 1.0 for r in every) or failed
    refused, usual = (sum(row["refused"] for row in rows) for rows in (runs, without))
    return Finding(
        "Momentum on the updates has no benefit: it makes the optimisation unstable (section 5).",
        f"last loss with momentum over that without: {_told(ratios)}; {failed} runs failed.",
        "contradicts" if helps else "agrees" if harms else "open",
        "momentum here is K-FAC's, the exact minimiser over the direction and the last step with "
        "0 ≤ μ ≤ 1, and a step that raises the loss of its batch is refused; the paper does not "
        f"say how it found μ. {refused} of {sum(row['update'][-1] for row in runs)} steps were "
        f"refused with momentum, and {usual} without.",
    )


AUTOENCODERS = Experiment(
    "Do KFRA and K-FAC train deep autoencoders faster than a tuned Adam?",
    "Section 5.1, figure 2",
    measure,
    figure,
    findings,
)

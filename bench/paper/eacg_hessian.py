"""EA-CG's Tables 2–5: how far approximations are from the Hessian of every layer's bias.

‖C_l − |H_l|‖_F, means over points of a trajectory of EA-CG with PCH-1, each on the batch of 100 of
its update. At every size but the smallest the paper's network of eight layers is among those that
are taken; images of other sets are enlarged to its 3×32×32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise, product
from math import hypot, prod
from statistics import fmean, median
from time import perf_counter
from typing import TYPE_CHECKING

from torch import Tensor

import newtriton as nt

from ..protocol.data import Chosen, choose
from ..protocol.experiment import Experiment, Finding, Row, Setting
from ..protocol.figures import curves, panels
from .eacg_training import CRITERIA, KINDS, WIDTHS, Method, judged

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The columns of the tables, and the Fisher matrix whose labels the model draws.
DRAWN = "drawn Fisher"
APPROXIMATIONS = KINDS | {DRAWN: "kfac"}
BY = Method("EA-CG", "PCH-1")
POINT = {"lr": 0.2, "alpha": 0.01, "batch": 100, "limit": 10, "tolerance": 1e-5}
SMALL = (64, 32, 16)  # hidden layers of a network that is soon trained
PAPER = {  # the totals of Tables 2 and 4
    "cross entropy": {"Fisher": 0.1535, "GN": 0.0446, "PCH-1": 0.0402, "PCH-2": 0.0330},
    "eq. 14": {"Fisher": 0.1198, "PCH-1": 0.0349, "PCH-2": 0.0853},
}

PLACES = {"cross entropy": "Table 2", "eq. 14": "Table 4"}


@dataclass(frozen=True)
class Trajectory:
    """Where errors are taken.

    Attributes:
        widths: those of the hidden layers.
        updates: how many updates are made.
        every: updates between two points, the first of which is the start.
        enlarged: whether images of one channel become those of the paper, 3×32×32.
    """

    widths: tuple[int, ...]
    updates: int
    every: int
    enlarged: bool = False


def trajectories(setting: Setting) -> list[Trajectory]:
    """Returns the trajectories of a size; the paper's has 200 epochs of 500 updates."""
    return setting.of(
        smoke=[Trajectory((16,), 3, 2)],
        default=[Trajectory(SMALL, 560, 40), Trajectory(WIDTHS, 280, 40, enlarged=True)],
        full=[Trajectory(WIDTHS, 100_000, 1000, enlarged=True)],
    )


def enlarged(x: Tensor) -> Tensor:
    """Returns images in the paper's size: pixels repeated, and channels."""
    times = 32 // x.shape[-1]
    x = x.repeat_interleave(times, -1).repeat_interleave(times, -2)
    return x.expand(-1, 3, -1, -1)


def batches(data: Chosen, trajectory: Trajectory, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the batch of each update."""
    x, y = data.train
    if trajectory.enlarged:
        x = enlarged(x)
    order = nt.Batches(x, y, batch_size=POINT["batch"], seed=seed, drop_last=True)
    return islice((batch for _ in iter(int, 1) for batch in order), trajectory.updates)


def measured(data: Chosen, trajectory: Trajectory, criterion: str, seed: int) -> list[Row]:
    """Returns a row for each approximation along a trajectory."""
    loss = CRITERIA[criterion]()
    shape = (3, 32, 32) if trajectory.enlarged else tuple(data.train.x.shape[1:])
    model = nt.compile(nt.models.mlp(trajectory.widths), shape, loss, seed=seed)
    optimizer = BY.optimizer(model, POINT)
    offers = model.programs[True].offers
    kinds = {name: kind for name, kind in APPROXIMATIONS.items() if offers(kind)}
    points, losses, seconds = [], [], 0.0
    for i, (x, y) in enumerate(batches(data, trajectory, seed)):
        if i % trajectory.every == 0:
            start = perf_counter()
            found = nt.layer_errors(model.linearize(x, y), [*kinds.values()])
            seconds += perf_counter() - start
            points.append(found)
        losses.append(optimizer.step(x, y).loss)
    network = "-".join(map(str, (prod(shape), *trajectory.widths, 10)))
    what = {"data": data.name, "network": network, "criterion": criterion, "seed": seed}
    what |= {"points": len(points), "seconds_per_point": seconds / len(points)}
    what |= {"first_loss": losses[0], "last_loss": losses[-1]}
    norms = [fmean(found.norms[layer] for found in points) for layer in points[0].norms]
    rows: list[Row] = []
    for name, kind in kinds.items():
        errors = [fmean(e.absolute[kind][layer] for e in points) for layer in points[0].norms]
        total = {"total": hypot(*errors), "norm": hypot(*norms)}
        layers = {"layer": [*range(1, len(errors) + 1)], "error": errors, "norms": norms}
        rows.append({**what, "approximation": name, **total, **layers})
    return rows


def measure(setting: Setting) -> list[Row]:
    """Returns the rows of both criteria along all trajectories."""
    data = choose(setting, "cifar10")
    runs = product(trajectories(setting), CRITERIA, setting.seeds)
    return [row for run, criterion, seed in runs for row in measured(data, run, criterion, seed)]


def figure(rows: list[Row]) -> Figure:
    """Returns the errors of the layers, a panel for each network and criterion."""
    networks = [*dict.fromkeys(row["network"] for row in rows)]
    made, axes = panels(len(networks), len(CRITERIA))
    for line, network in zip(axes, networks, strict=True):
        for each, criterion in zip(line, CRITERIA, strict=True):
            own = [r for r in rows if (r["network"], r["criterion"]) == (network, criterion)]
            curves(each, own, "layer", "error", by="approximation")
            each.set_title(f"{criterion}, {network}", fontsize="small")
    return made


# --- what the rows say ----------------------------------------------------------------------------

Runs = list[dict[str, Row]]  # the rows of a network and a seed by approximation


def runs_of(rows: list[Row], criterion: str) -> Runs:
    """Returns the rows of a criterion, those of one run together."""
    found: dict[tuple[str, int], dict[str, Row]] = {}
    for row in rows:
        if row["criterion"] == criterion:
            found.setdefault((row["network"], row["seed"]), {})[row["approximation"]] = row
    return [*found.values()]


def order(runs: Runs, criterion: str, network: str) -> Finding:
    """Returns whether the totals of a network stand in the paper's order."""
    paper = PAPER[criterion]
    runs = [run for run in runs if run["PCH-1"]["network"] == network]
    names = sorted(paper, key=lambda name: paper[name])
    holds = {
        f"{a} < {b}": [run[a]["total"] < run[b]["total"] for run in runs]
        for a, b in pairwise(names)
    }
    medians = {name: median(run[name]["total"] for run in runs) for name in runs[0]}
    norm = median(run["PCH-1"]["norm"] for run in runs)
    first, last = (median(run["PCH-1"][f"{x}_loss"] for run in runs) for x in ("first", "last"))
    return Finding(
        f"with {criterion} on CIFAR-10, totals {listed({name: paper[name] for name in names})} "
        f"({PLACES[criterion]}).",
        f"on {network} {listed(medians)}, of ‖|H|‖ = {norm:.3g} (medians over seeds).",
        judged([each for found in holds.values() for each in found]),
        f"by seeds, {', '.join(f'{pair} in {sum(h)} of {len(h)}' for pair, h in holds.items())}, "
        f"on the way from a loss of {first:.2g} to {last:.2g}.",
    )


def listed(numbers: dict[str, float]) -> str:
    """Returns numbers with their names."""
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def nearer(runs: Runs, criterion: str) -> Finding:
    """Returns whether both PCH matrices are nearer to |H| than the others."""
    others = [name for name in ("Fisher", "GN") if name in runs[0]]
    holds = [
        run[pch]["total"] < run[other]["total"]
        for run in runs for pch in ("PCH-1", "PCH-2") for other in others
    ]  # fmt: skip
    first = {
        name: median(run[name]["error"][0] / run[name]["norms"][0] for run in runs)
        for name in (*others, "PCH-1", "PCH-2")
    }
    return Finding(
        f"with {criterion}, PCH-1 and PCH-2 are closer to the true Hessian than "
        f"{' and '.join(others)} (Tables 2–5).",
        f"so it is in {sum(holds)} of {len(holds)} comparisons.",
        judged(holds),
        "they have the diagonal E[φ''⊙ā], which the others leave out and which matters most far "
        f"from the outputs: in the first layer errors are {listed(first)} of ‖|H|‖ (medians).",
    )


def accumulated(runs: Runs) -> Finding:
    """Returns whether errors grow from the last layer to the first."""
    shares = [row["error"][0] / row["total"] for run in runs for row in run.values()]
    holds = [row["error"][0] < max(row["error"]) for run in runs for row in run.values()]
    return Finding(
        "errors are not accumulated with layers: the first layer's is the least or next to it, "
        "0.0036 of 0.0402 for PCH-1 (Tables 2–5).",
        f"the first layer's error is at most {max(shares):.2g} of a total, its median "
        f"{median(shares):.1g}; it is the largest in {len(holds) - sum(holds)} of {len(holds)}.",
        judged(holds),
        "a step down multiplies the curvature, and its error, by W and by φ'² ≤ 1/16.",
    )


def last(runs: Runs) -> Finding:
    """Returns whether the last layer's block is exact, and for which Fisher matrix it is not."""
    exact = _of_last_layer(runs, ("GN", "PCH-1"))
    fisher, drawn = _of_last_layer(runs, ("Fisher",)), _of_last_layer(runs, (DRAWN,))
    return Finding(
        "in the last layer GN and PCH-1 have no error, and Fisher 0.0251 to 0.0781 (Tables 2–5).",
        f"GN and PCH-1 at most {max(exact):.0e} of ‖|H|‖, Fisher with the given labels "
        f"{min(fisher):.2g} to {max(fisher):.2g} of it, with drawn ones {min(drawn):.2g} to "
        f"{max(drawn):.2g}.",
        judged([*(error < 1e-3 for error in exact), *(error > 1e-2 for error in fisher)]),
        "E[B], with the absolute values of its eigenvalues, is |H| there. The Fisher matrix of "
        "drawn labels has that expectation where e^−ξ is a distribution, and is off by its draws; "
        "that of the given labels, which the paper's formula has, is another matrix.",
    )


def _of_last_layer(runs: Runs, names: tuple[str, ...]) -> list[float]:
    """Returns the last layer's errors as shares of its ‖|H|‖."""
    rows = [run[name] for run in runs for name in names if name in run]
    return [row["error"][-1] / row["norms"][-1] for row in rows]


def clipped(runs: Runs) -> Finding:
    """Returns whether PCH-2 is exact in the last layer with eq. 14, whose E[B] is indefinite."""
    errors = _of_last_layer(runs, ("PCH-2",))
    return Finding(
        "with eq. 14, PCH-2 has no error in the last layer, 0.0000 (Tables 4 and 5).",
        f"{min(errors):.2g} to {max(errors):.2g} of ‖|H|‖.",
        judged([error < 1e-3 for error in errors]),
        "E[B] has negative eigenvalues, which Pos-Eig with γ = 0 makes 0 and |H| turns round. The "
        "paper's 0.0000 means that its PCH-2 has γ = 0 in eq. 8b alone, and −1 in eq. 8a.",
    )


def findings(rows: list[Row]) -> list[Finding]:
    """Returns what the rows say of Tables 2–5."""
    runs = {criterion: runs_of(rows, criterion) for criterion in PAPER}
    networks = dict.fromkeys(row["network"] for row in rows)
    both = [run for each in runs.values() for run in each]
    return [
        *(order(runs[criterion], criterion, n) for criterion, n in product(PAPER, networks)),
        *(nearer(runs[criterion], criterion) for criterion in PAPER),
        accumulated(both),
        last(both),
        clipped(runs["eq. 14"]),
    ]


HESSIAN = Experiment(
    "How far are approximations from the Hessian of each layer's bias?",
    "Tables 2–5",
    measure,
    figure,
    findings,
)

"""Updates and seconds that FITRE, K-FAC and KFRA need, at their defaults, for Adam's training loss.

Adam runs from four learning rates, each constant or halved every quarter of its updates. The goal
is the loss over all training samples after its last update, of the setting whose mean over the
seeds is best. All methods see the same first weights and batches. Seconds are those of one thread
at work, without the time of measuring losses. Adam's rows that `--json` has are not run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, product, repeat
from pathlib import Path
from statistics import mean
from typing import Any, TypeAlias

import torch

import newtriton as nt

from ..compiler.language.loss import Loss
from ..compiler.language.network import Layer
from ..runtime.arguments import Parser
from ._measure import known_rows, report

Optimizer: TypeAlias = nt.SecondOrder | nt.TorchOptimizer
Row = dict[str, Any]
METHODS: dict[str, Callable[[nt.Model], Optimizer]] = {
    "FITRE": nt.FITRE,
    "KFAC": nt.KFAC,
    "KFRA": nt.KFRA,
}


@dataclass(frozen=True)
class Problem:
    """What is trained, and how.

    Attributes:
        net: makes the network.
        loss: makes its loss.
        shape: the shape of one sample.
        data: loads the samples.
        batch_size: the samples in a batch.
        rates: the learning rates that Adam is tried with.
        every: the updates between two measurements of the loss.
        seeds: the seeds of weights and order of the samples.
    """

    net: Callable[[], Layer]
    loss: Callable[[], Loss]
    shape: tuple[int, ...]
    data: Callable[[], nt.Samples]
    batch_size: int
    rates: tuple[float, ...]
    every: int
    seeds: tuple[int, ...]


PROBLEMS = {
    "digits": Problem(
        nt.models.small_cnn, nt.CrossEntropyLoss, (1, 8, 8), lambda: nt.digits()[0], 128,
        (0.003, 0.01, 0.03, 0.1), 2, (0, 1, 2),
    ),
    "curves": Problem(
        nt.models.autoencoder, nt.BCEWithLogitsLoss, (784,), nt.curves, 1000,
        (0.0001, 0.0003, 0.001, 0.003), 5, (0,),
    ),
}  # fmt: skip


class Adam(nt.TorchOptimizer):
    """Adam whose learning rate is halved every `period` updates."""

    def __init__(self, model: nt.Model, lr: float, period: int) -> None:
        super().__init__(model, torch.optim.Adam, lr=lr)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, period, 0.5)

    def step(self, x: Any, y: Any = None) -> nt.StepReport:
        """Makes an update, after which the learning rate may be halved."""
        done = super().step(x, y)
        self.scheduler.step()
        return done


def run(
    problem: Problem,
    data: nt.Samples,
    seed: int,
    method: Callable[[nt.Model], Optimizer],
    updates: int,
    goal: float | None = None,
) -> Row:
    """Trains for all updates, or until the loss over the data reaches the goal."""
    net, loss = problem.net(), problem.loss()
    model = nt.compile(net, problem.shape, loss, backend="aten", seed=seed)
    optimizer = method(model)
    batches = nt.Batches(*data, problem.batch_size, seed=seed)
    whole = nt.Batches(*data, 2000, shuffle=False)
    update, seconds, found = 0, 0.0, float("inf")
    for update, (x, y) in enumerate(islice(chain.from_iterable(repeat(batches)), updates), 1):
        start = time.process_time()
        optimizer.step(x, y)
        seconds += time.process_time() - start
        if update == updates or (goal is not None and update % problem.every == 0):
            found = nt.evaluate(model, whole)[0]
        if goal is not None and found <= goal:
            break
    return {"updates": update, "seconds": round(seconds, 2), "loss": float(f"{found:.4g}")}


def adams(problem: Problem, updates: int) -> dict[str, Callable[[nt.Model], Optimizer]]:
    """Returns what makes each Adam of the grid, by name."""
    settings = product(problem.rates, (updates, updates // 4))
    return {
        f"Adam, {lr:g}" + ("" if period == updates else f", halved every {period}"): partial(
            Adam, lr=lr, period=period
        )
        for lr, period in settings
    }


def compare(name: str, updates: int, known: list[Row], keep: Callable[[Row], None]) -> None:
    """Runs a problem's grid, then the methods; `keep` takes every row as soon as it is made."""
    problem = PROBLEMS[name]
    data, grid = problem.data(), adams(problem, updates)
    losses: dict[str, list[Row]] = {method: [] for method in grid}
    for (method, make), seed in product(grid.items(), problem.seeds):
        key = {"problem": name, "seed": seed, "method": method}
        earlier = [r for r in known if r | key == r and r.get("updates") == updates]
        row = earlier[0] if earlier else key | run(problem, data, seed, make, updates)
        losses[method].append(row)
        keep(row)
    best = min(losses, key=lambda method: mean(row["loss"] for row in losses[method]))
    for method, (adam, seed) in product(METHODS, zip(losses[best], problem.seeds, strict=True)):
        key = {"problem": name, "seed": seed, "method": method}
        row = key | run(problem, data, seed, METHODS[method], updates, adam["loss"])
        row |= {"goal": adam["loss"], "of": best}
        reached = row["loss"] <= adam["loss"]
        row["share_of_updates"] = round(row["updates"] / updates, 3) if reached else "not reached"
        row["share_of_seconds"] = round(row["seconds"] / adam["seconds"], 2)
        keep(row)


def main() -> None:
    """Prints the rows after every run."""
    parser = Parser(description=__doc__)
    parser.add_argument("--problem", choices=PROBLEMS, action="append", help="all unless given")
    parser.add_argument("--updates", type=int, default=500, help="of Adam, and at most of others")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.problem or list(PROBLEMS)
    path: Path | None = options.json
    known = known_rows(path, "problem", "seed", "method")
    rows = [row for row in known if row["problem"] not in names]

    def keep(row: Row) -> None:
        rows.append(row)
        report(rows, path)

    for name in names:
        compare(name, options.updates, known, keep)


if __name__ == "__main__":
    main()

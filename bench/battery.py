"""Presets at their defaults and tuned first-order methods on a battery of small public problems.

All methods see the same first weights, batches and epochs; those that step on all samples make a
step an epoch. Of a grid the setting with the lowest mean of end losses over the seeds counts.
Losses are those of the whole training set. Seconds are those of one thread in steps, up to the end
loss of the best Adam, which runs again beside whatever is run. The table has end loss ÷ best
Adam's: median (worst) of the seeds, † where a run has a fault: it raised an error, or ended at a
loss that is not finite or above its start. What `--json` has is not run again without `--again`.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

import torch

import newtriton as nt

from ..compiler.graph.errors import MissingRule, NewtritonError
from ..runtime.arguments import Parser
from ._entrants import ENTRANTS, Entrant, Makes, Steps
from ._measure import known_rows, machine
from ._problems import PROBLEMS, Problem
from ._scores import KEY, RATIOS, Row, best, end, grouped, table, ungrouped

EVALUATIONS = 50  # of the losses during a run
RUN = (*KEY, "seed")  # what tells a run from others
Key: TypeAlias = tuple[str, str, str, int]
Splits: TypeAlias = tuple[nt.Samples, nt.Samples]


def rounded(value: float) -> float:
    """Returns a number in five digits, as the file has it."""
    return float(f"{value:.5g}")


def arguments_of(problem: Problem, train: nt.Samples, whole: bool, seed: int) -> list[Any]:
    """Returns what the steps of all epochs get, in order."""
    if whole:
        return [([train],)] * problem.epochs
    batches = nt.Batches(*train, problem.batch_size or len(train.x), seed=seed)
    return [tuple(batch) for _ in range(problem.epochs) for batch in batches]


class Run:
    """A run of a model: its steps, and looks at its losses on the way.

    Args:
        model: the model that is trained.
        data: the samples for training and those for validation.
        goal: the loss that is timed.

    Attributes:
        row: what has come of it; it has no `end` where the loss was not finite.
        loss: the loss at the last look.
    """

    def __init__(self, model: nt.Model, data: Splits, goal: float) -> None:
        self.model, self.data, self.goal = model, data, goal
        self.loss, _ = self.losses()
        self.row: Row = {"start": rounded(self.loss), "updates": 0, "seconds": 0.0}

    def losses(self) -> tuple[float, float]:
        """Returns the losses of both parts."""
        training, validation = (float(self.model.loss(*part)) for part in self.data)
        return training, validation

    def step(self, optimizer: Steps, given: tuple[Any, ...]) -> None:
        """Takes a step; an error is a fault, unless the optimizer does not take the network."""
        began = time.process_time()
        try:
            optimizer.step(*given)
        except MissingRule:
            raise
        except Exception as error:  # whatever it is, the run ends with it
            self.row["fault"] = f"{type(error).__name__}: {error}"[:120]
        self.row["updates"] += 1
        self.row["seconds"] += time.process_time() - began
        self.row.setdefault("first_seconds", self.row["seconds"])

    def look(self) -> bool:
        """Looks at the losses; returns whether the run may go on."""
        self.loss, validation = self.losses()
        row = self.row
        if rounded(self.loss) <= self.goal and "goal_updates" not in row:
            row |= {"goal_updates": row["updates"], "goal_seconds": row["seconds"]}
        if not math.isfinite(self.loss + validation):
            row.setdefault("fault", "not finite")
            row.pop("end", None)
            return False
        least = min(validation, row.get("least_validation", math.inf))
        row |= {"end": self.loss, "validation": validation, "least_validation": least}
        return "fault" not in row

    def finished(self) -> Row:
        """Returns the row, in five digits."""
        if "fault" not in self.row and self.loss > self.row["start"]:
            self.row["fault"] = "ended above its start"
        return {k: rounded(v) if isinstance(v, float) else v for k, v in self.row.items()}


def run(
    problem: Problem,
    data: Splits,
    make: Makes,
    seed: int,
    goal: float = -math.inf,
    whole: bool = False,
) -> Row:
    """Trains on a problem and returns what came of it.

    The row has `refused` alone where the optimizer does not take the network, `goal_updates` and
    `goal_seconds` only where the loss has come down to the goal, `fault` where there was one.
    """
    shape = tuple(data[0].x.shape[1:])
    model = nt.compile(problem.net(), shape, problem.loss, backend="aten", device="cpu", seed=seed)
    arguments = arguments_of(problem, data[0], whole, seed)
    every = max(1, len(arguments) // EVALUATIONS)
    trial = Run(model, data, goal)
    try:
        optimizer = make(model)
    except NewtritonError as error:
        return {"refused": str(error)[:120]}
    try:
        for update, given in enumerate(arguments, 1):
            trial.step(optimizer, given)
            due = update % every == 0 or update == len(arguments) or "fault" in trial.row
            if due and not trial.look():
                break
    except MissingRule as error:
        return {"refused": str(error)[:120]}
    return trial.finished()


class Book:
    """The runs that are known, kept in a file.

    Args:
        path: the file; None keeps nothing.

    Attributes:
        rows: the runs by problem, optimizer, setting and seed.
        began: when this measurement began, which its rows name.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        try:
            self.rows: dict[Key, Row] = {
                (row["problem"], row["optimizer"], row["setting"], row["seed"]): row
                for row in ungrouped(known_rows(path, *RUN))
            }
        except (TypeError, KeyError, IndexError) as error:
            raise nt.NewtritonError(f"{path} holds other rows than of runs: {error}") from error
        self.began = datetime.now().isoformat(" ", "minutes")

    def knows(self, key: Key, goal: float) -> bool:
        """Returns whether a run is known, and was timed up to this loss."""
        return key in self.rows and self.rows[key].get("goal") == goal

    def keep(self, key: Key, row: Row) -> None:
        """Takes in a run."""
        self.rows[key] = dict(zip(RUN, key, strict=True)) | row | {"run": self.began}

    def write(self) -> None:
        """Writes the runs, in the order of problems and optimizers."""
        if self.path is None:
            return
        places = {name: i for i, name in enumerate((*PROBLEMS, *ENTRANTS))}
        rows = sorted(
            self.rows.values(), key=lambda row: (places[row["problem"]], places[row["optimizer"]])
        )
        lines = ",\n".join(f"  {json.dumps(group)}" for group in grouped(rows))
        origin = json.dumps(machine() | versions())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(f'{{"machine": {origin},\n "rows": [\n{lines}\n ]}}\n')


def versions() -> dict[str, str]:
    """Returns the versions of what else decides the rows."""
    found = {}
    for package in ("newtriton", "numpy", "scikit-learn", "pytorch_optimizer"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def keys_of(name: str, entrants: Mapping[str, Entrant], seeds: Iterable[int]) -> list[Key]:
    """Returns the keys of all runs on a problem."""
    return [
        (name, optimizer, setting, seed)
        for optimizer, entrant in entrants.items()
        for setting in entrant.settings
        for seed in seeds
    ]


def measure(
    book: Book,
    name: str,
    entrants: Mapping[str, Entrant],
    seeds: list[int],
    again: bool = False,
) -> None:
    """Makes the runs on a problem that are not known: Adam's grid, then the others seed by seed.

    A run is not known either where the best Adam has come to end at another loss.
    """
    problem, adam = PROBLEMS[name], ENTRANTS["adam"]
    data = problem.samples()
    for key in keys_of(name, {"adam": adam}, seeds):
        if key not in book.rows or (again and "adam" in entrants):
            book.keep(key, run(problem, data, adam.settings[key[2]], key[3]))
    others = {optimizer: e for optimizer, e in entrants.items() if optimizer != "adam"}
    for adams in best(book.rows.values(), name, "adam"):
        seed, goal = adams["seed"], end(adams)
        keys = keys_of(name, others, {seed}.intersection(seeds))
        waiting = [key for key in keys if again or not book.knows(key, goal)]
        if not waiting:
            continue
        beside = run(problem, data, adam.settings[adams["setting"]], seed, goal)
        side = {"goal": goal, "adam_seconds": beside.get("goal_seconds", beside["seconds"])}
        for key in waiting:
            entrant = others[key[1]]
            row = run(problem, data, entrant.settings[key[2]], seed, goal, entrant.whole)
            book.keep(key, row | side)
    book.write()


def warm_up(entrants: Iterable[Entrant]) -> None:
    """Makes a step with each, since the first step in a process loads modules."""
    problem = replace(PROBLEMS["iris"], epochs=1)
    for entrant in (ENTRANTS["adam"], *entrants):
        make = next(iter(entrant.settings.values()))
        run(problem, problem.samples(), make, seed=0, whole=entrant.whole)


def main() -> None:
    """Prints a table after all runs."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--problems",
        nargs="+",
        choices=PROBLEMS,
        default=list(PROBLEMS),
        metavar="NAME",
        help=", ".join(PROBLEMS),
    )
    parser.add_argument(
        "--optimizers",
        nargs="+",
        choices=ENTRANTS,
        default=list(ENTRANTS),
        metavar="NAME",
        help=", ".join(ENTRANTS),
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--again", action="store_true", help="run anew what the file has")
    parser.add_argument("--table", choices=RATIOS, default="loss", help="the ratio that is printed")
    parser.add_argument("--json", type=Path, help="where runs are read and written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    book = Book(options.json)
    entrants = {name: ENTRANTS[name] for name in options.optimizers}
    warm_up(entrants.values())
    for i, name in enumerate(options.problems, 1):
        print(f"{i}/{len(options.problems)} {name}", file=sys.stderr, flush=True)
        measure(book, name, entrants, options.seeds, options.again)
    titles = {name: entrant.title for name, entrant in entrants.items() if name != "adam"}
    rows = list(book.rows.values())
    troubles = {name: PROBLEMS[name].trouble for name in options.problems}
    print("\n".join(table(rows, troubles, titles, options.table)))


if __name__ == "__main__":
    main()

"""An hour of what the suite does for seconds: kills, bad calls, damaged files, injected failures.

    python -m tests.soak --minutes 60 --seed 0 --record build/soak.json

A part is a module with `trial(seed, folder) -> str`: one trial, drawn from its seed alone, in an
empty folder; it returns how the trial came out, and raises where a promise is broken. Trials run
some at a time in a process of their own, so that one that crashes or hangs is an outcome too. What
the record has is not tried again.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple


class Part(NamedTuple):
    """Trials of one kind.

    Attributes:
        module: where `trial` is.
        trials: how many there are.
        what: what is done in one.
    """

    module: str
    trials: int
    what: str


PARTS = {
    "runs that are killed": Part(
        "tests.runtime.training.kills", 1000,
        "one to three ends of the process at a call of the file layer, half of it made or what was "
        "not flushed lost; then resumed and compared bit for bit",
    ),
    "full disks": Part(
        "tests.runtime.training.full", 1000,
        "no space, no permission or an error of the device at a call, once or from then on",
    ),
    "damaged runs": Part(
        "tests.runtime.training.damage", 3000,
        "any file or link of a run folder, with checksums made anew in half of the cases",
    ),
    "damaged data sets": Part(
        "tests.runtime.data.damage", 13_000, "1,000 files of each of 13 formats"
    ),
    "damaged records and weights": Part(
        "tests.command.damage", 5000, "1,000 files of each of 5 formats"
    ),
    "attacks on caches": Part(
        "tests.runtime.caching.attacks", 1000,
        "generated code, compiled kernels and measured tiles: damage, another file, faults of the "
        "file system, ends of the process, other owners",
    ),
    "bad calls": Part(
        "tests.fuzzing.trials", 10_000,
        "a good call of any public function, class or method, spoilt in its arguments",
    ),
    "bad command lines": Part(
        "tests.command.lines", 1000, "options, values, files and configurations that are wrong"
    ),
    "hostile names": Part(
        "tests.names", 1000, "code, markup, paths and keywords as names of layers, inputs and runs"
    ),
    "failures in steps": Part(
        "tests.runtime.optimizers.failures", 3000,
        "factorisations, solvers, searches, losses, operators that raise or give NaN",
    ),
    "failures in runs": Part(
        "tests.runtime.training.failures", 1000,
        "data, validation, callbacks and schedules that raise; then resumed, compared bit for bit",
    ),
    "memory that ends": Part(
        "tests.runtime.optimizers.out_of_memory", 1000, "in a step, at a call that allocates"
    ),
    "batches in pieces": Part(
        "tests.runtime.pieces.trials", 1000, "a step on pieces beside one on the whole batch"
    ),
}  # fmt: skip
AT_ONCE = 100  # trials of one process
SLOWEST = 60.0  # seconds for a trial: what takes longer hangs
FAULTS = "broken", "crashed", "hung"
ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TRITON_INTERPRET": "1"}


def work(module: str, seed: int, numbers: range, slowest: float) -> None:
    """Makes trials, and prints a line for each: its number, how it came out and why."""
    trial = import_module(module).trial
    for number in numbers:
        faulthandler.dump_traceback_later(slowest, exit=True)
        with tempfile.TemporaryDirectory() as folder:
            try:
                found, why = trial(seed * 10**6 + number, Path(folder)), ""
            except Exception as error:  # whatever it is breaks a promise
                found, why = "broken", f"{type(error).__name__}: {error}"
        print(json.dumps([number, found, why]), flush=True)


def tried(module: str, seed: int, numbers: range) -> list[list[Any]]:
    """Returns a line for each of some trials, which a process of their own makes."""
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.soak"]
    command += ["--work", module, "--seed", str(seed), "--slowest", str(SLOWEST)]
    command += ["--numbers", str(numbers.start), str(numbers.stop)]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        status = subprocess.run(
            command, env={**os.environ, **ALONE}, stdin=subprocess.DEVNULL,
            stdout=output, stderr=errors, check=False,
        ).returncode  # fmt: skip
        output.seek(0)
        errors.seek(0)
        said = errors.read()
        lines = [json.loads(line) for line in output if line.startswith("[") and line[-1] == "\n"]
    if len(lines) < len(numbers):
        what = "hung" if "Timeout (" in said else "crashed"
        lines.append([numbers.start + len(lines), what, f"status {status}: {said[-2000:]}"])
    return lines


class Record:
    """How trials came out, in a file.

    Args:
        path: of the file, which may be there already.
        seed: of the trials.

    Attributes:
        outcomes: of each part, by the number of the trial.
        faults: what was broken, by part and number.
        seconds: of all processes, by part.
    """

    def __init__(self, path: Path, seed: int) -> None:
        found = json.loads(path.read_text()) if path.exists() else {"seed": seed}
        if found["seed"] != seed:
            raise SystemExit(f"{path} is of seed {found['seed']}: take --seed {found['seed']}, "
                             "or another --record")  # fmt: skip
        self.path, self.seed, self._lock = path, seed, Lock()
        self.outcomes: dict[str, dict[str, str]] = found.get("outcomes", {})
        self.faults: dict[str, str] = found.get("faults", {})
        self.seconds: dict[str, float] = found.get("seconds", {})

    def left(self, goals: dict[str, int]) -> Iterator[tuple[str, range]]:
        """Yields parts and trials of them that were not made; parts take turns by their share."""
        turns = sorted(
            (start / goal, name, range(start, min(start + AT_ONCE, goal)))
            for name, goal in goals.items()
            for start in range(0, goal, AT_ONCE)
        )
        for _, name, numbers in turns:
            known = self.outcomes.get(name, {})
            missing = [number for number in numbers if str(number) not in known]
            if missing:
                yield name, range(missing[0], numbers.stop)

    def add(self, name: str, lines: list[list[Any]], seconds: float) -> None:
        """Takes in what came of some trials of a part."""
        with self._lock:
            for number, found, why in lines:
                self.outcomes.setdefault(name, {})[str(number)] = found
                if found in FAULTS:
                    self.faults[f"{name}/{number}"] = why
            self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 1)
            what = ("seed", "outcomes", "faults", "seconds")
            beside = self.path.with_suffix(".new")
            beside.write_text(json.dumps({key: getattr(self, key) for key in what}))
            beside.replace(self.path)

    def summary(self) -> dict[str, Any]:
        """Returns how often each outcome was, by part."""
        return {
            name: {
                "trials": len(found),
                "seconds": self.seconds[name],
                "outcomes": dict(Counter(found.values()).most_common()),
            }
            for name, found in ((name, self.outcomes.get(name, {})) for name in PARTS)
            if found
        }


def soak(record: Record, goals: dict[str, int], minutes: float, processes: int) -> None:
    """Makes the trials that the record does not have, until the time is over."""
    end = time.monotonic() + 60 * minutes

    def make(turn: tuple[str, range]) -> None:
        name, numbers = turn
        if (start := time.monotonic()) < end:
            lines = tried(PARTS[name].module, record.seed, numbers)
            record.add(name, lines, time.monotonic() - start)

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(make, record.left(goals)))


def table(parts: dict[str, Any]) -> str:
    """Returns what came of the trials, as the page on reliability shows it."""
    lines = ["| part | what is done | trials | what came of them |", "|---|---|---|---|"]
    for name, part in parts.items():
        found = Counter[str]()
        for outcome, count in part["outcomes"].items():
            found[outcome.rpartition(": ")[2]] += count  # of all formats
        came = ", ".join(f"{outcome} {count:,}" for outcome, count in found.most_common())
        lines.append(f"| {name} | {PARTS[name].what} | {part['trials']:,} | {came} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Makes the trials, and prints and writes what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the trials (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at once")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts")
    parser.add_argument("--record", type=Path, default=Path("build/soak.json"))
    parser.add_argument("--summary", type=Path, help="a JSON file for what came of all trials")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--numbers", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--slowest", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.seed, range(*options.numbers), options.slowest)
        return 0
    options.record.parent.mkdir(parents=True, exist_ok=True)
    record = Record(options.record, options.seed)
    soak(record, {name: PARTS[name].trials for name in options.only}, options.minutes,
         options.processes)  # fmt: skip
    print(table(record.summary()))
    for where, why in record.faults.items():
        print(f"{where}: {why}")
    if options.summary:
        options.summary.write_text(json.dumps({"seed": record.seed, "parts": record.summary()},
                                              indent=1) + "\n")  # fmt: skip
    return int(bool(record.faults))


if __name__ == "__main__":
    raise SystemExit(main())

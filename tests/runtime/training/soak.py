"""Kills runs at random calls of the file layer, really, and compares what is resumed bit for bit.

    python -m tests.runtime.training.soak --kills 1000 --seed 0 --record build/soak.json

Every trial forks a process that ends without a word at a call, now and then again while it is
resumed; half of that call may have been made, and what was not flushed may be lost. Trials are
drawn from the seed and their number alone: what the record has is not tried again.
"""

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from newtriton.runtime.training import files

from .kills import Dying, Run, differing

DIED = 137  # the status of a process that was killed


def in_child(folder: Path, dying: Dying) -> int:
    """Trains in a process of its own, which may die; returns its status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    files.os = dying  # type: ignore[attr-defined]
    try:
        Run(folder)()
        os._exit(0)
    finally:
        os._exit(1)


def trial(seed: int, number: int, calls: int, whole: dict) -> str:
    """Kills a run at one to three calls; returns how what was resumed came out."""
    draw = np.random.default_rng((seed, number))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        for _ in range(int(draw.integers(1, 4))):
            at, half, lost = (
                int(draw.integers(1, calls + 1)),
                draw.random() < 0.5,
                draw.random() < 0.5,
            )
            status = in_child(path, Dying(at, half, lost, end=lambda: os._exit(DIED)))
            if status not in (0, DIED):
                return f"ended with {status}"
        found = differing(whole, Run(path)())
    return f"differs in {found[0]}" if found else "bit for bit"


def main() -> int:
    """Makes the trials that the record does not have, and prints what came of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000, help="trials (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the trials (default: %(default)s)")
    parser.add_argument("--record", type=Path, default=Path("build/soak.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # a forked process has no others
    counting, start = Dying(), time.monotonic()
    record = json.loads(options.record.read_text()) if options.record.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        files.os = counting  # type: ignore[attr-defined]
        whole = Run(Path(folder) / "run")()
        files.os = os  # type: ignore[attr-defined]
    options.record.parent.mkdir(parents=True, exist_ok=True)
    for number in range(options.kills):
        key = f"{options.seed}/{number}"
        if key not in record:
            record[key] = trial(options.seed, number, counting.calls, whole)
            options.record.write_text(json.dumps(record))
    outcomes = Counter(record[f"{options.seed}/{number}"] for number in range(options.kills))
    print(f"{options.kills} trials, seed {options.seed}, a run of {counting.calls} calls, "
          f"{time.monotonic() - start:.0f} s")  # fmt: skip
    for outcome, count in outcomes.most_common():
        print(f"{count:6}  {outcome}")
    return int(outcomes.keys() != {"bit for bit"})


if __name__ == "__main__":
    raise SystemExit(main())

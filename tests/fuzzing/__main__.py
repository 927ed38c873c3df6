"""Makes many bad calls: `python -m tests.fuzzing FIRST LAST [describing|training|A NAME]`."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

from .describing import DESCRIBING
from .training import TRAINING
from .trials import CALLABLES, MAKERS, attempt

HALVES = {
    "": CALLABLES,
    "describing": DESCRIBING,
    "training": TRAINING,
    "triton": MAKERS.keys() - CALLABLES,
}


def main(first: int, last: int, part: str = "") -> None:
    """Makes the bad calls of a range of seeds, prints what is wrong, and how they ended."""
    outcomes = Counter[str]()
    names = sorted(HALVES.get(part, [part]))
    for seed in range(first, last):
        rng = Random(seed)
        name = rng.choice(names)
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcomes[attempt(name, rng.getrandbits(48), Path(folder))] += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                outcomes["broken"] += 1
                kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
                print(f"{seed} {name}: {kind}{error}", flush=True)
    print(f"{len(names)} callables, {last - first} calls: {dict(outcomes)}")


main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])

"""Makes many bad calls: `python -m tests.fuzzing 0 10000 [part of a name]`."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

from .trials import CALLABLES, attempt


def main(first: int, last: int, part: str = "") -> None:
    """Makes the bad calls of a range of seeds, and prints how they end and what is wrong."""
    outcomes, faults = Counter[str](), dict[str, list[str]]()
    names = sorted(name for name in CALLABLES if part in name)
    for seed in range(first, last):
        rng = Random(seed)
        name = rng.choice(names)
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcomes[attempt(name, rng.getrandbits(48), Path(folder))] += 1
            except AssertionError as error:
                outcomes["fault"] += 1
                faults.setdefault(
                    str(error).partition(": ")[2].partition("with")[2][:40], []
                ).append(str(error))
            except BaseException as error:
                outcomes["broken"] += 1
                faults.setdefault(type(error).__name__, []).append(f"{name} {seed}: {error!r}")
    for found in faults.values():
        for text in found:
            print(text)
    print(len(names), "callables:", dict(outcomes))


main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])

"""What is kept between runs is right or not used, whatever befalls it."""

import multiprocessing
import os
import random
import time
import traceback
from collections import Counter
from pathlib import Path

import pytest

from .attacks import Code, Compiled, Measured, check, surroundings, trial

TRIALS = 150
ROUNDS = 4


@pytest.mark.interpreter
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_attack_changes_what_is_computed(tmp_path: Path):
    outcomes: Counter[str] = Counter()
    for seed in range(TRIALS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        outcomes[trial(seed, folder)] += 1
    assert set(outcomes) == {"replaced", "unharmed", "without cache", "killed"}


def _use(folder: Path, rounds: int) -> None:
    """Keeps and uses everything again and again, as a process of its own."""
    code = 0
    try:
        with surroundings(folder) as caught:
            for number in range(rounds):
                for kind in (Code, Measured, Compiled):
                    kept = kind(folder, 1.0 + number % 8 / 8)
                    check(kept.used(), kept.right, f"round {number}")
        assert not caught
    except BaseException:
        traceback.print_exc()
        code = 1
    os._exit(code)


@pytest.mark.interpreter
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_processes_that_start_at_once_and_are_killed_leave_it_right(tmp_path: Path):
    """Eight at a time, from an empty folder on; of some the end comes anywhere."""
    context, draw = multiprocessing.get_context("fork"), random.Random(0)
    folder = tmp_path / "kept"
    folder.mkdir(mode=0o700)
    victims = [context.Process(target=_use, args=(folder, 10**6)) for _ in range(4)]
    others = [context.Process(target=_use, args=(folder, ROUNDS)) for _ in range(8)]
    for process in (*victims, *others[:4]):
        process.start()
    for victim, other in zip(victims, others[4:], strict=True):
        time.sleep(draw.uniform(0.0, 0.1))
        victim.kill()
        other.start()
    for process in (*victims, *others):
        process.join()
    assert [process.exitcode for process in (*victims, *others)] == [-9] * 4 + [0] * 8
    with surroundings(folder) as caught:
        for number in range(ROUNDS):
            for kind in (Code, Measured, Compiled):
                kept = kind(folder, 1.0 + number % 8 / 8)
                check(kept.used(), kept.right, "afterwards")
    assert not caught

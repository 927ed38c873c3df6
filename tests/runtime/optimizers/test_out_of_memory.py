"""Steps in the middle of which memory ends leave everything as it was."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.runtime.optimizers.out_of_memory import OPTIMIZERS, trial


def test_a_step_that_memory_ends_in_changes_nothing(tmp_path: Path) -> None:
    seen = Counter(trial(seed, tmp_path) for seed in range(80))
    assert seen["as before"] > 60 and len(OPTIMIZERS) == 14

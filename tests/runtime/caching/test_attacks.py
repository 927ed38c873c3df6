"""What is kept between runs is right or not used, whatever befalls it."""

from collections import Counter
from pathlib import Path

import pytest

from .attacks import trial

TRIALS = 150


@pytest.mark.interpreter
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_attack_changes_what_is_computed(tmp_path: Path):
    outcomes: Counter[str] = Counter()
    for seed in range(TRIALS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        outcomes[trial(seed, folder)] += 1
    assert set(outcomes) == {"replaced", "unharmed", "without cache", "killed"}

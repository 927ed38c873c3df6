"""Steps that fail end in a defined state; see failures.py."""

from pathlib import Path

import pytest

from .failures import trial


@pytest.mark.parametrize("seed", range(40))
def test_a_step_is_made_wholly_or_not_at_all_and_training_goes_on(seed: int, tmp_path: Path):
    trial(seed, tmp_path)

"""Bad calls end as documented or in one clear error, and leave everything as it was."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .calls import describes, public
from .describing import DESCRIBING, FUSED
from .training import RESTORED, TRAINING
from .trials import CALLABLES, attempt

TRIALS = 2  # of each callable; `make soak` makes thousands


def test_every_public_callable_that_describes_is_tried() -> None:
    names = {name for name, value in public() if describes(value)}
    assert names <= DESCRIBING.keys(), sorted(names - DESCRIBING.keys())


def test_every_public_callable_that_trains_is_tried() -> None:
    names = {name for name, value in public() if not describes(value)} - RESTORED
    assert names <= TRAINING.keys(), sorted(names - TRAINING.keys())


@pytest.mark.parametrize("name", sorted(CALLABLES))
def test_bad_calls_hurt_nobody(name: str, tmp_path: Path) -> None:
    for seed in range(TRIALS):
        attempt(name, seed, tmp_path)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(name=st.sampled_from(sorted(CALLABLES)), seed=st.integers(0, 2**48 - 1))
def test_any_bad_call_hurts_nobody(name: str, seed: int) -> None:
    with TemporaryDirectory() as folder:
        attempt(name, seed, Path(folder))


@pytest.mark.parametrize("backend", ["triton"])
def test_bad_calls_on_fused_kernels_hurt_nobody(backend: str, tmp_path: Path) -> None:
    for seed, name in enumerate(sorted(FUSED)):
        attempt(f"{name} on {backend}", seed, tmp_path)

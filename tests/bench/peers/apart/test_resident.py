"""The peak of the resident set is that of the call."""

from __future__ import annotations

import pytest

from newtriton.bench.peers.apart import resident

MB = 1 << 20


@pytest.mark.skipif(not resident.CLEAR.exists(), reason="counted by Linux")
def test_the_peak_is_what_a_call_adds() -> None:
    kept: list[bytearray] = []

    def call() -> None:
        kept.append(bytearray(b"x" * (40 * MB)))
        kept.clear()

    found = resident.peak_of(call)
    assert 75 * MB < found < 120 * MB  # the bytes, and the array that is made of them
    assert resident.peak_of(lambda: None) < 20 * MB


@pytest.mark.skipif(not resident.CLEAR.exists(), reason="counted by Linux")
def test_what_was_held_before_may_be_given() -> None:
    before = resident.trimmed()
    kept = bytearray(b"x" * (20 * MB))
    assert resident.peak_of(lambda: None, held=before) > 15 * MB
    assert kept

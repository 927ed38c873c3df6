"""Host times are those of calls whose memory lies where it lay."""

import torch

from newtriton.bench import host
from newtriton.runtime.checking.rehearsal import Rehearsal


def test_the_requests_of_a_call_are_answered_by_the_same_memory():
    addresses, calls = host.Addresses(), []
    for _ in range(2):
        with addresses.again():
            calls.append([torch.empty(3), torch.empty(3), torch.empty_like(torch.zeros(2))])
    first, second = calls
    assert all(a is b for a, b in zip(first, second, strict=True))
    assert first[0] is not first[1] and torch.empty(3) is not first[0]


def test_launches_and_replays_are_those_of_the_last_call():
    rehearsal = Rehearsal()

    def call() -> None:
        rehearsal.launches += 80
        rehearsal.replays += 1

    row = host.measure(call, rehearsal, rounds=3)
    assert (row["launches"], row["replays"]) == (80, 1) and row["host_ms"] >= 0.0
    assert rehearsal.replays == host.FIRST + 3

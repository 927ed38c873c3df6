"""Launches are recorded when a call comes again at the same addresses, and only then."""

import pytest
import torch

import newtriton as nt
from newtriton.runtime.fused.executor import FusedExecutor
from newtriton.runtime.fused.replay import MOST, Replays
from newtriton.runtime.fused.selection import Selection
from newtriton.runtime.fused.settings import Settings

from ...tolerances import assert_close


class Recorder:
    """Stands in for CUDA graphs: a recording does the work that was recorded."""

    def __init__(self) -> None:
        self.made, self.replayed = 0, 0

    def __call__(self, work):
        self.made += 1

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


def test_run_then_recorded_then_replayed():
    record, done = Recorder(), []
    replays = Replays(record)
    for _ in range(4):
        replays(lambda: "here", lambda: done.append(1))
    assert len(done) == 4 and record.made == 1 and record.replayed == 3


def test_other_addresses_are_another_recording():
    record, done = Recorder(), []
    replays = Replays(record)
    for address in (1, 2, 1, 2, 1, 2):
        replays(lambda address=address: address, lambda address=address: done.append(address))
    assert done == [1, 2, 1, 2, 1, 2] and record.made == 2


def test_addresses_that_never_return_are_forgotten():
    replays = Replays(Recorder())
    for address in range(3 * MOST):
        replays(lambda address=address: address, lambda: None)
    assert len(replays.known) == MOST


def test_what_cannot_be_recorded_is_run_and_said_once():
    def record(work):
        raise RuntimeError("operation not permitted when stream is capturing")

    replays, done = Replays(record), []
    replays(lambda: 0, lambda: done.append(1))
    with pytest.warns(UserWarning, match="not permitted"):
        replays(lambda: 0, lambda: done.append(1))
    replays(lambda: 0, lambda: done.append(1))
    assert len(done) == 3


@pytest.fixture
def program():
    """A network's outputs on fused kernels with a recorder, and what they should be."""
    torch.manual_seed(0)
    net = nt.Sequential(nt.Linear(5), nt.Tanh(), nt.Linear(3))
    model = nt.compile(net, input_shape=(4,), loss=nt.CrossEntropyLoss(), backend="aten")
    program, record = model.programs[True].outputs, Recorder()
    settings = Settings("ieee", "fused", True, 8192, record=record)
    fused = FusedExecutor(program.graph, (), Selection(settings))
    feed = program.feed(model.feed(torch.randn(6, 4)))

    def call() -> torch.Tensor:
        (found,) = fused(model.context(6), feed).values()
        (expected,) = model.executor(program)(model.context(6), feed).values()
        assert_close(found, expected)
        return found

    return call, record, feed


@pytest.mark.interpreter
def test_results_that_are_kept_are_never_written_again(program):
    call, record, _ = program
    results = [call() for _ in range(4)]
    assert all(torch.equal(r, results[0]) for r in results)
    assert record.made == 0  # each result has an address of its own


@pytest.mark.interpreter
def test_a_program_at_the_same_addresses_is_recorded(program, monkeypatch: pytest.MonkeyPatch):
    call, record, feed = program
    memory, empty = {}, torch.empty

    def same(*size, **what):
        return memory.setdefault(size, empty(*size, **what))

    monkeypatch.setattr(torch, "empty", same)
    for _ in range(4):
        for x in feed.values():
            x.mul_(0.9)  # other numbers at the same place
        call()
    assert (record.made, record.replayed) == (1, 3)

"""Ranks that are killed, or hang: the others end in time, and the run goes on to the bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import newtriton as nt
from newtriton.runtime.model.runner import Runner

from .cases import compiled, samples
from .workers import Workers, workers

RUNS = 9  # of programs, before the one in which a rank ends: in the middle of the third step
GIVEN = 3  # batches, before the one instead of which it does


# The ranks, the one of them that ends, how, and the seconds of their time-out.
CASES = [
    ([0, 1, 2], 2, "in a step", 60.0),
    ([0, 1], 0, "between steps", 60.0),
    ([1, 3], 3, "hangs", 4.0),
]
GROUPS: list[Any] = []  # theirs


def grouped(_: nt.DataParallel) -> None:
    """Makes the groups of all cases."""
    for ranks, _, _, seconds in CASES:
        GROUPS.append(dist.new_group(ranks, timeout=timedelta(seconds=seconds)))


class Deadly(nt.Batches):
    """Batches between two of which the process may end."""

    ends = False

    def _batches(self, *place: Any) -> Iterator[Any]:
        for number, batch in enumerate(super()._batches(*place)):
            if self.ends and number == GIVEN:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch


def fitted(parallel: nt.DataParallel, path: str) -> Tensor:
    """Two epochs of six steps, saved after each."""
    model = compiled("convolutional", parallel)
    batches = Deadly(*samples("convolutional", 60), 10, parallel=parallel)
    nt.fit(
        model, nt.FITRE(model), batches, epochs=2, progress=False, checkpoint=path,
        checkpoint_every=1, resume="auto",
    )  # fmt: skip
    return model.params


def ending(_: nt.DataParallel, case: int, path: str) -> str:
    """What a run says on the ranks that are left; one ends in the middle of a step or after it."""
    _, ends, how, _ = CASES[case]
    group = GROUPS[case]
    parallel, runs, run = nt.DataParallel(group), count(), Runner.run

    def deadly(*args: Any, **options: Any) -> Any:
        if next(runs) == RUNS:
            os.kill(os.getpid(), signal.SIGSTOP if how == "hangs" else signal.SIGKILL)
        return run(*args, **options)

    if dist.get_rank() == ends:
        if how == "between steps":
            Deadly.ends = True
        else:
            Runner.run = deadly  # type: ignore[method-assign]
    try:
        fitted(parallel, path)
    except nt.NewtritonError as error:
        return str(error)
    return "nothing"


@pytest.fixture(scope="module")
def mortal() -> Iterator[Workers]:
    found = Workers(4)
    found(grouped)
    yield found
    found.kill()


@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_others_end_and_the_run_goes_on_to_the_bit(
    mortal: Workers, tmp_path: Path, case: int
) -> None:
    path, (ranks, ends, *_) = str(tmp_path / "run"), CASES[case]
    left = [rank for rank in ranks if rank != ends]
    for returned, text in mortal.ask(ranks, left, ending, case, path):
        assert returned, text
        assert "another rank has ended, or does not answer within the group's time-out" in text
    expected = workers(len(ranks))(fitted, str(tmp_path / "whole"))
    for params, found in zip(expected, workers(len(ranks))(fitted, path), strict=True):
        assert torch.equal(params, found)

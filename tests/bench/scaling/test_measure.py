"""Two ranks send the bytes that the model says, to the byte; their steps are timed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

import newtriton as nt
from newtriton.bench.scaling import measure
from newtriton.bench.scaling.launching import Held


def test_the_bytes_that_are_counted_are_the_models() -> None:
    rows = measure.sent((2,), every=2)
    assert {row["network"] for row in rows} == {*measure.NETWORKS}
    assert all(row["counted"] == row["model"] > 0 for row in rows)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[nt.DataParallel]:
    """A group of one rank, which is this process."""
    at = f"file://{tmp_path / 'store'}"
    dist.init_process_group("gloo", init_method=at, rank=0, world_size=1)
    yield nt.DataParallel(dist.group.WORLD)
    dist.destroy_process_group()


def test_a_step_and_the_work_in_it_are_timed(alone: nt.DataParallel) -> None:
    held, parallel = Held(), alone
    measure.begin(measure.perceptron, (1, 8, 8), "replicated", 2, "wiener", parallel, held)
    first = measure.step(0, parallel, held)
    assert first["factorised"] == 1 and first["sent"] == 0.0
    assert first["seconds"] > 0.0 and first["worked"] > 0.0
    found = measure.work_of(1, parallel, held)
    assert {*found} == {"linearize", "quadratic", "evaluate", "factors", "factorise", "solve"}
    assert measure.sum_of(4, 2, parallel, held) >= 0.0

"""Long runs of small networks: what lives is counted, and must not grow.

    python -m tests.runtime.optimizers.endurance --steps 20000 --record build/endurance.json

trains with every preset, and prints what lived at a tenth of the steps and at the end.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

import newtriton as nt
from newtriton.compiler.graph import ir, scalar
from newtriton.runtime import reading

from .failures import OPTIMIZERS

LAST = 8  # steps before a mark on batches of known sizes


class Living(NamedTuple):
    """What lives in the process.

    Attributes:
        tensors: how many tensors.
        bytes: the bytes of their storages, each counted once.
        objects: how many Python objects the garbage collector knows.
        interned: the nodes and scalar expressions that are interned.
        remembered: the tensors of which a bound is remembered.
    """

    tensors: int
    bytes: int
    objects: int
    interned: int
    remembered: int


def living() -> Living:
    """Counts what lives, after a collection of garbage."""
    gc.collect()
    objects = gc.get_objects()
    # Tests of other modules leave fake and sparse tensors, which have no memory.
    plain = [x for x in objects if type(x) in (Tensor, Parameter) and x.layout is torch.strided]
    tensors = [x for x in plain if x.device.type == "cpu"]
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    interned = len(ir._interned) + len(scalar._interned)
    remembered = len(reading._REMEMBERED)
    return Living(len(tensors), sum(storages.values()), len(objects), interned, remembered)


def trained(
    kind: str, steps: int, marks: tuple[int, ...], sizes: tuple[int, int] = (8, 8)
) -> list[Living]:
    """Trains on batches of random sizes; returns what lived after some of the steps.

    Args:
        kind: one of `failures.OPTIMIZERS`.
        steps: how many.
        marks: after which of them to count.
        sizes: the least and the largest batch; before a mark they are the same in each run.
    """
    draw = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 5, generator=generator)
    y = torch.randint(3, (64,), generator=generator)  # of no relation to x: steps go on for ever
    net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3))
    model = nt.compile(
        net, (5,), nt.CrossEntropyLoss(), weight_decay=1e-3, seed=1, device="cpu", backend="aten"
    )
    optimizer = OPTIMIZERS[kind](model)
    found = []
    for step in range(1, steps + 1):
        size = int(draw.integers(sizes[0], sizes[1] + 1))
        left = min((mark - step for mark in marks if mark >= step), default=steps)
        if left < LAST:
            size = sizes[0] + left  # what lives depends on the batches that came last
        rows = torch.from_numpy(draw.choice(64, size, False))
        batch = x[rows], y[rows]
        _ = optimizer.step([batch]) if optimizer.takes_data else optimizer.step(*batch)
        if step in marks:
            found.append(living())
    return found


def main() -> None:
    """Trains with every kind of optimizer, and records what lived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--record", type=Path, default=None)
    parser.add_argument("kinds", nargs="*", default=[*OPTIMIZERS], help="of the optimizers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    for kind in options.kinds:
        start, marks = time.perf_counter(), (options.steps // 10, options.steps)
        before, after = trained(kind, options.steps, marks, (1, 64))
        rows[kind] = {
            "steps": options.steps,
            "seconds": round(time.perf_counter() - start, 1),
            "before": before._asdict(),
            "after": after._asdict(),
            "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }
        print(kind, json.dumps(rows[kind]), flush=True)
        if options.record is not None:
            options.record.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

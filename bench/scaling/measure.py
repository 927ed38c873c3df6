"""The cost model beside what gloo does: bytes of 1, 2 and 4 ranks, seconds of 1 and 2.

Ranks are processes of one thread. Of a step the seconds are those of the slowest rank, and so are
the seconds of work: a rank's own processor time, in which nobody else's work counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, product
from statistics import median
from typing import Any

import torch
from torch import Tensor

import newtriton as nt

from ...compiler.language.network import Layer
from ...runtime.parallel.share import own_part
from .launching import Held, ranks
from .model import Setting, calls
from .networks import described

Row = dict[str, Any]
EVERY, BATCH = 25, 200  # steps from one refresh to the next, and the samples of all ranks together
FIRST = 1  # steps that do not count: programs are made, the averages begin
SUMMED = 1 << 22  # numbers of a sum whose seconds tell those of a byte


def perceptron() -> nt.Sequential:
    """Returns three linear layers."""
    return nt.Sequential(nt.Flatten(), nt.Linear(64), nt.Tanh(), nt.Linear(32), nt.Linear(10))


def normed() -> nt.Sequential:
    """Returns convolutions with batch norm, whose statistics are summed over ranks."""
    return nt.Sequential(
        nt.Conv2d(8, 3), nt.BatchNorm2d(), nt.ReLU(), nt.Conv2d(8, 3, groups=2), nt.BatchNorm2d(),
        nt.Flatten(), nt.Linear(10),
    )  # fmt: skip


NETWORKS = {"perceptron": (perceptron, (1, 8, 8)), "batch norm": (normed, (1, 8, 8))}
VGG11 = nt.models.vgg11, (3, 32, 32)
MEMORIES: tuple[str | float, ...] = ("replicated", 0.5, "owned")
TIMED = "replicated", "owned"


# --- on the ranks ---------------------------------------------------------------------------------


def begin(
    make: Callable[[], Layer],
    shape: tuple[int, ...],
    memory: str | float,
    every: int,
    noise: str | None,
    parallel: nt.DataParallel,
    held: Held,
) -> None:
    """Makes an optimizer and this rank's parts of random batches."""
    net, loss = make(), nt.CrossEntropyLoss()
    parallel = nt.DataParallel(parallel.group, memory=memory)
    model = nt.compile(net, shape, loss, backend="aten", device="cpu", parallel=parallel)
    held["optimizer"] = nt.FITRE(model, every=every, burn_in=1, momentum=0.0, noise=noise)
    generator = torch.Generator().manual_seed(0)
    part, held["batches"] = own_part(parallel.ranks, slice(0, BATCH)), []
    for _ in range(4):
        x = torch.randn(BATCH, *shape, generator=generator)
        y = torch.randint(10, (BATCH,), generator=generator)
        held["batches"].append((x[part], y[part]))


def step(i: int, parallel: nt.DataParallel, held: Held) -> Row:
    """Makes a step; returns its seconds, the processor's, bytes sent, and factorisations made."""
    optimizer, (x, y) = held["optimizer"], held["batches"][i % len(held["batches"])]
    traffic = optimizer.model.parallel.ranks.traffic
    before = optimizer.solver.factorisations
    traffic.reset()
    start, worked = time.perf_counter(), time.process_time()
    optimizer.step(x, y)
    return {
        "seconds": time.perf_counter() - start,
        "worked": time.process_time() - worked,
        "sent": traffic.sent,
        "factorised": optimizer.solver.factorisations - before,
    }


def work_of(rounds: int, parallel: nt.DataParallel, held: Held) -> dict[str, float]:
    """Returns the processor's median seconds of each kind of work on a rank alone."""
    model: nt.Model = held["optimizer"].model
    x, y = held["batches"][0]
    curvature, solver, memory = nt.KroneckerCurvature(model), nt.KFI(), dict[Any, Tensor]()
    lin = model.linearize(x, y)
    curvature.update(lin)
    inverse, dampings = solver.prepare(curvature, 1.0), count(2)
    calls: dict[str, Callable[[], object]] = {
        "linearize": lambda: model.linearize(x, y),
        "quadratic": lambda: lin.quadratic_forms([lin.gradient]),
        "evaluate": lambda: model.objective(x, y),
        "factors": lambda: lin.kronecker_factors("kfac", memory=memory),
        "factorise": lambda: solver.prepare(curvature, float(next(dampings))),
        "solve": lambda: inverse.solve(lin.gradient),
    }
    found = dict[str, float]()
    for name, call in calls.items():
        seconds = list[float]()
        for _ in range(1 + rounds):
            start = time.process_time()
            call()
            seconds.append(time.process_time() - start)
        found[name] = median(seconds[1:])
    return found


def sum_of(numbers: int, rounds: int, parallel: nt.DataParallel, held: Held) -> float:
    """Returns the least seconds of a sum over ranks of so many numbers."""
    x, seconds = torch.ones(numbers), list[float]()
    for _ in range(rounds):
        start = time.perf_counter()
        parallel.ranks.sum_(x)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


# --- beside the model -----------------------------------------------------------------------------


def sent(sizes: Sequence[int] = (1, 2, 4), every: int = 3) -> list[Row]:
    """Returns rows of the bytes of steps up to a refresh and with it: the model's, and counted."""
    rows = list[Row]()
    for size in sizes:
        with ranks(size) as ask:
            for (name, (make, shape)), memory in product(NETWORKS.items(), MEMORIES):
                ask(partial(begin, make, shape, memory, every, None))
                made = [ask(partial(step, i)) for i in range(FIRST + every)][FIRST:]
                counted = sum(s["sent"] for each in made for s in each) / size
                setting = Setting(size, BATCH // size, every, memory)
                each = sum(call.sent for call in calls(described(make(), shape), setting))
                known = {"network": name, "memory": memory, "ranks": size, "steps": every}
                rows.append(known | {"model": round(every * each), "counted": round(counted)})
    return rows


def timed(memory: str | float, windows: int) -> list[Row]:
    """Returns rows of VGG11's steps on one rank and on two in turn, and of what they are made of.

    Args:
        memory: how the two keep factors.
        windows: how many times the steps from one refresh to the next are made.
    """
    rows = list[Row]()
    with ranks(1) as one, ranks(2) as two:
        for ask in (one, two):
            ask(partial(begin, *VGG11, memory, EVERY, "wiener"))
        for i in range(FIRST + windows * EVERY):
            for size, ask in ((1, one), (2, two)):
                each = ask(partial(step, i))
                slowest = {name: round(max(s[name] for s in each), 4) for name in each[0]}
                load = round(os.getloadavg()[0], 1)
                rows.append({"step": i, "memory": memory, "ranks": size, **slowest, "load": load})
        call, long = (max(two(partial(sum_of, numbers, 10))) for numbers in (1, SUMMED))
        work = one(partial(work_of, 3))[0]
    byte = max(long - call, 0.0) / (4 * SUMMED)  # two ranks send b bytes for a sum of b
    return [*rows, {"memory": memory, "work": work, "call": call, "byte": byte}]

"""The cost model beside what gloo does: bytes of 1, 2 and 4 ranks, seconds of 1 and 2.

Ranks are processes of one thread. Of a step the seconds are those of the slowest rank, and so are
the seconds of work: a rank's own processor time, in which nobody else's work counts.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

import newtriton as nt

from ...compiler.language.network import Layer
from ...runtime.parallel.share import own_part
from .launching import Held, ranks
from .machine import Algorithm, Machine
from .model import Setting, calls, cost
from .networks import described

Row = dict[str, Any]
EVERY, BATCH = 25, 200  # steps from one refresh to the next, and the samples of all ranks together
FIRST = 1  # steps that do not count: programs are made, the averages begin


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
MEMORIES: tuple[str | float, ...] = ("replicated",)


# --- on the ranks ---------------------------------------------------------------------------------


def begin(
    net: Layer, shape: tuple[int, ...], every: int, noise: str | None, parallel: Any, held: Held
) -> None:
    """Makes an optimizer and this rank's parts of random batches."""
    loss, cpu = nt.CrossEntropyLoss(), {"device": "cpu", "backend": "aten"}
    model = nt.compile(net, shape, loss, parallel=parallel, **cpu)
    held["optimizer"] = nt.FITRE(model, every=every, burn_in=1, momentum=0.0, noise=noise)
    generator = torch.Generator().manual_seed(0)
    held["batches"] = []
    for _ in range(4):
        x = torch.randn(BATCH, *shape, generator=generator)
        y = torch.randint(10, (BATCH,), generator=generator)
        part = own_part(parallel.ranks, slice(0, BATCH))
        held["batches"].append((x[part], y[part]))


def step(i: int, parallel: nt.DataParallel, held: Held) -> tuple[float, float, float]:
    """Makes a step; returns its seconds, those of them that this rank worked, the bytes sent."""
    x, y = held["batches"][i % len(held["batches"])]
    traffic = parallel.ranks.traffic
    traffic.reset()
    start, worked = time.perf_counter(), time.process_time()
    held["optimizer"].step(x, y)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    return seconds, worked, traffic.sent(parallel.ranks.size)


def rates(rounds: int, parallel: nt.DataParallel, held: Held) -> dict[str, float]:
    """Returns the median seconds of each kind of work, see `model.work`, on a rank alone."""
    model: nt.Model = held["optimizer"].model
    x, y = held["batches"][0]
    curvature, solver = nt.KroneckerCurvature(model), nt.KFI()
    lin = model.linearize(x, y)
    curvature.update(lin)
    memory: dict[Any, Tensor] = {}
    work = {
        "linearize": lambda: model.linearize(x, y),
        "quadratic": lambda: lin.quadratic_forms([lin.gradient]),
        "evaluate": lambda: model.objective(x, y),
        "factors": lambda: lin.kronecker_factors("kfac", memory=memory),
        "factorise": lambda: solver.prepare(curvature, 1.0 + time.perf_counter()),
        "solve": lambda: inverse.solve(lin.gradient),
    }
    inverse, found = solver.prepare(curvature, 1.0), {}
    for name, call in work.items():
        call()
        found[name] = median(_worked(call) for _ in range(rounds))
    return found


def _worked(call: Any) -> float:
    """Returns the processor's seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def summed(sizes: tuple[int, ...], rounds: int, parallel: nt.DataParallel, held: Held) -> list[float]:
    """Returns the median seconds of sums of so many numbers."""
    found = list[float]()
    for size in sizes:
        x, seconds = torch.ones(size), list[float]()
        for _ in range(rounds):
            start = time.perf_counter()
            parallel.ranks.sum_(x)
            seconds.append(time.perf_counter() - start)
        found.append(median(seconds))
    return found


# --- beside the model -----------------------------------------------------------------------------


def sent(sizes: tuple[int, ...] = (1, 2, 4), every: int = 3) -> list[Row]:
    """Returns rows of the bytes of steps up to a refresh and with it: the model's, and counted."""
    rows = list[Row]()
    for size in sizes:
        with ranks(size) as ask:
            for name, (make, shape) in NETWORKS.items():
                network = described(make(), shape, nt.CrossEntropyLoss())
                for memory in MEMORIES:
                    ask(partial(begin, make(), shape, every, None))
                    made = [ask(partial(step, i)) for i in range(FIRST + every)][FIRST:]
                    setting = Setting(size, BATCH // size, every, memory)
                    known = {"network": name, "ranks": size, "memory": memory, "steps": every}
                    expected = every * sum(call.sent for call in calls(network, setting))
                    counted = {round(sum(b for *_, b in of_rank)) for of_rank in zip(*made)}
                    rows.append(known | {"model": round(expected), "counted": max(counted)})
    return rows


def timed(windows: int = 1, rounds: int = 3) -> tuple[list[Row], list[Row]]:
    """Returns rows of VGG11's steps on one rank and on two, in turn, and what the model says.

    Args:
        windows: how many times the steps from one refresh to the next are made.
        rounds: how often the kinds of work are timed, from which the model's rates follow.
    """
    net, shape = nt.models.vgg11, (3, 32, 32)
    steps = list[Row]()
    with ExitStack() as stack:
        groups = {size: stack.enter_context(ranks(size)) for size in (1, 2)}
        for ask in groups.values():
            ask(partial(begin, net(), shape, EVERY, "wiener"))
        for i in range(FIRST + windows * EVERY):
            for size, ask in groups.items():
                each = ask(partial(step, i))
                seconds, worked = (max(column) for column in [*zip(*each, strict=True)][:2])
                row = {"step": i, "ranks": size, "load": round(os.getloadavg()[0], 1)}
                steps.append(row | {"seconds": round(seconds, 3), "worked": round(worked, 3)})
                print(steps[-1], flush=True)
        work = groups[1](partial(rates, rounds))[0]
        sizes = 1, 1 << 24
        short, long = groups[2](partial(summed, sizes, 10 * rounds))[0]
    network = described(net(), shape, nt.CrossEntropyLoss())
    print(work, short, long)
    return steps, []

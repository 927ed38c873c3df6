"""Memory counted on tensors without numbers, against sums by hand and the bytes of a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.runtime.footprint import META, Allocations, Footprint


def counted(work: Callable[[Tensor], object], lazily: bool = False) -> Footprint:
    x = torch.empty(8, 4, device=META)
    with Allocations(lazily) as found:
        held = work(x)
        footprint = found.footprint
    del held
    assert found.now == 0
    return footprint


def test_results_count_while_they_are_held() -> None:
    assert counted(lambda x: x + x) == Footprint(128, 128)
    assert counted(lambda x: (x + x).exp()) == Footprint(256, 128)
    assert counted(lambda x: (x + x).exp().sum()) == Footprint(256, 4)


def test_views_and_what_is_written_in_place_take_nothing() -> None:
    assert counted(lambda x: x.view(4, 8).mT.mul_(2.0)) == Footprint(0, 0)


@pytest.mark.parametrize(("lazily", "expected"), [(False, 256), (True, 128)])
def test_memory_that_is_never_written_takes_pages_on_a_gpu_alone(
    lazily: bool, expected: int
) -> None:
    def work(x: Tensor) -> tuple[Tensor, Tensor]:
        written = torch.empty_like(x)
        return torch.empty_like(x), torch.add(x, x, out=written)

    assert counted(work, lazily) == Footprint(expected, expected)


def test_what_operators_work_in_counts_at_the_peak_alone() -> None:
    def work(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.linalg.eigh(x.new_ones(10, 10))

    assert counted(work) == Footprint(400 + 440 + 800, 440)
    assert counted(lambda x: x.mT @ x) == Footprint(64 + 128, 64)  # rows that lie by columns


def test_images_lie_with_their_channels_last() -> None:
    def work(x: Tensor) -> Tensor:
        image = x.new_ones(2, 3, 5, 5).contiguous(memory_format=torch.channels_last)
        found = torch.conv2d(image, x.new_ones(4, 3, 1, 1))
        return found.contiguous(memory_format=torch.channels_last)

    assert counted(work).kept == 4 * 2 * 4 * 25


def test_a_program_is_counted_exactly() -> None:
    net = nt.Sequential(nt.Linear(7, bias=False), nt.Tanh(), nt.Linear(3, bias=False))
    model = nt.compile(net, (5,), nt.MSELoss(), backend="aten", device="cpu")
    program = model.programs[True].outputs
    (count,) = model.runner.footprints(model.programs[True], [program], 11).values()
    # The hidden layer before and after its activation; then that and the outputs.
    for batch in (1, 11, 1000):
        assert count(batch) == Footprint(4 * batch * 14, 4 * batch * 3)


def test_what_is_taken_in_chunks_is_counted_at_any_batch_size() -> None:
    net = nt.Sequential(nt.Linear(7), nt.Tanh(), nt.Linear(3))
    model = nt.compile(net, (5,), nt.MSELoss(), backend="aten", device="cpu")
    known = model.programs[True]
    (count,) = model.runner.footprints(known, [known.linearize], 11).values()
    small, large, huge = (count(batch).peak for batch in (10**6, 10**7, 10**10))
    assert huge - large == 1110 * (large - small)


PROBE = """
import gc, torch
import newtriton as nt
from newtriton.kernels.memory import keep_at_most

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))

def measured(call):
    gc.collect()
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")
    result = call()
    return status("VmHWM") - before, result

def compare(name, net, shape, batch):
    model = nt.compile(net, shape, nt.CrossEntropyLoss(), backend="aten", device="cpu")
    x, y = torch.randn(batch, *shape), torch.randint(0, 10, (batch,))
    known = model.programs[True]
    lin = model.linearize(x[:4], y[:4])
    lin.ggnvp(model.params), lin.kronecker_factors("kfac")
    programs = [known.linearize, known.ggnvp, known.factors("kfac")]
    counts = model.runner.footprints(known, programs, batch).values()
    counts = [count(batch).peak for count in counts]
    taken, lin = measured(lambda: model.linearize(x, y))
    print(name, counts[0], taken)
    print(name, counts[1], measured(lambda: lin.ggnvp(model.params))[0])
    print(name, counts[2], measured(lambda: lin.kronecker_factors("kfac"))[0])

torch.set_num_threads(1)
keep_at_most(0)
S, L, C = nt.Sequential, nt.Linear, nt.Conv2d
compare("mlp", S(L(512), nt.Tanh(), L(512), nt.ReLU(), L(10)), (256,), 12000)
compare("lenet", S(C(6, 5, padding=2), nt.Tanh(), nt.AvgPool2d(2), C(16, 5), nt.Tanh(),
        nt.AvgPool2d(2), nt.Flatten(), L(84), nt.Tanh(), L(10)), (1, 28, 28), 2000)
compare("vgg", S(C(16, 3, padding=1), nt.ReLU(), nt.MaxPool2d(2), C(32, 3, padding=1), nt.ReLU(),
        nt.Flatten(), L(10)), (3, 16, 16), 2000)
compare("transformer", S(nt.SelfAttention(4), nt.LayerNorm(64), L(128), nt.GELU(), L(64),
        nt.Flatten(), L(10)), (32, 64), 500)
"""
LIBRARIES = 12 << 20  # bytes that PyTorch takes for itself meanwhile, once


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_the_count_is_what_a_process_takes() -> None:
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=False, env=environment
    )
    assert not run.returncode, run.stderr
    for line in run.stdout.splitlines():
        count, taken = map(int, line.split()[1:])
        assert 0.97 * taken - LIBRARIES <= count <= 1.03 * taken + LIBRARIES, line

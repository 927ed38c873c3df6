"""Models in forked processes: in one thread on a CPU, refused on a GPU."""

import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

import newtriton as nt
from newtriton.runtime import forks
from newtriton.runtime.forks import check_process

from ..sources import ROOT

SCRIPT = """
import multiprocessing, os, signal, sys, warnings
import torch
import newtriton as nt

torch.set_num_threads(2)
x, y = torch.randn(2000, 500), torch.arange(2000) % 10
model = nt.compile(nt.Linear(10), (500,), nt.CrossEntropyLoss(), backend="aten", device="cpu")
optimizer = nt.KFAC(model)
optimizer.step(x, y)  # with threads, which the child has not

def step():
    signal.alarm(60)  # rather than wait for them without end
    optimizer.step(x, y)

child = multiprocessing.get_context("fork").Process(target=step)
child.start()
child.join()
sys.exit(child.exitcode)
"""


@pytest.fixture(autouse=True)
def _lost(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.setattr(forks, "_lost", forks._Lost())
    yield
    torch.set_num_threads(threads)


def test_a_child_of_a_process_with_threads_computes_in_one():
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("computes in one: start processes by the method 'spawn'") == 1


def _reports(queue, model: nt.Model, x: torch.Tensor) -> None:
    queue.put((forks._lost.threads, model(x).tolist()))


@pytest.mark.interpreter
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_a_model_is_called_in_a_child(backend: str):
    """Another thread lives, and what it may have had locked is free there."""
    net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3))
    model = nt.compile(net, (5,), nt.CrossEntropyLoss(), backend=backend, device="cpu")
    x, done = torch.randn(6, 5), threading.Event()
    expected = model(x).tolist()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    threading.Thread(target=done.wait).start()
    child = context.Process(target=_reports, args=(queue, model, x))
    child.start()
    done.set()
    child.join(60)
    assert child.exitcode == 0 and queue.get() == (True, expected)


def test_a_gpu_is_refused_where_the_parent_has_used_one():
    check_process(torch.device("cuda"))
    forks._before.gpu = True
    forks._lose()
    forks._before.gpu = False
    with pytest.raises(nt.NewtritonError, match=r"cannot use it: start processes by.*'spawn'"):
        check_process(torch.device("cuda"))


def test_there_is_one_warning_and_one_thread():
    torch.set_num_threads(2)
    check_process(torch.device("cpu"))
    assert torch.get_num_threads() == 2
    forks._lost.threads = True
    with pytest.warns(UserWarning, match="computes in one") as warned:
        for _ in range(2):
            check_process(torch.device("cpu"))
    assert len(warned) == 1 and torch.get_num_threads() == 1

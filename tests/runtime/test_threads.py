"""Threads: models are independent, and calls on one model that train nothing may be made by many.

Threads switch every 10 µs here, and values are compared bit by bit with those of one thread.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.runtime.aten.executor import AtenBackend

from ..sources import ROOT
from ..tolerances import assert_close

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3
BACKENDS = "aten", "triton"

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def _switching() -> Iterator[None]:
    """Threads switch often; a hang shows where."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    faulthandler.dump_traceback_later(120.0, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    sys.setswitchinterval(interval)


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What calls return, each in a thread of its own, that begin together."""
    barrier = threading.Barrier(len(calls))

    def begun(call: Callable[[], Any]) -> Any:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begun, calls))


def compiled(
    backend: str, dtype: torch.dtype = torch.float32, width: int = 5, norm: bool = True
) -> nt.Model:
    middle = nt.BatchNorm1d() if norm and backend == "aten" else nt.Dropout(0.2)
    net = nt.Sequential(nt.Linear(width), middle, nt.Tanh(), nt.Linear(3))
    loss = nt.CrossEntropyLoss()
    return nt.compile(net, (4,), loss, backend=backend, device="cpu", dtype=dtype, seed=1)


def trained(preset: str, backend: str, dtype: torch.dtype, width: int) -> Tensor:
    """Parameters after some steps of a new model."""
    model = compiled(backend, dtype, width, norm=preset in ("FITRE", "KFAC"))
    optimizer = getattr(nt, preset)(model)
    x, epochs = X.to(dtype), 1 if backend == "triton" else 2
    nt.fit(model, optimizer, nt.Batches(x, Y, 12, seed=width), epochs=epochs, progress=False)
    return model.params


def same(found: Any, expected: Any) -> None:
    """Asserts that values are the same bits."""
    if isinstance(expected, Tensor):
        assert torch.equal(found, expected)
        return
    for one, other in zip(found, expected, strict=True):
        same(one, other)


PRESETS = [
    *((name, "aten", dtype) for name in ("FITRE", "KFAC", "KFRA", "EACG", "NewtonCG")
      for dtype in (torch.float32, torch.float64)),
    ("KFAC", "triton", torch.float32),
]  # fmt: skip


@pytest.mark.parametrize(("preset", "backend", "dtype"), PRESETS)
def test_models_are_trained_in_threads(preset: str, backend: str, dtype: torch.dtype):
    """Of other widths, and of the same."""
    runs = [lambda width=w: trained(preset, backend, dtype, width) for w in (5, 6, 5)]
    found = at_once(runs)
    same(found, [run() for run in runs])


def answers(lin: nt.Linearization) -> list[Tensor]:
    """What a linearization is asked for."""
    v, w = torch.randn(2, len(lin.model.params), generator=torch.Generator().manual_seed(3))
    found = [lin.gradient, lin.hvp(v), lin.ggnvp(w)]
    if not isinstance(lin.model.backend, AtenBackend):
        return found  # the interpreter takes its time
    found += [
        lin.ggnvp(v, "stored-jacobian"),
        lin.quadratic_forms([v, w]),
        lin.quadratic_forms([v, w], "ggn"),
    ]
    factors = lin.kronecker_factors("kfac", 2, torch.Generator().manual_seed(4))
    return found + [t for pair in factors.values() for t in pair.tensors.values()]


@pytest.mark.parametrize("backend", BACKENDS)
def test_linearizations_of_one_model_are_used_in_threads(backend: str):
    expected_of = compiled(backend)
    expected = [answers(expected_of.linearize(x, y, training=False)) for x, y in parts()]
    model = compiled(backend)
    made = [model.linearize(x, y, training=False) for x, y in parts()]
    same(at_once([lambda lin=lin: answers(lin) for lin in made]), expected)


def test_linearizations_are_made_in_threads():
    model = compiled("aten")
    calls = [lambda x=x, y=y: answers(model.linearize(x, y, training=False)) for x, y in parts()]
    same(at_once(calls), [call() for call in calls])


def parts() -> list[tuple[Tensor, Tensor]]:
    """Batches, of two sizes."""
    return [(X[:6], Y[:6]), (X[6:], Y[6:]), (X[1:7], Y[1:7])]


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_linearization_is_used_in_threads(backend: str):
    lin = compiled(backend).linearize(X, Y, training=False)
    expected = answers(compiled(backend).linearize(X, Y, training=False))
    same(at_once([lambda: answers(lin)] * 2), [expected] * 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_is_first_called_in_threads(backend: str):
    def calls(model: nt.Model) -> list[Callable[[], Tensor]]:
        def gradient() -> Tensor:
            return model.linearize(X, Y, training=False).gradient

        return [lambda: model(X), lambda: model.loss(X, Y), gradient, lambda: model(X)]

    same(at_once(calls(compiled(backend))), [call() for call in calls(compiled(backend))])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_is_called_while_others_are_compiled(backend: str):
    model = compiled(backend)
    expected, widths = model(X), (7, 8)

    def first(width: int) -> Tensor:
        return compiled(backend, width=width).linearize(X, Y).gradient

    calls = [lambda: [model(X) for _ in range(10)], *(lambda w=w: first(w) for w in widths)]
    called, *gradients = at_once(calls)
    same(called, [expected] * 10)
    same(gradients, [first(width) for width in widths])


def test_modules_are_captured_in_threads():
    def switches() -> tuple[object, ...]:
        filters, disabled = list(warnings.filters), logging.root.manager.disable
        return torch.backends.mha.get_fastpath_enabled(), torch.is_grad_enabled(), filters, disabled

    torch.manual_seed(0)
    modules = [nn.Sequential(nn.Linear(4, w), nn.Tanh(), nn.Linear(w, 3)) for w in (5, 6)]

    def captured(module: nn.Module) -> Tensor:
        model = nt.from_torch(module, X, nt.CrossEntropyLoss(), backend="aten", device="cpu")
        return model(X)

    before = switches()
    found = at_once([lambda module=module: captured(module) for module in modules])
    for outputs, module in zip(found, modules, strict=True):
        assert_close(outputs, module(X).detach())
    assert switches() == before


SCRIPT = """
import gc, threading, torch
import newtriton as nt

def run(backend, preset):
    net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3))
    x, y = torch.randn(8, 5), torch.arange(8) % 3
    model = nt.compile(net, (5,), nt.CrossEntropyLoss(), backend=backend, device="cpu")
    optimizer = getattr(nt, preset)(model)
    nt.fit(model, optimizer, nt.Batches(x, y, 8), epochs=1, progress=False)

runs = ("aten", "FITRE"), ("triton", "KFAC")
threads = [threading.Thread(target=run, args=each) for each in runs]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
model = nt.from_torch(torch.nn.Linear(5, 3), torch.randn(2, 5), nt.CrossEntropyLoss(), device="cpu")
gc.collect()
"""


def test_nothing_is_said_in_the_development_mode(tmp_path: Path):
    """Of files that are not closed, for example, or threads that crash."""
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1", "NEWTRITON_CACHE": str(tmp_path)}
    command = [sys.executable, "-X", "dev", "-c", SCRIPT]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

"""Launches on a GPU that is not there: all that Python does for a call, without what it waits for.

Kernels are made by Triton's own path up to its compiler, which a stand-in replaces; launches end at
the driver, where their arguments are held against what the kernel was compiled for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any, cast
from unittest.mock import patch

import torch
import triton
import triton.compiler as triton_compiler
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from ...compiler.language.loss import Loss
from ...compiler.language.network import Layer
from ..fused import compiling
from ..fused.backend import TritonBackend
from ..fused.chips import CHIPS
from ..fused.compiling import Elsewhere, Job
from ..fused.settings import Settings
from ..fused.storage import LIMIT
from ..model.model import Model

DIVISIBILITY = ["tt.divisibility", 16]


@dataclass
class Rehearsal:
    """What has happened.

    Attributes:
        ahead: Triton's keys of the kernels that were compiled before anything was launched.
        loaded: the keys of those that were loaded to be launched.
        pools: the number of kernels of each pool of processes that compiled them.
        launches: the number of launches.
        recordings: how often launches were recorded.
        replays: how often a recording was replayed.
        faults: what was wrong with the arguments of launches, a sentence each.
    """

    ahead: set[str] = field(default_factory=set)
    loaded: set[str] = field(default_factory=set)
    pools: list[int] = field(default_factory=list)
    launches: int = 0
    recordings: int = 0
    replays: int = 0
    faults: list[str] = field(default_factory=list)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Records work as a CUDA graph would: it is done once, and replaying does nothing."""
        work()
        self.recordings += 1

        def replay() -> None:
            self.replays += 1

        return replay

    def model(
        self,
        net: Layer,
        shape: tuple[int, ...],
        loss: Loss,
        precision: str = "ieee",
        recorded: bool = True,
    ) -> Model:
        """Returns a model whose kernels are launched here; no number it gives means anything."""
        record = self.record if recorded else None
        backend = TritonBackend(Settings(precision, "fused", record=record), torch.device("cpu"))
        return Model(net, shape, loss, backend, torch.float32, 0.0, 0)


class _Kernel:
    """What Triton's compiler would give."""

    def __init__(self, source: Any, rehearsal: Rehearsal) -> None:
        self.source, self.rehearsal = source, rehearsal
        self.aligned = {
            path for path, attributes in source.attrs.items() if DIVISIBILITY in attributes
        }

    def __getitem__(self, grid: tuple[int, int, int]) -> Callable[..., None]:
        def launch(*arguments: Any) -> None:
            active: Any = driver.active
            active.get_current_stream(active.get_current_device())
            self.rehearsal.launches += 1
            kinds = self.source.signature.items()
            for (name, kind), argument in zip(kinds, arguments, strict=True):
                if not _fits(kind, argument):
                    self._fault(f"{name} is {kind}, not {argument}")
            for path in self.aligned:
                found: Any = arguments
                for place in path:
                    found = found[place]
                if found % 16:
                    self._fault(f"{path} is at {found}")

        return launch

    def _fault(self, what: str) -> None:
        self.rehearsal.faults.append(f"{self.source.name}: {what}")


def _fits(kind: Any, argument: Any) -> bool:
    """Whether an argument is of a kernel's type: pointers are given as addresses."""
    if isinstance(kind, tuple):
        both = zip(kind, argument, strict=True)
        return isinstance(argument, tuple) and all(_fits(k, a) for k, a in both)
    if kind.startswith("*"):
        return isinstance(argument, int) and argument > 0
    if kind == "i32":
        return isinstance(argument, int) and -LIMIT <= argument < LIMIT
    return kind == "constexpr" or isinstance(argument, float)


@contextmanager
def rehearsed(chip: str = "sm_90") -> Iterator[Rehearsal]:
    """Lets kernels be launched on a GPU that is not there.

    Args:
        chip: which one, by its name in `CHIPS`.
    """
    rehearsal, target, settings = Rehearsal(), CHIPS[chip].target, cast(Any, triton).knobs
    keys, functions = rehearsal.loaded, list[Any]()

    def compile(src: Any, target: Any = None, options: Any = None, _env_vars: Any = None) -> Any:
        keys.add(f"{src.name} {src.hash()} {sorted((options or {}).items(), key=str)}")
        functions.append(src.fn)
        return _Kernel(src, rehearsal)

    def compile_all(jobs: list[Job], targets: list[GPUTarget], workers: int) -> int:
        nonlocal keys
        keys = rehearsal.ahead
        rehearsal.pools.append(len(jobs))
        for job in jobs:
            job.compiled(targets[0])
        forget()  # as if that had been in another process
        keys = rehearsal.loaded
        driver.set_active(Elsewhere(target))  # type: ignore[arg-type]
        return 0

    def forget() -> None:
        for function in functions:
            function.device_caches.clear()

    driver.set_active(Elsewhere(target))  # type: ignore[arg-type]
    try:
        with (
            patch.object(triton_compiler, "compile", compile),
            patch.multiple(compiling, compile_all=compile_all, compiled_here=set()),
            TemporaryDirectory() as notes,  # they would be wrong elsewhere
            patch.object(settings.cache, "dir", notes),
        ):
            yield rehearsal
    finally:
        forget()
        driver.set_active(None)  # type: ignore[arg-type]  # until somebody asks for one

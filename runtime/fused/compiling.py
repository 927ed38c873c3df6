"""Compiling kernels before they are launched, several at a time, for GPUs that need not be there.

A job is compiled by the very call that would launch it, in a process whose driver is a stand-in. So
what is compiled is what will run, and Triton has it in its cache by then.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import current_process
from typing import Any, TypeVar

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.cache import get_cache_manager
from triton.runtime.driver import driver
from triton.runtime.jit import MockTensor

from ...compiler.graph.errors import NewtritonError
from ..caching.kernels import verified
from ..processes import Lost, in_processes
from . import codecache

Result = TypeVar("Result")
DTYPES = {
    "*fp32": torch.float32, "*bf16": torch.bfloat16, "*i32": torch.int32, "*i64": torch.int64,
}  # fmt: skip
NUMBERS = {"i32": 7, "fp32": 0.5}  # their values are not compiled into a kernel
NOTE = "newtriton-compiled"  # the name of the file that says so
UNALIGNED = " at any address"  # behind a pointer type: otherwise it is a multiple of 16 bytes


@dataclass(frozen=True)
class Job:
    """What a kernel is compiled from.

    Attributes:
        name: what it belongs to: network, precision, program and nodes.
        kind: "contraction", "outer", "pass" or "pointwise".
        function: the Triton kernel.
        types: the Triton types of its arguments, by name; a tuple of pointers is a tuple of types.
        constants: its constexpr arguments and options, by name.
        precision: the precision of its operands.
        warps: the number of warps.
        stages: the stages of its pipelined loops.
        flat: whether images have fewer channels than one copy takes.
        narrow: whether a row is no multiple of 16 bytes, or shorter than a tile.
        odd: whether a row is of an odd number of 16-bit values.
        tile: rows, columns and depth of the tile of a contraction; of a pass, rows and columns.
        wide: the functions whose accesses to whole tiles should be of 16 bytes.
        products: the products in one turn of its loop.
    """

    name: str
    kind: str
    function: Any
    types: Mapping[str, Any]
    constants: Mapping[str, Any]
    precision: str = "ieee"
    warps: int = 4
    stages: int = 3
    flat: bool = False
    narrow: bool = False
    odd: bool = False
    tile: tuple[int, int, int] = (0, 0, 0)
    wide: frozenset[str] = frozenset()
    products: int = 1

    @property
    def key(self) -> tuple[str, ...]:
        """All that the compiled kernel depends on, in words.

        Generated functions count by their names: their modules are named after their content.
        """
        source = getattr(self.function, "cache_key", self.function)
        constants = sorted(self.constants.items())
        options = f"{self.warps} warps, {self.stages} stages"
        return f"{source}", f"{sorted(self.types.items())}", f"{constants}", options

    def loaded(self) -> Any:
        """Returns the kernel for the current GPU, from Triton's cache if it is there."""
        given = {name: _argument(kind) for name, kind in self.types.items()}
        options = {"num_warps": self.warps, "num_stages": self.stages}
        with verified():
            return self.function.warmup(grid=(1,), **{**given, **self.constants}, **options)

    def compiled(self, target: GPUTarget) -> Any:
        """Returns the kernel for a GPU that need not be there."""
        driver.set_active(Elsewhere(target))  # type: ignore[arg-type]
        return self.loaded()


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, in this process."""
    return os.environ.get("TRITON_INTERPRET") == "1"


class _Unaligned(MockTensor):
    """A tensor whose address is no multiple of 16 bytes."""

    @staticmethod
    def data_ptr() -> Any:
        return 4


def _argument(kind: Any) -> Any:
    """Returns an argument of a type."""
    if isinstance(kind, tuple):
        return tuple(map(_argument, kind))
    plain = kind.removesuffix(UNALIGNED)
    if plain not in DTYPES:
        return NUMBERS[plain]
    return (MockTensor if plain == kind else _Unaligned)(DTYPES[plain])


class Elsewhere:
    """The driver of a GPU that is not there, for compilation alone."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:  # noqa: D102 - as Triton calls them
        return self.target

    def get_current_device(self) -> str:  # noqa: D102
        return str(self.target)

    def get_current_stream(self, device: object) -> int:  # noqa: D102
        return 0


def distinct(jobs: Iterable[Job]) -> list[Job]:
    """Returns the jobs without those that would compile the same again."""
    found: dict[tuple[str, ...], Job] = {}
    for job in jobs:
        found.setdefault(job.key, job)
    return list(found.values())


def in_pool(
    function: Callable[[Job, GPUTarget], Result],
    jobs: Sequence[Job],
    targets: Sequence[GPUTarget],
    workers: int,
) -> Iterator[Result]:
    """Yields what a function makes of every job and target, as they come, from a pool of processes.

    Raises:
        NewtritonError: kernels are being interpreted in this process.
        Lost: in the end, where processes were killed.
    """
    if interpreted():
        raise NewtritonError("kernels are interpreted here: unset TRITON_INTERPRET to compile them")
    # Functions of generated modules cannot be sent to a process; one that is forked has them.
    calls = [partial(function, job, target) for target in targets for job in jobs]
    yield from in_processes(calls, workers)


def current_target() -> GPUTarget:
    """Returns the GPU that kernels would be launched on now."""
    found: Any = driver.active.get_current_target()
    return found


def compile_once(jobs: Iterable[Job], name: str) -> None:
    """Compiles jobs for the current GPU, unless that has been done with these versions.

    A note says so. It lies in Triton's own cache, beside what has been compiled, and goes with it.
    Nothing is compiled where kernels are interpreted.

    Args:
        jobs: the kernels of a program.
        name: the name of the program.
    """
    if interpreted():
        return
    kernels = distinct(jobs)
    keys = [job.key for job in kernels]
    text = f"{current_target()} {triton.__version__} {keys}"
    with verified():
        cache = get_cache_manager(codecache.digest(text))
    if cache.get_file(NOTE) is None:
        compile_here(kernels)
        cache.put(f"{name} for {current_target()}\n", NOTE, binary=False)


def compile_here(jobs: Sequence[Job]) -> None:
    """Compiles for the current GPU in as many processes as there are cores for them.

    What this process has had compiled before is left out.
    """
    if current_process().daemon:
        return  # it may have no children: the first launches compile
    target = current_target()
    new = [job for job in jobs if (target, job.key) not in compiled_here]
    if new:
        workers = min(len(new), len(os.sched_getaffinity(0)))
        compile_all(new, [target], workers)
        compiled_here.update((target, job.key) for job in new)


def compile_all(jobs: Sequence[Job], targets: Sequence[GPUTarget], workers: int) -> int:
    """Compiles into Triton's cache, and returns how many jobs did not compile.

    Those will say why when they are launched.
    """
    # Of pointwise kernels those with many pointers take longest: sums of many parts.
    longest_first = sorted(jobs, key=lambda j: (j.kind == "pointwise", -len(str(j.types))))
    compiled = 0
    with suppress(Lost):
        for good in in_pool(_compiles, longest_first, targets, workers):
            compiled += good
    return len(jobs) * len(targets) - compiled


def _compiles(job: Job, target: GPUTarget) -> bool:
    """Whether a job compiles."""
    try:
        kernel = job.compiled(target)
    except Exception:  # whatever it is, the launch meets it again
        return False
    if target.backend == "cuda":
        with verified():
            _compile_launcher(kernel)
    return True


def _compile_launcher(kernel: Any) -> None:
    """Compiles what passes arguments to a kernel: Triton 3.6 writes it in C, once a signature."""
    nvidia: Any = importlib.import_module("triton.backends.nvidia.driver")
    if hasattr(nvidia, "make_launcher"):
        with suppress(Exception):  # the first launch tries again
            nvidia.CudaLauncher(kernel.src, kernel.metadata)


compiled_here: set[tuple[GPUTarget, tuple[str, ...]]] = set()  # targets and keys

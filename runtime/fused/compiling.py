"""Compiling kernels before they are launched, several at a time, for GPUs that need not be there.

A job is compiled by the very call that would launch it, in a process whose driver is a stand-in. So
what is compiled is what will run, and Triton has it in its cache by then.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import MockTensor

from ...compiler.graph.errors import NewtritonError
from . import codecache

Result = TypeVar("Result")
DTYPES = {
    "*fp32": torch.float32, "*bf16": torch.bfloat16, "*i32": torch.int32, "*i64": torch.int64,
}  # fmt: skip
NUMBERS = {"i32": 7, "fp32": 0.5}  # their values are not compiled into a kernel
MANY = 4  # kernels that are worth a pool of processes


@dataclass(frozen=True)
class Job:
    """A kernel as it will be launched.

    Attributes:
        name: what it belongs to: network, precision, program and nodes.
        kind: "contraction", "outer" or "pointwise".
        function: the Triton kernel.
        types: the Triton types of its arguments, by name; a tuple of pointers is a tuple of types.
        constants: its constexpr arguments and options, by name.
        precision: the precision of its operands.
        warps: the number of warps.
        stages: the stages of its pipelined loops.
        flat: whether images have fewer channels than one copy takes.
        narrow: whether a row is no multiple of 16 bytes, or shorter than a tile.
        tile: rows, columns and depth of the tile of a contraction.
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
    tile: tuple[int, int, int] = (0, 0, 0)
    wide: frozenset[str] = frozenset()
    products: int = 1

    def compiled(self, target: GPUTarget) -> Any:
        """Returns the kernel for a target, as Triton's launcher would get it."""
        driver.set_active(_Elsewhere(target))  # type: ignore[arg-type]
        given = {n: _argument(t) for n, t in self.types.items() if n in self.function.arg_names}
        options = {"num_warps": self.warps, "num_stages": self.stages}
        return self.function.warmup(grid=(1,), **{**given, **self.constants}, **options)


def _argument(kind: Any) -> Any:
    """Returns an argument of a type; its memory is aligned to 16 bytes."""
    if isinstance(kind, tuple):
        return tuple(map(_argument, kind))
    return MockTensor(DTYPES[kind]) if kind in DTYPES else NUMBERS[kind]


class _Elsewhere:
    """The driver of a GPU that is not there, for compilation alone."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> str:
        return str(self.target)

    def get_current_stream(self, device: object) -> int:
        return 0


def distinct(jobs: Iterable[Job]) -> list[Job]:
    """Returns the jobs without those that would compile the same source to the same code."""
    found: dict[tuple[str, ...], Job] = {}
    for job in jobs:
        constants = {name: _source(value) for name, value in job.constants.items()}
        options = (str(sorted(job.types.items())), str(constants), str((job.warps, job.stages)))
        found.setdefault((str(_source(job.function)), *options), job)
    return list(found.values())


def _source(constant: object) -> object:
    """Returns the value of a constant; of functions what they do, whatever they are called."""
    if isinstance(constant, tuple):
        return tuple(map(_source, constant))
    source = getattr(constant, "src", None)
    return constant if source is None else source.partition("(")[2]


def in_pool(
    function: Callable[[Job, GPUTarget], Result],
    jobs: Sequence[Job],
    targets: Sequence[GPUTarget],
    workers: int,
) -> Iterator[Result]:
    """Yields what a function makes of every job and target, as they come, from a pool of processes.

    Raises:
        NewtritonError: kernels are being interpreted in this process.
    """
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise NewtritonError("kernels are interpreted here: unset TRITON_INTERPRET to compile them")
    # Functions of generated modules cannot be sent to a process; one that is forked has them.
    _work[:] = [(function, job, target) for target in targets for job in jobs]
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        yield from pool.imap_unordered(_do, range(len(_work)))


def current_target() -> GPUTarget:
    """Returns the GPU that kernels would be launched on now."""
    found: Any = driver.active.get_current_target()
    return found


def compile_once(jobs: Iterable[Job], name: str) -> None:
    """Compiles jobs for the current GPU, unless that has been done with these versions.

    Args:
        jobs: the kernels of a program.
        name: the name of the program, for the note that is left on disk.
    """
    kernels = distinct(jobs)
    note = f"compiled-{codecache.digest(f'{current_target()} {triton.__version__} {kernels}')}"
    if codecache.stored(note) is None:
        compile_here(kernels)
        codecache.store(note, f"{name} for {current_target()}\n")


def compile_here(jobs: Sequence[Job]) -> None:
    """Compiles for the current GPU in as many processes as there are cores."""
    if len(jobs) >= MANY:
        compile_all(jobs, [current_target()], os.cpu_count() or 1)


def compile_all(jobs: Sequence[Job], targets: Sequence[GPUTarget], workers: int) -> int:
    """Compiles into Triton's cache, and returns how many jobs did not compile.

    Those will say why when they are launched.
    """
    # Of pointwise kernels those with many pointers take longest: sums of many parts.
    longest_first = sorted(jobs, key=lambda j: (j.kind == "pointwise", -len(str(j.types))))
    return sum(not compiled for compiled in in_pool(_compiles, longest_first, targets, workers))


def _compiles(job: Job, target: GPUTarget) -> bool:
    """Whether a job compiles."""
    try:
        job.compiled(target)
    except Exception:  # whatever it is, the launch meets it again
        return False
    return True


_work: list[tuple[Callable[[Job, GPUTarget], Any], Job, GPUTarget]] = []


def _do(number: int) -> Any:
    """Returns what is made of a job, in a process of the pool."""
    function, job, target = _work[number]
    return function(job, target)

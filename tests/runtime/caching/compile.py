"""Compiles a kernel for a GPU that is not there, damages it, and prints what happens then."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import triton

import newtriton as nt
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Graph, N
from newtriton.runtime.fused.chips import CHIPS
from newtriton.runtime.fused.compiling import Job
from newtriton.runtime.fused.executor import FusedExecutor
from newtriton.runtime.fused.selection import Selection
from newtriton.runtime.fused.settings import Settings

TARGET = CHIPS["sm_90"].target
CUBIN = "cubin"


def job(factor: float) -> Job:
    x = ops.input_("x", (N, 5))
    out = ops.map_(nt.scalar.sigmoid(nt.scalar.var(0)) * factor, x)
    executor = FusedExecutor(
        Graph("kept", {"out": out}), (), Selection(Settings(contractions="fused"))
    )
    (found,) = executor.plan(100).jobs("")
    return found


def binary(of: Job) -> tuple[bool, Any]:
    """Whether a new process compiles a kernel, and the kernel."""
    compiled: list[bool] = []
    triton.knobs.compilation.listener = lambda **seen: compiled.append(not seen["cache_hit"])
    of.function.device_caches.clear()
    return bool(of.compiled(TARGET)) and compiled == [True], of.compiled(TARGET)


def place(kernel: Any) -> Path:
    return next(Path(p) for name, p in kernel.metadata_group.items() if name.endswith(CUBIN))


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


if __name__ == "__main__":
    one, other = job(2.0), job(3.0)
    first, kernel = binary(one)
    again, _ = binary(one)
    path, theirs = place(kernel), place(binary(other)[1])
    right = path.read_bytes()
    damages: dict[str, Callable[[Path], object]] = {
        "flipped": flipped,
        "truncated": lambda path: os.truncate(path, 100),
        "another's": lambda path: path.write_bytes(theirs.read_bytes()),
        "gone": Path.unlink,
        "a pipe": pipe,
    }
    results: dict[str, object] = {"first": first, "again": again}
    for name, damage in damages.items():
        damage(path)
        compiled, kernel = binary(one)
        same = kernel.asm[CUBIN] == right == path.read_bytes()
        results[name] = {"compiled": compiled, "same": same, "again": binary(one)[0]}
    json.dump(results, sys.stdout)

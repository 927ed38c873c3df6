"""Arithmetic on flat vectors: fused programs against PyTorch's operators and torch.compile.

A row is one operation on vectors of a length: an iteration of conjugate gradients, the inner
products of three vectors, the sum of two. Needs a GPU; under TRITON_INTERPRET=1 the numbers are
compared and the times mean nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import torch
from torch import Tensor

from ..compiler.graph.errors import NewtritonError
from ..compiler.graph.ir import concrete
from ..compiler.graph.program import Input, Output, Program
from ..compiler.lowering.schedule import schedule
from ..compiler.vectors import (
    Coefficients,
    DampingAndRadius,
    OperatorProduct,
    Products,
    Residual,
    ResidualProduct,
    SearchDirection,
    Solution,
    Sum,
    Vector,
    combination,
    inner_products,
    iteration,
)
from ..runtime.backend import Context
from ..runtime.fused.executor import FusedExecutor
from ..runtime.fused.selection import Selection
from ..runtime.fused.settings import Settings, settings_of
from ._measure import parser, report
from .kernels import Peaks, milliseconds, peaks

LENGTHS = (100_000, 10_000_000, 40_000_000)


@dataclass(frozen=True)
class Operation:
    """What is timed.

    Attributes:
        program: the fused program.
        inputs: its inputs, in the order in which `plain` takes them.
        outputs: its outputs, in the order in which `plain` returns them.
        plain: the same in PyTorch's operators.
    """

    program: Program
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    plain: Callable[..., tuple[Tensor, ...]]


def _iteration(
    x: Tensor, r: Tensor, p: Tensor, q: Tensor, rz: Tensor, given: Tensor
) -> tuple[Tensor, ...]:
    q = q + given[0] * p
    curvature = p @ q
    alpha = rz / curvature
    x, r = x + alpha * p, r - alpha * q
    rr = r @ r
    return x, r, r + (rr / rz) * p, rr


def _inner_products(v0: Tensor, v1: Tensor, v2: Tensor) -> tuple[Tensor, ...]:
    pairs = combinations_with_replacement((v0, v1, v2), 2)
    return (torch.stack([u @ v for u, v in pairs]),)


def _combination(v0: Tensor, v1: Tensor, coefficients: Tensor) -> tuple[Tensor, ...]:
    return (coefficients[0] * v0 + coefficients[1] * v1,)


OPERATIONS = {
    "CG iteration": Operation(
        iteration(False, False),
        (
            *(Solution(), Residual(), SearchDirection(), OperatorProduct()),
            *(ResidualProduct(), DampingAndRadius()),
        ),
        (Solution(), Residual(), SearchDirection(), ResidualProduct()),
        _iteration,
    ),
    "inner products": Operation(
        inner_products(3),
        (Vector(0), Vector(1), Vector(2)),
        (Products(),),
        _inner_products,
    ),
    "combination": Operation(
        combination(2), (Vector(0), Vector(1), Coefficients()), (Sum(),), _combination
    ),
}


def measure(
    name: str, length: int, rounds: int, compiled: bool, settings: Settings, peaks: Peaks
) -> dict[str, Any]:
    """Returns a row, with the error of the fused program against PyTorch's operators."""
    operation = OPERATIONS[name]
    program, plain = operation.program, operation.plain
    device = torch.device("cpu" if settings.interpreted else "cuda")
    context = Context(length, torch.float32, device)
    executor = FusedExecutor(program.graph, (), Selection(settings))
    leaves = program.inputs.values()
    feed = {n: torch.rand(concrete(n.shape, length), device=device) for n in leaves}
    given = [feed[program.inputs[key]] for key in operation.inputs]
    calls: dict[str, Callable[[], Any]] = {
        "fused": lambda: executor(context, feed), "eager": lambda: plain(*given)
    }  # fmt: skip
    if compiled:
        whole = torch.compile(plain, dynamic=False)
        calls["compiled"] = lambda: whole(*given)
    found, expected = calls["fused"](), calls["eager"]()
    ms = milliseconds(calls, context, rounds)
    moved = schedule(program.graph, length).traffic(length) / 1e6
    results = program.results(found)
    pairs = [(results[key], x) for key, x in zip(operation.outputs, expected, strict=True)]
    error = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    return {
        "operation": name,
        "length": length,
        **{f"{who}_ms": round(t, 4) for who, t in ms.items()},
        "times_faster": round(min(t for who, t in ms.items() if who != "fused") / ms["fused"], 2),
        "MB": round(moved, 1),
        "of_bandwidth": round(moved / ms["fused"] / peaks.bandwidth, 3),
        "error": float(f"{error:.1e}"),
    }


def table(device: torch.device, rounds: int, compiled: bool) -> list[dict[str, Any]]:
    """Returns the rows of all operations at all lengths."""
    interpreted = device.type == "cpu"
    lengths = LENGTHS[:1] if interpreted else LENGTHS
    settings = settings_of(device, "ieee", "fused", interpreted)
    most = peaks(device, "ieee")
    return [
        measure(name, length, rounds, compiled, settings, most)
        for length in lengths
        for name in OPERATIONS
    ]


def main() -> None:
    """Prints the table."""
    options = parser(__doc__)
    options.add_argument("--no-compile", action="store_true", help="without torch.compile")
    given = options.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise NewtritonError("bench vectors needs a GPU: TRITON_INTERPRET=1 compares numbers here")
    report(table(device, given.rounds, not given.no_compile), given.json)


if __name__ == "__main__":
    main()

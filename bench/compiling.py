"""Seconds to compile the VGGs: all programs to the executor's steps, a step of FITRE to kernels.

Kernels are compiled for sm_90 in a pool of two processes, into an empty cache and into a full one.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import newtriton as nt

from ..compiler import vectors
from ..compiler.graph.ir import Node
from ..compiler.language.network import Layer
from ..compiler.lowering.precision import two_products
from ..runtime.fused.chips import CHIPS
from ..runtime.fused.compiling import Job, compile_all, distinct
from ..runtime.fused.executor import FusedExecutor
from ..runtime.fused.selection import Selection
from ..runtime.fused.settings import Settings
from ._measure import arguments, report

WORKERS = 2


def kernels(make: Callable[[], Layer], precision: str) -> dict[str, Any]:
    """Returns a row: from the network's description to the last kernel of a step of FITRE."""

    def compiled() -> int:
        model = nt.compile(make(), (3, 32, 32), nt.CrossEntropyLoss(), backend="aten", device="cpu")
        p, made, jobs = model.programs[True], list[Node](), list[Job]()
        forms = p.quadratic(2, two_products=two_products(precision))
        fused = Selection(Settings(precision, "fused"))
        for program in (p.linearize, forms, p.evaluate, p.factors("kfac")):
            kept = p.tape if program is p.linearize else ()
            plan = FusedExecutor(program.graph, kept, fused).plan(200, made)
            made += plan.made
            jobs += plan.jobs("")
        for program in (vectors.inner_products(3), vectors.combination(2)):
            plan = FusedExecutor(program.graph, (), fused).plan(model.layout.numel)
            jobs += plan.jobs("")
        jobs = distinct(jobs)
        assert not compile_all(jobs, [CHIPS["sm_90"].target], WORKERS)
        return len(jobs)

    row: dict[str, Any] = {"network": make.__name__, "precision": precision}
    with tempfile.TemporaryDirectory() as empty:
        os.environ["TRITON_CACHE_DIR"] = empty
        for state in ("cold", "warm"):
            start = time.perf_counter()
            row["kernels"] = compiled()
            row[f"{state}_s"] = round(time.perf_counter() - start, 1)
    return row


def main() -> None:
    """Prints a row per network."""
    options = arguments(__doc__)
    rows: list[dict[str, Any]] = [kernels(nt.models.vgg19, p) for p in ("tf32", "ieee", "bf16")]
    for make in (nt.models.vgg11, nt.models.vgg16, nt.models.vgg19):
        for batch_norm in (False, True):
            start = time.perf_counter()
            model = nt.compile(
                make(batch_norm=batch_norm), (3, 32, 32), nt.CrossEntropyLoss(), backend="aten"
            )
            traced = time.perf_counter()
            programs = model.programs[True]
            model.runner.executor(programs.linearize, programs.tape)
            for program in (
                programs.evaluate, programs.hvp, programs.ggnvp, programs.quadratic(1),
                programs.quadratic(2), programs.quadratic(1, "ggn"), programs.factors("kfac"),
                programs.factors("empirical"),
            ):  # fmt: skip
                model.runner.executor(program)
            rows.append(
                {
                    "network": make.__name__ + (" with batch norm" if batch_norm else ""),
                    "trace_and_initialise_s": round(traced - start, 2),
                    "nine_programs_s": round(time.perf_counter() - traced, 2),
                }
            )
    report(rows, options.json)


if __name__ == "__main__":
    main()

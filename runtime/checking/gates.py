"""Whether what kernels compile to is good enough, judged ahead of time and without a GPU."""

from __future__ import annotations

import math
import time

from triton.backends.compiler import GPUTarget

from ..fused.chips import CHIPS
from ..fused.compiling import Job
from .disassembly import Report, read

COLUMNS = 512  # of tensor memory, on a multiprocessor that has it
FEW = 16  # spills around a loop that some kernels may have
WAVE = 512  # bytes that a warp should take at once: 16 a thread, 8 where it has 64 threads
# By chip and precision, the multiplications of a multiprocessor in one cycle.
MULTIPLICATIONS = {
    "sm_90": {"bf16": 2048, "tf32": 1024},
    "sm_100": {"bf16": 4096, "tf32": 2048},
    "sm_80": {"bf16": 1024, "tf32": 512},
}
# By chip, how many times longer than its products the other instructions of a loop may take.
LONGEST = {"sm_90": 1, "sm_100": 2, "sm_80": 1}
# By chip and precision, the family of instructions that should multiply.
PRODUCTS = {
    "sm_90": {"tf32": "HGMMA", "bf16": "HGMMA"},
    "sm_100": {"tf32": "UTCHMMA", "bf16": "UTCHMMA"},
    "sm_80": {"tf32": "HMMA", "bf16": "HMMA"},
    "gfx942": {"tf32": "MFMA xf32", "bf16": "MFMA bf16"},
}


def report(job: Job, target: GPUTarget) -> Report:
    """Compiles one job for one target and returns what came of it."""
    name = next(name for name, chip in CHIPS.items() if chip.target == target)
    found, start = Report(job.name, name), time.perf_counter()
    try:
        kernel = job.compiled(target)
    except Exception as error:  # a kernel that does not compile is a line of the table
        line = str(error).strip().splitlines() or [type(error).__name__]
        found.faults.append(f"does not compile: {line[-1]}")
        return found
    found.seconds = time.perf_counter() - start
    read(found, kernel)
    found.faults = faults(job, found)
    return found


def faults(job: Job, report: Report) -> list[str]:
    """Returns what a report falls short of, a sentence each."""
    found, chip = [], CHIPS[report.target]
    if report.looped or (report.target == "sm_90" and report.spills > _allowed(job)):
        found.append(f"{report.spills} spills, {report.looped} of them in loops")
    if report.shared > chip.shared:
        found.append(f"{report.shared} B of shared memory, the chip has {chip.shared}")
    if report.columns > COLUMNS:
        found.append(f"{report.columns} columns of tensor memory, there are {COLUMNS}")
    found += [
        f"{name} takes tiles in {width} bytes"
        for name, width in report.tiles.items()
        if name in job.wide and width * chip.target.warp_size < WAVE
    ]
    if job.kind == "pointwise" or not job.products:
        return found
    expected = PRODUCTS[report.target].get(job.precision, report.instruction)
    least = job.tile[0] if job.kind == "pass" else min(job.tile[:2])
    if report.instruction != expected and least >= 64:
        found.append(f"{report.instruction} where {expected} was expected")
    if job.kind == "pass":
        return found
    return found + (_overlap(job, report) if chip.nvidia else [])


def _allowed(job: Job) -> int:
    """Returns how many spills around its loops a kernel may have on sm_90."""
    return FEW if job.products == 3 or job.narrow else 0


def _overlap(job: Job, report: Report) -> list[str]:
    """Returns what keeps asynchronous copies, products and other instructions from overlapping."""
    found, multiplications = [], MULTIPLICATIONS[report.target]
    tensor_cores = job.precision in multiplications
    if job.stages > 2 and not (job.flat or job.odd):
        copies, products = (report.waits.get(kind, []) for kind in ("copy", "product"))
        if not copies or min(copies) < 2:
            found.append(f"copies wait for {copies or 'everything'}: not pipelined")
        if tensor_cores and products and min(products) < 1:
            found.append("products wait for each other")
    four_bytes = job.kind == "outer" and job.precision != "bf16"
    if tensor_cores and not (job.flat or job.narrow or four_bytes):
        cycles = job.products * math.prod(job.tile) / multiplications[job.precision]
        if report.loop * job.warps / 4 > LONGEST[report.target] * cycles:
            found.append(f"a loop of {report.loop} instructions, {cycles:.0f} cycles of products")
    if min(report.copies, default=16) < 16 and not (job.flat or job.narrow or four_bytes):
        found.append(f"copies of {min(report.copies)} bytes")
    return found


# What gates let pass, and why.
EXCEPTIONS = {
    "spills around loops, elsewhere than on sm_90": "put away before a loop, fetched after it",
    "few spills behind three products": "GELU's curvature has many values at once, once a tile",
    "few spills of narrow layers": "addresses of rows that are read value by value, once a tile",
    "long loops on sm_100": "its products take half of sm_90's time, the addresses of tiles do not",
    "tf32 weight gradients and Grams": "both operands lie with the contracted axis first: 4 bytes",
    "tf32x3": "three products a step wait for each other",
    "tf32x3 on AMD": "there is none: operands are multiplied as float32, on matrix cores",
    "images of fewer than 16 channels": "one row of a patch is shorter than a copy",
    "values read across their rows": "weights transposed, images flattened: one side is narrow",
    "products of passes": "one waits for another: scores, their softmax, and sums of it",
    "few copies of tf32 passes": "sums over keys want these first: transposed on the way, 4 bytes",
    "rows of an odd number of bf16 values": "asynchronous copies are of 4 bytes at least",
    "rows of no multiple of 16 bytes": "no address but the first is aligned",
    "layers of fewer than 64 outputs": "most of a tile is padding; they are never the bottleneck",
}

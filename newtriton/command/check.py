"""`newtriton check`: holds kernels to account, a line for each and a verdict.

Their numbers are compared with PyTorch's operators; what they compile to is judged by gates.
"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

import torch
import triton

from ..bench import gpu
from ..compiler.graph.options import check_option
from ..compiler.language.losses import CrossEntropyLoss
from ..runtime.checking.disassembly import Report
from ..runtime.checking.gates import EXCEPTIONS, report
from ..runtime.checking.kernels import jobs
from ..runtime.checking.networks import LARGE, LENGTH, SMALL
from ..runtime.checking.numbers import Error, numbers, vector_numbers
from ..runtime.fused.chips import CHIPS
from ..runtime.fused.compiling import distinct, in_pool
from ..runtime.fused.settings import settings_of
from ..runtime.model.compile import compile as compile_network

GPU_SECONDS = 420.0  # after which a check on a GPU starts no other measurement
Line = Error | Report


def run(options: Namespace) -> int:
    """Prints a line per kernel and a verdict.

    Every line is written as data at once, so that it is kept if a later one fails. On a GPU the
    table of measurements follows, in the time that is left of eight minutes.

    Returns:
        0 where all is well, 1 elsewhere.
    """
    start = time.perf_counter()
    for name in options.nets:
        check_option("--nets", name, tuple(LARGE))
    for name in options.targets:
        check_option("--targets", name, tuple(CHIPS))
    lines: list[Line] = []
    code = options.only == "code"
    for line in compiled(options) if code else compared(options):
        print(line, flush=True)
        lines.append(line)
        if options.json is not None:
            store(options.json, lines)
    if code:
        print("Excepted:", *(f"  {what}: {why}" for what, why in EXCEPTIONS.items()), sep="\n")
    bad = sum(not line.good for line in lines)
    print(f"{len(lines)} kernels, {bad} of them not as they should be")
    if options.gpu:
        bad += gpu.table(GPU_SECONDS - (time.perf_counter() - start), options.json)
    return int(bad > 0)


def compiled(options: Namespace) -> Iterator[Report]:
    """Yields what each kernel compiles to, for every target."""
    for chip in (CHIPS[name] for name in options.targets):
        kernels = distinct(jobs(options.nets, options.precisions, chip))
        yield from in_pool(report, kernels, [chip.target], options.workers)


def compared(options: Namespace) -> Iterator[Error]:
    """Yields the error of each kernel.

    Small networks are run anywhere; on a GPU the large ones too, at the sizes that will be used.
    """
    interpreted = not options.gpu
    device = torch.device("cpu" if interpreted else "cuda")
    sizes = [(name, net, (3,)) for name, net in SMALL.items()]
    if options.gpu:
        sizes += [(name, LARGE[name], (32, 200)) for name in options.nets]
    for name, (net, shape), batches in sizes:
        model = compile_network(net(), shape, CrossEntropyLoss(), backend="aten", device=device)
        for precision in options.precisions:
            if interpreted and precision == "bf16":
                print(f"{name} bf16: the interpreter has no bfloat16")
                continue
            settings = settings_of(device, precision, "fused", interpreted, cuda_graphs=False)
            for batch in batches:
                yield from numbers(f"{name} {batch}", model, batch, settings)
    settings = settings_of(device, "ieee", "fused", interpreted, cuda_graphs=False)
    for length in (33, 20_000 if interpreted else LENGTH):
        yield from vector_numbers(length, device, settings)


def summary(reports: Sequence[Report]) -> list[dict[str, object]]:
    """Returns the worst of all kernels, a row per precision and target.

    The name of a job begins with its network and its precision.
    """
    groups: dict[tuple[str, str], list[Report]] = {}
    for r in reports:
        groups.setdefault((r.job.split()[1], r.target), []).append(r)
    return [
        {
            "precision": precision,
            "target": target,
            "kernels": len(group),
            "faults": sum(not r.good for r in group),
            "spills": sum(r.spills for r in group),
            "spills_in_loops": sum(r.looped for r in group),
            "most_registers": max(r.registers for r in group),
            "most_shared_bytes": max(r.shared for r in group),
            "on_tensor_cores": sum(
                r.instruction.startswith(("HGMMA", "HMMA", "MFMA")) for r in group
            ),
        }
        for (precision, target), group in groups.items()
    ]


def store(path: Path, lines: Sequence[Line]) -> None:
    """Writes lines as data, with the device and versions."""
    machine = {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
    rows = [{**asdict(line), "good": line.good} for line in lines]
    worst = summary([line for line in lines if isinstance(line, Report)])
    data = {"machine": machine, "summary": worst, "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, default=str) + "\n")

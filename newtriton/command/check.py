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
from ..compiler.graph.errors import NewtritonError
from ..compiler.graph.options import check_option
from ..runtime.checking.disassembly import Report
from ..runtime.checking.gates import EXCEPTIONS, report
from ..runtime.checking.kernels import jobs
from ..runtime.checking.networks import LARGE
from ..runtime.checking.numbers import Line as NumbersLine
from ..runtime.checking.numbers import failure
from ..runtime.fused.chips import CHIPS
from ..runtime.fused.compiling import distinct, in_pool
from .steps import CPU, GPU, Numbers, Step, Times, gpu_steps, interpreted_steps

Line = NumbersLine | Report


class Log:
    """The lines of a check: printed, and written as data at once, so that a crash leaves them.

    Args:
        path: the file of data; None writes none.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.lines = path, list[Line]()

    def add(self, line: Line) -> None:
        """Prints and writes a line."""
        print(line, flush=True)
        self.lines.append(line)
        self.write()

    def write(self, left: Sequence[str] = ()) -> None:
        """Writes all lines, and the names of what was left out."""
        if self.path is not None:
            store(self.path, self.lines, left)

    def verdict(self) -> int:
        """Prints how many lines are bad, and returns it."""
        bad = sum(not line.good for line in self.lines)
        print(f"{len(self.lines)} kernels, {bad} of them not as they should be")
        return bad


def run(options: Namespace) -> int:
    """Prints a line per kernel and a verdict.

    Returns:
        0 where all is well, 1 elsewhere.
    """
    for name in options.nets:
        check_option("--nets", name, tuple(LARGE))
    for name in options.targets:
        check_option("--targets", name, tuple(CHIPS))
    log = Log(options.json)
    if options.gpu:
        return int(on_gpu(options, log) > 0)
    code = options.only == "code"
    for line in compiled(options) if code else compared(options):
        log.add(line)
    if code:
        print("Excepted:", *(f"  {what}: {why}" for what, why in EXCEPTIONS.items()), sep="\n")
    return int(log.verdict() > 0)


def on_gpu(options: Namespace, log: Log) -> int:
    """Runs the steps of a GPU until the time is up, and says which are left out for lack of it.

    Returns:
        how many kernels and measurements are bad.
    """
    if not torch.cuda.is_available():
        raise NewtritonError("check --gpu needs a GPU, and PyTorch sees none here")
    until = time.perf_counter() + options.seconds
    failed, left = 0, list[str]()
    for step in gpu_steps(options.nets, options.precisions):
        if time.perf_counter() > until:
            left.append(str(step))
            continue
        print(f"{step}:", flush=True)
        outcome = _run(step, log, until)
        failed += outcome is gpu.Outcome.FAILED
        if outcome is gpu.Outcome.CUT:
            left.append(f"the rest of the {step}")
    bad = log.verdict() + failed
    if left:
        log.write(left)
        print("Left out for lack of time:", *(f"  {name}" for name in left), sep="\n")
    return bad


def _run(step: Step, log: Log, until: float) -> gpu.Outcome:
    """Runs a step until its end or the given time."""
    if isinstance(step, Times):
        return gpu.measure(step.name, step.step, until, log.path)
    for line in _lines(step, GPU):
        log.add(line)
        if time.perf_counter() > until:
            return gpu.Outcome.CUT
    return gpu.Outcome.DONE


def _lines(step: Numbers, device: torch.device) -> Iterator[NumbersLine]:
    """Yields the lines of a step; an exception ends it, with a line of its own."""
    try:
        yield from step.lines(device)
    except Exception as error:  # the other steps are still worth their time
        yield failure(str(step), error)


def compiled(options: Namespace) -> Iterator[Report]:
    """Yields what each kernel compiles to, for every target."""
    for chip in (CHIPS[name] for name in options.targets):
        kernels = distinct(jobs(options.nets, options.precisions, chip))
        yield from in_pool(report, kernels, [chip.target], options.workers)


def compared(options: Namespace) -> Iterator[NumbersLine]:
    """Yields the error of each kernel in the interpreter."""
    if "bf16" in options.precisions:
        print("bf16: the interpreter has no bfloat16")
    for step in interpreted_steps(options.precisions):
        yield from _lines(step, CPU)


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
                r.instruction.startswith(("HGMMA", "HMMA", "MFMA", "UTC")) for r in group
            ),
        }
        for (precision, target), group in groups.items()
    ]


def store(path: Path, lines: Sequence[Line], left: Sequence[str] = ()) -> None:
    """Writes lines as data, with the device, versions, and what was left out for lack of time."""
    machine = {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
    rows = [{**asdict(line), "good": line.good} for line in lines]
    worst = summary([line for line in lines if isinstance(line, Report)])
    data = {"machine": machine, "summary": worst, "rows": rows}
    data |= {"left_out": list(left)} if left else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, default=str) + "\n")

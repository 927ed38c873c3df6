"""What kernels compile to, ahead of time and without a GPU, and whether that is good enough.

Registers, spills and instructions come from the disassembly of Triton's own tools; whether copies
and tensor-core products overlap, from the waits inside the loops of the intermediate code.
"""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget

from .ahead import Job

TARGETS = {
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_80": GPUTarget("cuda", 80, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED = {"sm_90": 232_448, "sm_80": 166_912, "gfx942": 65_536}  # bytes of a block
MULTIPLICATIONS = {"bf16": 2048, "tf32": 1024}  # a multiprocessor of sm_90, per cycle
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass
class Report:
    """What a job compiled to on a target.

    copies, loads: how many of each width in bytes. tiles: the narrowest access to a whole tile, in
    bytes, by function. waits: for each "copy" and "product" wait inside
    a loop, how many may be pending. loop: instructions of the longest loop that multiplies.
    """

    job: str
    target: str
    seconds: float = 0.0
    registers: int = 0
    spills: int = 0
    shared: int = 0
    instruction: str = "none"
    copies: dict[int, int] = field(default_factory=dict)
    loads: dict[int, int] = field(default_factory=dict)
    tiles: dict[str, int] = field(default_factory=dict)
    waits: dict[str, list[int]] = field(default_factory=dict)
    loop: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether there is nothing to object to."""
        return not self.faults

    def __str__(self) -> str:
        widest = max((*self.copies, *self.loads), default=0)
        verdict = "; ".join(self.faults) or "ok"
        return (
            f"{self.job:<44} {self.target:<7} {self.registers:>4} regs {self.shared:>7} B shared "
            f"{self.spills:>5} spills  {self.instruction:<5} {widest:>2} B loads  {verdict}"
        )


def _waits(ttgir: str) -> dict[str, list[int]]:
    """Waits for copies and for products inside loops: how many may be pending at each."""
    found: dict[str, list[int]] = {}
    loops: list[int] = []
    for line in ttgir.splitlines():
        indent = len(line) - len(line.lstrip())
        if "scf.for" in line:
            loops.append(indent)
        for kind, pattern in (
            ("copy", r"async_wait.*num = (\d+)"),
            ("product", r"warp_group_dot_wait.*pendings = (\d+)"),
        ):
            match = re.search(pattern, line)
            if match and loops:
                found.setdefault(kind, []).append(int(match.group(1)))
        if loops and line.lstrip().startswith("}") and indent == loops[-1]:
            loops.pop()
    return found


def _narrowest(ttgir: str, ptx: str) -> dict[str, int]:
    """By function, the narrowest load or store of a whole tile, rows × columns, in bytes.

    Line numbers lead from a memory operation on a tile to its instructions.
    """
    places = dict(re.findall(r"^(#loc\d*) = (loc\(.*\))$", ttgir, re.MULTILINE))

    def place(name: str) -> tuple[str, int, int]:
        while (found := re.match(r'loc\("(.*)":(\d+):(\d+)\)', places[name])) is None:
            name = re.findall(r"#loc\d*", places[name])[0]  # a name, or the innermost call
        return found[1], int(found[2]), int(found[3])

    shaped = r"tt\.(?:load|store) .*tensor<(\d+)x(\d+)x.*loc\((#loc\d*)\)$"
    tiles = {
        place(name) for r, c, name in re.findall(shaped, ttgir, re.MULTILINE) if "1" not in (r, c)
    }
    files = dict(re.findall(r'\.file\s+(\d+) "(.*)"', ptx))
    widths: dict[str, int] = {}
    here: tuple[str, int, int] = ("", 0, 0)
    for line in ptx.splitlines():
        if moved := re.match(r"\s*\.loc\s+(\d+) (\d+) (\d+)", line):
            here = files[moved[1]], int(moved[2]), int(moved[3])
        access = re.search(r"(?:ld|st)\.global\S*?(?:\.v(\d))?\.b(\d+)\s", line)
        if access and here in tiles:
            name, width = _function_at(*here[:2]), int(access[1] or 1) * int(access[2]) // 8
            widths[name] = min(width, widths.get(name, 16))
    return widths


@lru_cache
def _starts(path: str) -> dict[int, str]:
    """The lines at which functions of a file start, last first."""
    lines = list(enumerate(Path(path).read_text().splitlines(), 1))
    found = {i: match[1] for i, line in lines if (match := re.match(r"def (\w+)", line))}
    return dict(reversed(found.items()))


def _function_at(path: str, line: int) -> str:
    return next(name for start, name in _starts(path).items() if start <= line)


def _width(op: str) -> int:
    """Bytes of a memory instruction."""
    return 16 if ".128" in op else 8 if ".64" in op else 4


def _longest_loop(sass: Sequence[tuple[int, str]]) -> int:
    """Instructions of the longest loop that multiplies: from a backward branch to its target."""
    longest = 0
    for at, text in sass:
        match = re.search(r"\bBRA\S*\s.*?0x([0-9a-f]+)", text)
        if match and int(match.group(1), 16) < at:
            body = [t for a, t in sass if int(match.group(1), 16) <= a <= at]
            if any("MMA" in t or "FFMA" in t for t in body):
                longest = max(longest, len(body))
    return longest


def _disassemble(report: Report, cubin: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()

        def run(*arguments: str) -> str:
            command = [TOOLS / "cuobjdump", *arguments, file.name]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        usage, listing = run("-res-usage"), run("-sass")
    lines = re.finditer(r"/\*([0-9a-f]{4,6})\*/\s+(.*?);", listing)
    sass = [(int(m.group(1), 16), re.sub(r"^@!?U?P\w+\s+", "", m.group(2))) for m in lines]
    names = [text.split()[0] for _, text in sass]
    families = Counter(name.split(".")[0] for name in names)
    report.registers = int(re.search(r"REG:(\d+)", usage).group(1))  # type: ignore[union-attr]
    report.spills = families["LDL"] + families["STL"]
    for family in ("FFMA", "HMMA", "HGMMA"):
        report.instruction = family if families[family] else report.instruction
    report.copies = dict(Counter(_width(n) for n in names if n.split(".")[0] == "LDGSTS"))
    report.loads = dict(Counter(_width(n) for n in names if n.split(".")[0] in ("LDG", "STG")))
    report.loop = _longest_loop(sass)


def report(job: Job, target: GPUTarget) -> Report:
    """Compiles one job for one target and looks at the result."""
    name = next(name for name, known in TARGETS.items() if known == target)
    found, start = Report(job.name, name), time.perf_counter()
    try:
        kernel = job.compiled(target)
    except Exception as error:  # a kernel that does not compile is a line of the table
        line = str(error).strip().splitlines() or [type(error).__name__]
        found.faults.append(f"does not compile: {line[-1]}")
        return found
    found.seconds = time.perf_counter() - start
    found.shared = kernel.metadata.shared
    found.waits = _waits(kernel.asm["ttgir"])
    if "cubin" in kernel.asm:
        found.tiles = _narrowest(kernel.asm["ttgir"], kernel.asm["ptx"])
        _disassemble(found, kernel.asm["cubin"])
    found.faults = faults(job, found)
    return found


def faults(job: Job, report: Report) -> list[str]:
    """What a report falls short of, a sentence each."""
    found = []
    if report.spills:
        found.append(f"{report.spills} spills")
    if report.shared > SHARED[report.target]:
        found.append(f"{report.shared} B of shared memory, the chip has {SHARED[report.target]}")
    if report.target != "sm_90":
        return found
    found += [
        f"{name} takes tiles in {width} bytes"
        for name, width in report.tiles.items()
        if name in job.wide and width < 16
    ]
    if job.kind == "pointwise":
        return found
    tensor_cores = job.precision in ("tf32", "bf16")
    if tensor_cores and report.instruction != "HGMMA" and min(job.tile[:2]) >= 64:
        found.append(f"{report.instruction} where wgmma was expected")
    if job.stages > 2 and not job.flat:
        copies, products = (report.waits.get(kind, []) for kind in ("copy", "product"))
        if not copies or min(copies) < 2:
            found.append(f"copies wait for {copies or 'everything'}: not pipelined")
        if tensor_cores and products and min(products) < 1:
            found.append("products wait for each other")
    four_bytes = job.kind == "outer" and job.precision != "bf16"
    if tensor_cores and not (job.flat or job.narrow or four_bytes):
        limit = job.products * math.prod(job.tile) / MULTIPLICATIONS[job.precision]
        if report.loop * job.warps / 4 > limit:
            found.append(f"a loop of {report.loop} instructions, {limit:.0f} cycles of products")
    if min(report.copies, default=16) < 16 and not (job.flat or job.narrow or four_bytes):
        found.append(f"copies of {min(report.copies)} bytes")
    return found


EXCEPTIONS = {
    "tf32 weight gradients and Grams": "both operands lie with the contracted axis first: 4 bytes",
    "tf32x3": "three products a step wait for each other",
    "images of fewer than 16 channels": "one row of a patch is shorter than a copy",
    "values read across their rows": "weights transposed, images flattened: one side is narrow",
    "rows of no multiple of 16 bytes": "no address but the first is aligned",
    "layers of fewer than 64 outputs": "most of a tile is padding; they are never the bottleneck",
}

"""What a kernel has been compiled to: registers, spills, instructions, widths of accesses.

Of NVIDIA's code they come from the disassembly of Triton's own tools, of AMD's from its assembly;
whether copies and products overlap, from the waits inside the loops of the intermediate code.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import triton

from ... import kernels

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
PTX = r"(?:ld|st)\.global\S*?((?:\.v\d)?\.b\d+)\s"  # an access to memory, and its size
AMD = r"(?:global|buffer|flat)_(?:load|store)_[us]?(byte|short|dword(?:x\d)?)"
BYTES = {
    **{f".v{n}.b{bits}": n * bits // 8 for n in (2, 4, 8) for bits in (8, 16, 32, 64)},
    **{f".b{bits}": bits // 8 for bits in (8, 16, 32, 64, 128)},
    **{f"dwordx{n}": 4 * n for n in (2, 3, 4)},
    **{"byte": 1, "short": 2, "dword": 4},
}


@dataclass
class Report:
    """What a job has been compiled to on a target.

    Attributes:
        job: the name of the job.
        target: the name of the chip.
        seconds: the time that compilation took.
        registers: the registers of a thread.
        spills: the accesses to registers that were spilled to memory.
        looped: the spills inside loops.
        shared: the bytes of shared memory.
        columns: the columns of tensor memory.
        instruction: the family of instructions that multiply.
        copies: the number of asynchronous copies, by their width in bytes.
        loads: the number of other accesses to memory, by their width in bytes.
        tiles: by function, the narrowest access to a whole tile, in bytes.
        waits: for each "copy" and "product" wait inside a loop, how many may be pending.
        loop: the instructions of the longest loop that multiplies.
        faults: what the gates object to, a sentence each.
    """

    job: str
    target: str
    seconds: float = 0.0
    registers: int = 0
    spills: int = 0
    looped: int = 0
    shared: int = 0
    columns: int = 0
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
            f"{self.spills:>5} spills  {self.instruction:<9} {widest:>2} B loads  {verdict}"
        )


def _waits(ttgir: str) -> dict[str, list[int]]:
    """Returns how many may be pending at each wait for copies and for products inside loops.

    The waits of tcgen05 name no number, but the barrier at which a product arrives: pending are the
    products after that one, or all of this turn's if it was started in an earlier one.
    """
    found: dict[str, list[int]] = {}
    loops: list[int] = []
    barriers: list[str] = []  # of the products that this turn has started, the newest first
    for line in ttgir.splitlines():
        indent = len(line) - len(line.lstrip())
        if "scf.for" in line:
            loops.append(indent)
            barriers = []
        if match := re.search(r"tc_gen5_mma .*?(%[\w#]+)\[%\w+\] \{is_async", line):
            barriers.insert(0, match[1])
        if loops and (match := re.search(r"ttng\.wait_barrier (%[\w#]+)", line)):
            found.setdefault("product", []).append([*barriers, match[1]].index(match[1]))
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


def _narrowest(ttgir: str, code: str, accesses: str) -> dict[str, int]:
    """Returns by function the narrowest load or store of a whole tile, in bytes.

    Line numbers lead from a memory operation on a tile to its instructions.
    """
    places = dict(re.findall(r"^(#loc\d*) = (loc\(.*\))$", ttgir, re.MULTILINE))

    def place(name: str) -> tuple[str, int, int]:
        while (found := re.match(r'loc\("(.*)":(\d+):(\d+)\)', places[name])) is None:
            name = re.findall(r"#loc\d*", places[name])[0]  # a name, or the innermost call
        return found[1], int(found[2]), int(found[3])

    shaped = r"(?:tt\.|buffer_)(?:load|store) .*tensor<(\d+)x(\d+)x.*loc\((#loc\d*)\)$"
    tiles = {
        place(name) for r, c, name in re.findall(shaped, ttgir, re.MULTILINE) if "1" not in (r, c)
    }
    files = {
        number: str(Path(folder, name))
        for number, folder, name in re.findall(r'\.file\s+(\d+) (?:"(.*)" )?"(.*)"', code)
    }
    widths: dict[str, int] = {}
    here: tuple[str, int, int] = ("", 0, 0)
    for line in code.splitlines():
        if moved := re.match(r"\s*\.loc\s+(\d+) (\d+) (\d+)", line):
            here = files[moved[1]], int(moved[2]), int(moved[3])
        if here in tiles and (access := re.search(accesses, line)):
            name = _function_at(*here[:2])
            widths[name] = min(BYTES[access[1]], widths.get(name, 16))
    return widths


@lru_cache
def _starts(path: str) -> dict[int, str]:
    """Returns the functions of a file by the line at which they start, last first.

    Triton's cache knows where a file lay when it was compiled: skeletons are looked for here.
    """
    here = Path(kernels.__path__[0]) / Path(path).name
    file = here if here.exists() else Path(path)
    if not file.exists():
        return {}
    lines = list(enumerate(file.read_text().splitlines(), 1))
    found = {i: match[1] for i, line in lines if (match := re.match(r"def (\w+)", line))}
    return dict(reversed(found.items()))


def _function_at(path: str, line: int) -> str:
    """Returns the name of the function at a line of a file, empty where there is none."""
    return next((name for start, name in _starts(path).items() if start <= line), "")


def _loops(
    places: Sequence[int], jumps: Sequence[tuple[int, int]], ends: set[int]
) -> list[set[int]]:
    """Returns the instructions of each loop: those from its start to a jump back there.

    A block that waits for a barrier may lie far behind the loop that it belongs to.

    Args:
        places: where the instructions lie.
        jumps: from where to where the code jumps.
        ends: the instructions that the next one never follows.
    """
    before: dict[int, list[int]] = {place: [] for place in places}
    for place, following in pairwise(places):
        if place not in ends:
            before[following].append(place)
    for at, to in jumps:
        before[to].append(at)
    loops = []
    for at, to in ((at, to) for at, to in jumps if to <= at):
        loop, rest = {to}, [at]
        while rest:
            place = rest.pop()
            if place not in loop:
                loop.add(place)
                rest += before[place]
        if places[0] not in loop - {to}:  # or what lies before the jump is no start of a loop
            loops.append(loop)
    return loops


def _follow(
    report: Report,
    code: Sequence[tuple[int, str]],
    jumps: Sequence[tuple[int, int]],
    ends: set[int],
    spill: str,
) -> None:
    """Adds spills inside loops and the longest loop that multiplies."""
    text = dict(code)
    loops = _loops(list(text), jumps, ends)
    inside = set().union(*loops)
    report.looped = sum(bool(re.match(spill, text[place])) for place in inside)
    multiply = [
        loop for loop in loops if any(re.search("MMA|FFMA|mfma", text[place]) for place in loop)
    ]
    report.loop = max(map(len, multiply), default=0)


def _width(op: str) -> int:
    """Returns the bytes of a memory instruction."""
    return 16 if ".128" in op else 8 if ".64" in op else 4


def _cubin(report: Report, cubin: bytes) -> None:
    """Adds what the disassembly of NVIDIA's code shows."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()

        def run(*arguments: str) -> str:
            command = [TOOLS / "cuobjdump", *arguments, file.name]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        usage, listing = run("-res-usage"), run("-sass")
    lines = re.findall(r"/\*([0-9a-f]{4,6})\*/\s+(.*?);", listing)
    ends = {int(at, 16) for at, text in lines if re.match(r"(BRA\S*\s+0x|EXIT|RET)", text)}
    sass = [(int(at, 16), re.sub(r"^@!?U?P\w+\s+", "", text)) for at, text in lines]
    names = [text.split()[0] for _, text in sass]
    families = Counter(name.split(".")[0] for name in names)
    report.registers = int(re.search(r"REG:(\d+)", usage).group(1))  # type: ignore[union-attr]
    report.spills = families["LDL"] + families["STL"]
    for family in ("FFMA", "FFMA2", "HMMA", "HGMMA", "UTCHMMA"):
        report.instruction = family if families[family] else report.instruction
    report.copies = dict(Counter(_width(n) for n in names if n.split(".")[0] == "LDGSTS"))
    report.loads = dict(Counter(_width(n) for n in names if n.split(".")[0] in ("LDG", "STG")))
    branches = [(at, re.match(r"BRA\S*\s.*?0x([0-9a-f]+)", text)) for at, text in sass]
    _follow(report, sass, [(at, int(m[1], 16)) for at, m in branches if m], ends, "LDL|STL")


def _amdgcn(report: Report, code: str) -> None:
    """Adds what AMD's assembly shows; vectors spill to memory, scalars to lanes of a vector."""
    lines = list(enumerate(line.strip() for line in code.splitlines()))
    numbers = {k: int(n) for k, n in re.findall(r"\.(\w+_(?:count|size)): +(\d+)", code)}
    stack, scalars = numbers["private_segment_fixed_size"] // 4, numbers["sgpr_spill_count"]
    report.registers = numbers["vgpr_count"]
    report.spills = max(numbers["vgpr_spill_count"], stack) + scalars
    if re.search(r"\sv_(?:pk_)?fmac?_f32", code):
        report.instruction = "FMA"
    for operands in re.findall(r"\sv_mfma_f32_\w+?_(xf32|bf16|f32)", code):
        report.instruction = f"MFMA {operands}"
    report.loads = dict(Counter(BYTES[size] for size in re.findall(AMD, code)))
    instructions = [(at, text) for at, text in lines if re.match("[a-z]", text)]
    spill = "scratch_|v_(?:read|write)lane" if scalars else "scratch_"
    labels = [(at, match[1]) for at, text in lines if (match := re.match(r"(\.LBB\w+):", text))]
    starts = {label: next(to for to, _ in instructions if to > at) for at, label in labels}
    branches = [(at, re.match(r"s_c?branch\S*\s+(\.LBB\w+)", text)) for at, text in instructions]
    jumps = [(at, starts[m[1]]) for at, m in branches if m]
    ends = {at for at, text in instructions if re.match("s_branch|s_endpgm|s_setpc", text)}
    _follow(report, instructions, jumps, ends, spill)


def read(report: Report, kernel: Any) -> None:
    """Adds to a report what Triton has made of a kernel."""
    code = kernel.asm
    report.shared = kernel.metadata.shared
    report.columns = getattr(kernel.metadata, "tmem_size", 0) or 0  # where there is such memory
    report.waits = _waits(code["ttgir"])
    if "cubin" in code:
        report.tiles = _narrowest(code["ttgir"], code["ptx"], PTX)
        _cubin(report, code["cubin"])
    else:
        report.tiles = _narrowest(code["ttgir"], code["amdgcn"], AMD)
        _amdgcn(report, code["amdgcn"])

"""What kernels compile to: the gates find what is wrong, and pass what is not."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import newtriton as nt
from newtriton.runtime.checking import disassembly, gates
from newtriton.runtime.checking.disassembly import Report
from newtriton.runtime.fused.chips import CHIPS
from newtriton.runtime.fused.compiling import Job, in_pool

KERNELS = """
import dataclasses

import triton
import triton.language as tl

import newtriton as nt
from newtriton.runtime.checking.kernels import program_plans
from newtriton.runtime.checking.networks import block
from newtriton.runtime.fused.compiling import Job, in_pool
from newtriton.runtime.fused.chips import CHIPS
from newtriton.runtime.checking.gates import report


@triton.jit
def copy(x, y, n, B: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(y + at, tl.load(x + at, mask=at < n, other=0.0), mask=at < n)


@triton.jit
def product(x, w, out, trips, PREC: tl.constexpr):
    m = tl.arange(0, 128)
    k = tl.arange(0, 32)
    acc = tl.zeros((128, 128), tl.float32)
    for i in range(trips):
        a = tl.load(x + m[:, None] * 4096 + i * 32 + k[None, :])
        b = tl.load(w + m[None, :] * 4096 + i * 32 + k[:, None])
        acc = tl.dot(a, b, acc, input_precision=PREC)
    tl.store(out + m[:, None] * 128 + m[None, :], acc)


@triton.jit
def rows(x, y, n, pitch):
    at = tl.arange(0, 16)[:, None] * pitch + tl.arange(0, 64)[None, :]
    tl.store(y + at, tl.load(x + at))


def jobs():
    f = "*fp32"
    types = {"x": f, "w": f, "out": f, "trips": "i32"}
    tile = (128, 128, 32)
    yield Job("copy", "pointwise", copy, {"x": f, "y": f, "n": "i32"}, {"B": 1024})
    yield Job("good", "contraction", product, types, {"PREC": "tf32"}, "tf32", 8, 3, tile=tile)
    yield Job("spills", "contraction", product, types, {"PREC": "tf32x3"}, "tf32x3", 4, tile=tile)
    yield Job("waits", "contraction", product, types, {"PREC": "tf32"}, "tf32", 8, 2, tile=tile)
    slots, pitched = frozenset({"rows"}), {**dict.fromkeys("xy", f), "n": "i32", "pitch": "i32"}
    yield Job("odd", "pointwise", rows, pitched, {}, wide=slots)
    yield Job("even", "pointwise", rows, pitched, {"pitch": 64}, wide=slots)
    yield Job("broken", "pointwise", copy, {"x": f, "y": f, "n": "i32"}, {"B": 1000})


def real():
    # The first job of each skeleton of a network, and of three products in one loop.
    net = nt.Sequential(
        *(nt.Conv2d(64, 3, padding=1), nt.SiLU(), nt.MaxPool2d(2)),
        *(nt.Conv2d(64, 3, padding=1), nt.SiLU(), nt.Flatten(), nt.Linear(64)),
    )
    model = nt.compile(net, (64, 8, 8), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    found = {}
    for plan in program_plans(model, "tf32", 512):
        for job in plan.jobs("real"):
            skeleton = job.kind if job.kind == "pointwise" else job.function.__name__
            name = f"real-{skeleton}-{job.products}"
            found.setdefault(name, dataclasses.replace(job, name=name))
    return list(found.values())


def tokens():
    # The first products of stacks of matrices, and the kernels around the first ones.
    net = nt.Sequential(nt.Embedding(512, 128), block(4, 128, causal=True), nt.Linear(512))
    data = nt.InputSpec((64,), "int")
    model = nt.compile(net, data, nt.CrossEntropyLoss(), backend="aten", device="cpu")
    found, jobs = {}, [job for p in program_plans(model, "tf32", 16) for job in p.jobs("tokens")]
    for number, job in enumerate(jobs):
        if job.constants.get("RUN"):
            found.setdefault(f"tokens-stacks-{job.products}", job)
        elif job.kind == "pointwise" and number < 8:
            found[f"tokens-rows-{number}"] = job
    return [dataclasses.replace(job, name=name) for name, job in found.items()]


if __name__ == "__main__":
    for found in in_pool(report, list(jobs()), [chip.target for chip in CHIPS.values()], 2):
        print(found)
    for found in in_pool(report, real() + tokens(), [CHIPS["sm_90"].target], 2):
        print(found)
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """Lines of the table, by job and target."""
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "kernels.py").write_text(KERNELS)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, str(folder / "kernels.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {(words[0], words[1]): " ".join(words) for words in lines}


def test_every_job_and_target_has_a_line(table):
    assert len([name for name, _ in table if name.isalpha()]) == 7 * len(CHIPS)


def test_kernels_of_every_skeleton_are_good(table):
    lines = {name: line for (name, _), line in table.items() if "real" in name}
    assert set(lines) == {
        "real-pointwise-1", "real-contraction-1", "real-contraction-3", "real-outer-1",
        "real-rectangle_products-1",
    }  # fmt: skip
    assert not [line for line in lines.values() if not line.endswith("ok")]


def test_kernels_of_attention_are_good(table):
    lines = {name: line for (name, _), line in table.items() if "tokens" in name}
    assert {"tokens-stacks-1", "tokens-stacks-3"} < set(lines) and len(lines) > 4
    assert not [line for line in lines.values() if not line.endswith("ok")]


def test_a_good_kernel_uses_tensor_cores_and_wide_copies(table):
    line = table["good", "sm_90"]
    assert "HGMMA" in line and "16 B loads" in line and line.endswith("ok")
    assert "HMMA" in table["good", "sm_80"] and table["good", "sm_80"].endswith("ok")
    assert "UTCHMMA" in table["good", "sm_100"] and table["good", "sm_100"].endswith("ok")
    assert "MFMA xf32 16 B loads" in table["good", "gfx942"]
    assert all(table["copy", chip].endswith("ok") for chip in CHIPS)


def test_narrow_loads_of_tiles_are_found(table):
    for chip in CHIPS:
        assert "rows takes tiles in 4 bytes" in table["odd", chip]
        assert table["even", chip].endswith("ok")


def test_spills_are_found(table):
    assert "spills" in table["spills", "sm_90"].split("loads")[1]


def test_a_kernel_that_does_not_compile_is_a_line(table):
    assert all("does not compile" in table["broken", chip] for chip in CHIPS)
    assert "input_precision must be one of" in table["spills", "gfx942"]


def job(**what) -> Job:
    defaults = {"precision": "tf32", "warps": 8, "stages": 3, "tile": (128, 128, 32)}
    return Job("job", "contraction", None, {}, {}, **{**defaults, **what})


def report(**what) -> Report:
    good = {
        "registers": 120, "shared": 98_304, "instruction": "HGMMA", "copies": {16: 24},
        "waits": {"copy": [2], "product": [1]}, "loop": 100,
    }  # fmt: skip
    return Report("job", "sm_90", **{**good, **what})


def test_a_good_report_has_no_faults():
    assert gates.faults(job(), report()) == []


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        ({"spills": 3, "looped": 2}, "3 spills, 2 of them in loops"),
        ({"shared": 300_000}, "shared memory"),
        ({"columns": 1024}, "1024 columns of tensor memory"),
        ({"instruction": "HMMA"}, "HMMA where HGMMA was expected"),
        ({"waits": {"copy": [0], "product": [1]}}, "not pipelined"),
        ({"waits": {"copy": [2], "product": [0]}}, "wait for each other"),
        ({"loop": 400}, "a loop of 400 instructions"),
        ({"copies": {4: 1, 16: 23}}, "copies of 4 bytes"),
        ({"tiles": {"slot": 8, "other": 4}}, "slot takes tiles in 8 bytes"),
    ],
)
def test_each_gate_finds_its_fault(what, fault: str):
    (found,) = gates.faults(job(wide=frozenset({"slot"})), report(**what))
    assert fault in found


def test_exceptions_pass():
    serial = report(waits={"copy": [2], "product": [0]})
    assert gates.faults(job(precision="tf32x3"), serial) == []
    narrow = report(copies={4: 96}, loop=260)
    outer = Job("w", "outer", None, {}, {}, "tf32", 8, tile=(128, 128, 32))
    assert gates.faults(outer, narrow) == [] and gates.faults(job(flat=True), narrow) == []
    registers = report(copies={2: 96}, waits={"copy": [], "product": [0]})
    odd = {"precision": "bf16", "narrow": True, "odd": True}
    assert gates.faults(job(**odd), registers) == []
    assert len(gates.faults(job(**{**odd, "odd": False}), registers)) == 2
    around = report(spills=3)
    assert gates.faults(job(), around) == ["3 spills, 0 of them in loops"]
    assert gates.faults(job(products=3), around) == gates.faults(job(narrow=True), around) == []
    assert len(gates.faults(job(products=3), replace(around, looped=1))) == 1
    around.target, around.instruction = "sm_80", "HMMA"
    assert gates.faults(job(), around) == []
    addresses = report(loop=200)
    addresses.target, addresses.instruction = "sm_100", "UTCHMMA"
    assert gates.faults(job(), addresses) == []
    assert "a loop of 300" in gates.faults(job(), replace(addresses, loop=300))[0]
    assert len(gates.EXCEPTIONS) >= 3


def test_an_interpreting_process_does_not_compile():
    with pytest.raises(nt.NewtritonError, match="unset TRITON_INTERPRET"):
        list(in_pool(gates.report, [], [], 1))
    assert Path(disassembly.TOOLS, "cuobjdump").exists()

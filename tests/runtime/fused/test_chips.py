"""What kernels are made for: every chip gets tiles and options that it can take."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from triton.backends.compiler import GPUTarget

import newtriton as nt
from newtriton.runtime.checking import kernels as check
from newtriton.runtime.fused import chips
from newtriton.runtime.fused.chips import CHIPS, Chip, chip_of
from newtriton.runtime.fused.compiling import Job


def jobs(chip: str, precision: str) -> list[Job]:
    return list(check.jobs(["vgg11"], [precision], CHIPS[chip]))


def buffers(job: Job) -> int:
    """The bytes that a loop of float32 copies, in all its stages but one."""
    rows, columns, depth = job.tile
    return 4 * (job.stages - 1) * (2 if job.products == 3 else 1) * (rows + columns) * depth


def test_chips_go_by_their_architecture():
    assert list(CHIPS) == ["sm_90", "sm_100", "sm_80", "gfx942"]
    assert chip_of(torch.device("cpu")) is CHIPS["sm_90"]


@pytest.fixture
def plugged_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[GPUTarget, int, int], Chip]:
    """What a GPU of a target, with so much shared memory and so many processors, is taken for."""

    def taken_for(target: GPUTarget, shared: int, processors: int) -> Chip:
        known = {"max_shared_mem": shared, "multiprocessor_count": processors}
        utils = SimpleNamespace(get_device_properties=lambda number: known)
        active = SimpleNamespace(utils=utils, get_current_target=lambda: target)
        monkeypatch.setattr(chips, "driver", SimpleNamespace(active=active))
        monkeypatch.setattr(torch.cuda, "device", nullcontext)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        return chip_of(torch.device("cuda"))

    return taken_for


def test_a_device_is_the_chip_that_its_driver_describes(plugged_in):
    expected = CHIPS["gfx942"]
    assert plugged_in(expected.target, expected.shared, expected.processors) == expected


@pytest.mark.parametrize(
    ("backend", "architecture", "warp", "rows", "products"),
    [
        ("cuda", 86, 32, 64, ["tf32", "tf32x3"]),
        ("cuda", 89, 32, 64, ["tf32", "tf32x3"]),
        ("cuda", 103, 32, 128, ["tf32", "tf32x3"]),
        ("cuda", 120, 32, 64, ["tf32", "tf32x3"]),  # without wgmma and tcgen05
        ("hip", "gfx90a", 64, 128, ["ieee", "ieee"]),
        ("hip", "gfx950", 64, 128, ["ieee", "ieee"]),
        ("hip", "gfx1100", 32, 64, ["ieee", "ieee"]),
    ],
)
def test_a_chip_of_no_table_is_told_what_it_can_do(
    plugged_in, backend: str, architecture: int | str, warp: int, rows: int, products: list[str]
):
    chip = plugged_in(GPUTarget(backend, architecture, warp), 65_536, 84)
    assert chip.rows == rows
    assert [chip.product(precision) for precision in ("tf32", "tf32x3")] == products


def test_a_chip_with_little_shared_memory_gets_tiles_that_fit(plugged_in):
    chip = plugged_in(GPUTarget("cuda", 120, 32), 101_376, 170)
    tiled = [j for j in check.jobs(["vgg11"], ["tf32"], chip) if j.tile[0]]
    assert len(tiled) > 80 and max(map(buffers, tiled)) <= chip.shared


def test_a_gpu_that_triton_does_not_support_is_refused(plugged_in):
    with pytest.raises(nt.NewtritonError, match=r"sm_75.*sm_80 and newer: use backend='aten'"):
        plugged_in(GPUTarget("cuda", 75, 32), 65_536, 40)


def test_stages_are_as_many_as_shared_memory_holds():
    assert [chip.stages(65_536) for chip in CHIPS.values()] == [3, 3, 3, 2]
    assert [chip.stages(100_000) for chip in CHIPS.values()] == [3, 3, 2, 1]


def test_amd_gets_no_option_that_it_does_not_have():
    ours = jobs("gfx942", "tf32") + jobs("gfx942", "tf32x3")
    assert not any("maxnreg" in j.constants for j in ours)
    assert {j.constants["PREC"] for j in ours if j.tile[0]} == {"tf32", "ieee"}
    assert {j.precision for j in ours if "gram" in j.name} == {"ieee"}


def test_three_accumulators_have_fewer_rows_where_operands_take_registers():
    tiles = {
        chip: max(j.tile[0] * j.tile[1] for j in jobs(chip, "tf32") if j.products == 3)
        for chip in CHIPS
    }
    wide = 128 * 128
    assert tiles == {"sm_90": wide, "sm_100": wide, "sm_80": 64 * 128, "gfx942": wide}


def test_accumulators_in_tensor_memory_need_no_more_warps():
    def warps(chip: str) -> set[int]:
        three = (j for j in jobs(chip, "tf32") if j.products == 3)
        return {j.warps for j in three if j.tile[0] == 64}

    assert warps("sm_100") == {4} and warps("sm_90") == {8}

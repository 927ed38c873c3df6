"""What kernels are made for: every chip gets tiles and options that it can take."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from newtriton.runtime.checking import kernels as check
from newtriton.runtime.fused import chips
from newtriton.runtime.fused.chips import CHIPS, chip_of
from newtriton.runtime.fused.compiling import Job


def jobs(chip: str, precision: str) -> list[Job]:
    return list(check.jobs(["vgg11"], [precision], CHIPS[chip]))


def test_chips_go_by_their_architecture():
    assert list(CHIPS) == ["sm_90", "sm_80", "gfx942"]
    assert chip_of(torch.device("cpu")) is CHIPS["sm_90"]


def test_a_device_is_the_chip_that_its_driver_describes(monkeypatch: pytest.MonkeyPatch):
    expected = CHIPS["gfx942"]
    known = {"max_shared_mem": expected.shared, "multiprocessor_count": expected.processors}
    utils = SimpleNamespace(get_device_properties=lambda number: known)
    active = SimpleNamespace(utils=utils, get_current_target=lambda: expected.target)
    monkeypatch.setattr(chips, "driver", SimpleNamespace(active=active))
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert chip_of(torch.device("cuda")) == expected


def test_stages_are_as_many_as_shared_memory_holds():
    assert [chip.stages(65_536) for chip in CHIPS.values()] == [3, 3, 2]
    assert [chip.stages(100_000) for chip in CHIPS.values()] == [3, 2, 1]


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
    assert tiles == {"sm_90": 128 * 128, "sm_80": 64 * 128, "gfx942": 128 * 128}

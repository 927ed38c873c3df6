"""Settings are data: what a device gets, and nothing that decides."""

from dataclasses import FrozenInstanceError

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.fused.chips import CHIPS
from newtriton.runtime.fused.replay import cuda_graph
from newtriton.runtime.fused.settings import Settings, settings_of

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def chip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every GPU is an A100."""
    monkeypatch.setattr(
        "newtriton.runtime.fused.settings.chip_of",
        lambda device: CHIPS["sm_80" if device.type == "cuda" else "sm_90"],
    )


def test_the_interpreter_gets_fused_kernels_in_large_tiles():
    found = settings_of(CPU, "tf32", interpreted=True)
    assert found == Settings("tf32", "fused", True, 8192, None, CHIPS["sm_90"])
    assert found.target is None


def test_a_gpu_gets_measurements_and_recordings_unless_told_otherwise():
    found = settings_of(GPU, "bf16")
    assert found == Settings("bf16", "measured", False, 1024, cuda_graph, CHIPS["sm_80"])
    assert found.target is found.chip
    assert settings_of(GPU, contractions="vendor").contractions == "vendor"
    assert settings_of(GPU, cuda_graphs=False).record is None


def test_bfloat16_is_refused_where_kernels_are_interpreted():
    with pytest.raises(NewtritonError, match=r"precision is 'bf16'.*precision='tf32'"):
        settings_of(CPU, "bf16", interpreted=True)
    with pytest.raises(NewtritonError, match="precision is 'bf16'"):
        nt.compile(
            nt.Linear(2), (3,), nt.MSELoss(), backend="triton", device="cpu", precision="bf16"
        )


def test_nobody_changes_settings():
    with pytest.raises(FrozenInstanceError):
        Settings().precision = "tf32"  # type: ignore[misc]

"""Launches on a GPU that is not there: none is compiled late, and addresses are as promised."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PRECISIONS = ("ieee", "tf32", "bf16")


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What happened in a process of its own: this one interprets kernels."""
    folder = tmp_path_factory.mktemp("rehearsal")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(folder), "NEWTRITON_CACHE": str(folder / "code")}
    command = [sys.executable, str(Path(__file__).with_name("rehearse.py")), *PRECISIONS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_kernel_is_compiled_once_programs_run(rehearsed: dict[str, dict], precision: str):
    found = rehearsed[precision]
    assert found["ahead"] > 50 and found["launches"] > 100
    assert found["late"] == []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_kernels_that_are_launched_were_compiled_ahead(rehearsed: dict[str, dict], precision: str):
    assert rehearsed[precision]["not ahead"] == []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_addresses_are_as_aligned_as_kernels_expect(rehearsed: dict[str, dict], precision: str):
    assert rehearsed[precision]["parameters"] % 4
    assert rehearsed[precision]["faults"] == []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_calls_on_slices_of_a_data_set_are_recorded(rehearsed: dict[str, dict], precision: str):
    assert rehearsed[precision]["recordings"] > 10
    assert rehearsed[precision]["replays"] > rehearsed[precision]["recordings"]


@pytest.mark.parametrize("preset", ["FITRE", "KFAC", "KFRA", "EACG"])
def test_the_programs_of_a_step_are_compiled_in_one_pool(rehearsed: dict[str, dict], preset: str):
    found = rehearsed["steps"][preset]
    network, *vectors = found["pools"]
    assert network > 30 and all(kernels < 6 for kernels in vectors)
    assert found["faults"] == [] and found["launches"] > 30


def test_the_key_of_a_contraction_changes_with_every_helper(rehearsed: dict[str, dict]):
    edited = dict(rehearsed["edited"])
    known = edited.pop("all")
    assert known > 4 and edited.pop("nothing") == known
    assert len(edited) > 5 and set(edited.values()) == {0}

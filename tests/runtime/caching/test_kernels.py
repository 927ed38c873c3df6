"""Compiled kernels are taken if they are what was compiled, and compiled again if not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import triton
from triton.runtime.cache import FileCacheManager, get_cache_manager

import newtriton as nt
from newtriton.runtime.caching import kernels
from newtriton.runtime.caching.folders import warn
from newtriton.runtime.caching.kernels import SEAL, VerifiedKernels, temporary, verified

from ...sources import ROOT

KEY = "ab" * 32


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    warn.cache_clear()
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path / "triton"))
    return tmp_path / "triton"


def test_triton_takes_them_from_here_inside_alone(monkeypatch: pytest.MonkeyPatch):
    with verified():
        assert isinstance(get_cache_manager(KEY), VerifiedKernels)
    assert isinstance(get_cache_manager(KEY), FileCacheManager)
    monkeypatch.setattr(triton.knobs.cache, "manager_class", FileCacheManager)
    with verified():  # the user's own choice
        assert isinstance(get_cache_manager(KEY), FileCacheManager)


def test_files_that_triton_wrote_alone_are_not_taken(cache: Path):
    FileCacheManager("KEY").put_group(
        "k.json", {"k.json": FileCacheManager("KEY").put("{}", "k.json")}
    )
    manager = VerifiedKernels("KEY")
    assert manager.get_file("k.json") is None and manager.get_group("k.json") is None
    manager.put_group("k.json", {"k.json": manager.put("{}", "k.json")})
    assert manager.get_group("k.json") == FileCacheManager("KEY").get_group("k.json")


@pytest.mark.parametrize("name", ["k.json", f"k.json{SEAL}", "__grp__k.json"])
def test_a_kernel_of_which_a_file_is_missing_is_not_taken(cache: Path, name: str):
    manager = VerifiedKernels("KEY")
    manager.put_group("k.json", {"k.json": manager.put("{}", "k.json")})
    (cache / "KEY" / name).unlink()
    assert VerifiedKernels("KEY").get_group("k.json") is None


def test_where_nothing_can_be_written_kernels_are_temporary(cache: Path):
    cache.write_text("a file")
    with pytest.warns(UserWarning, match=r"compiled kernels.*set TRITON_CACHE_DIR") as warned:
        path = Path(VerifiedKernels("KEY").put(b"binary", "k.cubin"))
        assert VerifiedKernels("KEY").get_file("k.cubin") == str(path)
    assert len(warned) == 1
    assert path.read_bytes() == b"binary" and path.parent.parent == temporary()
    assert temporary().stat().st_mode & 0o777 == 0o700


def test_where_nothing_can_be_written_at_all_one_sentence_says_so(
    cache: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*where: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kernels.entries, "replace", full)
    with (
        pytest.warns(UserWarning, match="No space left"),
        pytest.raises(
            nt.NewtritonError, match=r"put nowhere: No space.*TRITON_CACHE_DIR or TMPDIR"
        ),
    ):
        VerifiedKernels("KEY").put(b"binary", "k.cubin")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A real kernel for a GPU that is not there, in a process that interprets none."""
    folder = tmp_path_factory.mktemp("compiled")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "NEWTRITON_CACHE": str(folder / "code"),
    }
    command = [sys.executable, "-m", f"{__package__}.compile"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_kernel_is_compiled_once(compiled: dict):
    assert compiled["first"] and not compiled["again"]


@pytest.mark.parametrize("damage", ["flipped", "truncated", "another's", "gone", "a pipe"])
def test_a_damaged_kernel_is_compiled_again(compiled: dict, damage: str):
    assert compiled[damage] == {"compiled": True, "same": True, "again": False}

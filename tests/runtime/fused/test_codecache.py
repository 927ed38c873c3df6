"""Generated files: found again, rebuilt when damaged, safe from others."""

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

import newtriton as nt
from newtriton.runtime.fused import codecache

SOURCE = "def answer():\n    return 42\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(codecache.FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache"


def files(cache: Path) -> list[Path]:
    return sorted(p for p in cache.iterdir() if p.suffix == ".py")


def test_a_module_is_kept_in_a_private_readable_file(cache: Path):
    module = codecache.module(SOURCE, {"device": "cpu"})
    assert module.answer() == 42
    (file,) = files(cache)
    assert SOURCE in file.read_text() and "# device: cpu" in file.read_text()
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert codecache.module(SOURCE, {"device": "cpu"}) is module


def test_what_the_code_is_for_is_part_of_its_name(cache: Path):
    codecache.module(SOURCE, {"device": "a"})
    codecache.module(SOURCE, {"device": "b"})
    assert len(files(cache)) == 2


@pytest.mark.parametrize("damage", [b"", b"def answer():\n    return 41\n", b"\xff\xfe"])
def test_a_damaged_file_is_rebuilt(cache: Path, damage: bytes):
    source = SOURCE + f"DAMAGE = {damage!r}\n"
    codecache.module(source, {})
    (file,) = files(cache)
    file.write_bytes(damage)
    assert codecache.stored(file.name) is None
    codecache.module(source, {})
    assert source in file.read_text()


def _writer(text: str) -> bool:
    for _ in range(50):
        codecache.store("shared.json", text)
        found = codecache.stored("shared.json")
        if found is None or set(found) - {"a", "b"}:
            return False
    return True


def test_processes_that_write_at_once_never_see_half_a_file(cache: Path):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_writer, ["a" * 100_000, "b" * 100_000]) == [True, True]
    assert [p.name for p in cache.iterdir()] == ["shared.json"]


def test_a_folder_that_others_can_write_is_refused(cache: Path):
    cache.mkdir(mode=0o700)
    cache.chmod(0o777)
    with pytest.raises(nt.NewtritonError, match=r"others can write.*chmod 700"):
        codecache.module(SOURCE, {})


def test_a_folder_that_cannot_be_made_is_named(cache: Path):
    cache.write_text("a file")
    with pytest.raises(nt.NewtritonError, match=f"cannot keep generated code in {cache}"):
        codecache.module(SOURCE, {})


def test_code_that_fails_to_load_is_not_kept_as_loaded():
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            codecache.module("1 / 0\n", {})
    assert os.environ[codecache.FOLDER]

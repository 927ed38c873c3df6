"""Generated files: found again, rebuilt when damaged, safe from others."""

import inspect
import linecache
import multiprocessing
import os
import py_compile
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import cache_from_source
from pathlib import Path
from types import SimpleNamespace

import pytest

from newtriton.runtime.caching.folders import warn
from newtriton.runtime.fused import codecache

SOURCE = "def answer():\n    return 42\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(codecache.FOLDER, str(tmp_path / "cache"))
    warn.cache_clear()
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


def test_nothing_is_kept_where_others_can_write(cache: Path):
    cache.mkdir(mode=0o700)
    cache.chmod(0o777)
    with pytest.warns(UserWarning, match=r"others can write.*chmod 700") as warned:
        assert codecache.module(SOURCE + "# shared\n", {}).answer() == 42
        assert codecache.module(SOURCE + "# shared, too\n", {}).answer() == 42
    assert len(warned) == 1 and not files(cache)


def test_a_folder_that_cannot_be_made_is_named(cache: Path):
    cache.write_text("a file")
    with pytest.warns(UserWarning, match=f"generated code cannot be kept in {cache}: File exists"):
        assert codecache.module(SOURCE + "# nowhere\n", {}).answer() == 42


def test_what_runs_is_the_text_and_no_file(cache: Path):
    """Neither a file under the module's name nor Python's compiled one beside it."""
    source = SOURCE + "# evil twin\n"
    name = f"nt_{codecache.digest(source)[:24]}"
    codecache.store(f"{name}.py", source.replace("42", "41"))
    (cache / "__pycache__").mkdir()
    twin = cache / "twin.py"
    twin.write_text(source.replace("42", "41"))
    py_compile.compile(str(twin), cache_from_source(str(cache / f"{name}.py")))
    module = codecache.module(source, {})
    assert module.__name__ == name and module.answer() == 42
    (cache / f"{name}.py").write_text(source.replace("42", "41"))
    linecache.checkcache()
    assert "return 42" in inspect.getsource(module.answer)


def test_a_file_under_anothers_name_is_not_taken(cache: Path):
    codecache.store("one", "1\n")
    (cache / "one").rename(cache / "other")
    assert codecache.stored("other") is None


def test_threads_load_a_module_once():
    executed: list[int] = []
    sys.modules["_executed"] = SimpleNamespace(executed=executed)  # type: ignore[assignment]
    source = "import time\nfrom _executed import executed\nexecuted.append(1)\ntime.sleep(0.05)\n"
    source += "DONE = True\n"
    with ThreadPoolExecutor(4) as pool:
        modules = list(pool.map(lambda _: codecache.module(source, {}).DONE, range(4)))
    assert modules == [True] * 4 and executed == [1]


def test_code_that_fails_to_load_is_not_kept_as_loaded():
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            codecache.module("1 / 0\n", {})
    assert os.environ[codecache.FOLDER]

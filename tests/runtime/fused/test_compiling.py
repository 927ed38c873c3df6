"""Kernels are compiled ahead: each once, and once per GPU and version."""

import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import triton

from newtriton.runtime.fused import codecache, compiling
from newtriton.runtime.fused.chips import CHIPS
from newtriton.runtime.fused.compiling import UNALIGNED, Job, distinct


@pytest.fixture(autouse=True)
def compiler_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(codecache.FOLDER, str(tmp_path / "cache"))
    monkeypatch.setattr(compiling, "compiled_here", set())
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path / "triton"))
    return tmp_path / "triton"


def kernel(key: str) -> SimpleNamespace:
    """A Triton kernel, as far as its key goes."""
    return SimpleNamespace(cache_key=key)


ONE, SAME, OTHER = kernel("x + 1"), kernel("x + 1"), kernel("x + 2")


def job(name: str, function=ONE, **what) -> Job:
    return Job(name, "pointwise", function, **{"types": {"x": "*fp32"}, "constants": {}, **what})


def test_jobs_of_one_source_are_one():
    kept = distinct([job("a"), job("b"), job("c", SAME), job("e", OTHER), job("d", warps=8)])
    assert [j.name for j in kept] == ["a", "e", "d"]
    kept = distinct([job("a", constants={"F": ONE}), job("b", constants={"F": ONE})])
    assert [j.name for j in kept] == ["a"]
    assert len(distinct([job("a"), job("b", types={"x": "*fp32" + UNALIGNED})])) == 2


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the jobs that have been compiled."""
    names: list[str] = []
    monkeypatch.setattr(compiling, "interpreted", lambda: False)
    monkeypatch.setattr(compiling, "compile_here", lambda jobs: names.extend(j.name for j in jobs))
    return names


def test_a_program_is_compiled_once_per_gpu(compiled: list[str], monkeypatch: pytest.MonkeyPatch):
    for chip in ("sm_90", "sm_90", "sm_80"):
        monkeypatch.setattr(compiling, "current_target", lambda chip=chip: CHIPS[chip].target)
        compiling.compile_once([job("a"), job("b")], "program")
    assert compiled == ["a", "a"]
    compiling.compile_once([job("c", warps=8)], "program")
    assert compiled == ["a", "a", "c"]


def test_a_program_is_compiled_again_when_the_compilers_cache_is_gone(
    compiler_cache: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(compiling, "current_target", lambda: CHIPS["sm_90"].target)
    compiling.compile_once([job("a")], "program")
    shutil.rmtree(compiler_cache)
    for _ in range(2):
        compiling.compile_once([job("a")], "program")
    assert compiled == ["a", "a"]


@pytest.mark.parametrize(("jobs", "cores", "workers"), [(5, 2, 2), (5, 64, 5)])
def test_no_more_workers_than_jobs_or_cores_of_this_process(
    jobs: int, cores: int, workers: int, monkeypatch: pytest.MonkeyPatch
):
    pools: list[int] = []
    monkeypatch.setattr(compiling, "current_target", lambda: CHIPS["sm_90"].target)
    monkeypatch.setattr(compiling, "compile_all", lambda jobs, targets, count: pools.append(count))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(cores))
    compiling.compile_here([job(str(i)) for i in range(jobs)])
    assert pools == [workers]


@pytest.mark.parametrize("fails", [False, True])
def test_launchers_are_compiled_with_their_kernels(fails: bool, monkeypatch: pytest.MonkeyPatch):
    """Of Triton 3.6, which writes them in C; where that fails the first launch says why."""
    compiled: list[tuple] = []

    def launcher(source, metadata) -> None:
        compiled.append((source, metadata))
        if fails:
            raise AssertionError("libcuda.so cannot be found")

    driver = SimpleNamespace(make_launcher=None, CudaLauncher=launcher)
    monkeypatch.setitem(sys.modules, "triton.backends.nvidia.driver", driver)
    made = SimpleNamespace(src="source", metadata="metadata")
    monkeypatch.setattr(Job, "compiled", lambda self, target: made)
    assert compiling._compiles(job("a"), CHIPS["sm_90"].target)
    assert compiling._compiles(job("a"), CHIPS["gfx942"].target)
    assert compiled == [("source", "metadata")]


def test_what_has_been_compiled_is_left_out(monkeypatch: pytest.MonkeyPatch):
    compiled: list[str] = []
    monkeypatch.setattr(compiling, "current_target", lambda: CHIPS["sm_90"].target)
    monkeypatch.setattr(
        compiling, "compile_all", lambda jobs, *_: compiled.extend(j.name for j in jobs)
    )
    for names in ("a", "ab", "ab", ""):
        compiling.compile_here([job(name, kernel(name)) for name in names])
    assert compiled == ["a", "b"]

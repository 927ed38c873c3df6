"""Free memory from trees of files that are made up, and refusals that say what fits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.runtime import capacity
from newtriton.runtime.capacity import SHARE, VARIABLE, Item, check, free
from newtriton.runtime.diagnostics.matrices import TrainedMatrix

CPU = torch.device("cpu")
MACHINE = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    5000 kB\n"}
STAT = "anon 5\ninactive_file 300\nactive_file 20\n"


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    limited(monkeypatch, {})


def limited(monkeypatch: pytest.MonkeyPatch, limits: Mapping[str, int]) -> None:
    fake = SimpleNamespace(RLIM_INFINITY=-1, RLIMIT_AS="as", RLIMIT_DATA="data")
    fake.getrlimit = lambda which: (limits.get(which, -1), -1)
    monkeypatch.setattr(capacity, "resource", fake)


def tree(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_nothing_is_known_where_there_are_no_files(tmp_path: Path) -> None:
    assert free(CPU, tmp_path) is None
    assert free(torch.device("mps"), tree(tmp_path, MACHINE)) is None


def test_a_machine_has_what_is_available(tmp_path: Path) -> None:
    assert free(CPU, tree(tmp_path, MACHINE)) == int(SHARE * 5_000 * 1024)


@pytest.mark.parametrize("limited_group", ["", "slice", "slice/job"])
def test_every_control_group_above_the_process_counts(tmp_path: Path, limited_group: str) -> None:
    groups = {
        f"sys/fs/cgroup/{group}/{name}": text
        for group in ("", "slice", "slice/job")
        for name, text in (
            ("memory.max", "4000\n" if group == limited_group else "max\n"),
            ("memory.current", "1000\n"),
            ("memory.stat", STAT),
        )
    }
    root = tree(tmp_path, {**MACHINE, **groups, "proc/self/cgroup": "0::/slice/job\n"})
    assert free(CPU, root) == int(SHARE * (4000 - 1000 + 300 + 20))


def test_the_tightest_group_decides_and_none_leaves_less_than_nothing(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/../job\n",
        "sys/fs/cgroup/memory.max": "9000",
        "sys/fs/cgroup/memory.current": "1000",
        "sys/fs/cgroup/job/memory.max": "4000",
        "sys/fs/cgroup/job/memory.current": "5000",
    }
    assert free(CPU, tree(tmp_path, {**MACHINE, **files})) == 0


def test_older_control_groups_count_as_well(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/docker/1\n0::/unlimited\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "7000",  # the container's own mount
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "6000",
        "sys/fs/cgroup/memory/memory.stat": "active_file 9\ntotal_active_file 50\n",
    }
    assert free(CPU, tree(tmp_path, {**MACHINE, **files})) == int(SHARE * 1050)


def test_the_limits_of_the_process_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = {"proc/self/status": "Name:\tpython\nVmSize:\t  3 kB\nVmData:\t  1 kB\n"}
    root = tree(tmp_path, {**MACHINE, **status})
    limited(monkeypatch, {"as": 10_000})
    assert free(CPU, root) == int(SHARE * (10_000 - 3 * 1024))
    limited(monkeypatch, {"as": 10_000, "data": 2_000})
    assert free(CPU, root) == int(SHARE * (2_000 - 1024))


def test_a_gpu_has_what_it_and_the_allocator_have_free(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: dict[str, Any] = {
        "mem_get_info": (100, 900),
        "memory_reserved": 70,
        "memory_allocated": 30,
    }
    for name, value in numbers.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free(torch.device("cuda", 0)) == int(SHARE * 140)


def test_the_variable_stands_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in (("12345", 12345), ("8e9", 8_000_000_000), ("0", 0), ("inf", None)):
        monkeypatch.setenv(VARIABLE, text)
        assert free(CPU) == expected
    for text in ("8GB", "-1", "nan", ""):
        monkeypatch.setenv(VARIABLE, text)
        with pytest.raises(nt.NewtritonError, match=VARIABLE):
            free(CPU)


def need(n: int) -> list[Item]:
    return [Item("the tape", 10 * n), Item("a factor", 1000, "take a smaller one"), Item("", 0)]


def test_the_largest_batch_that_fits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "2000")
    check("a step", need, 100, CPU)
    with pytest.raises(nt.NewtritonError) as refusal:
        check("a step", need, 101, CPU, in_pieces=True)
    assert str(refusal.value) == (
        "a step on 101 samples needs 0.00201 MB, 0.002 MB are free (the most of it: the tape "
        "0.00101 MB, a factor 0.001 MB): give at most 100 samples at once, or take the batch in "
        "pieces: micro_batch=K"
    )


def test_where_no_sample_fits_the_way_out_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1009")
    with pytest.raises(nt.NewtritonError, match="not even one sample fits, or take a smaller one"):
        check("a step", need, 101, CPU, in_pieces=True)


def test_where_nothing_is_known_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "inf")
    check("a step", need, 10**9, CPU)


NETWORK = nt.Sequential(nt.Linear(30), nt.Tanh(), nt.Linear(10))


def test_every_call_on_a_batch_is_refused_before_anything_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nt.compile(NETWORK, (20,), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    x, y = torch.randn(500, 20), torch.randint(0, 10, (500,))
    optimizer = nt.KFAC(model)
    optimizer.step(x[:5], y[:5])
    before, state = model.params.clone(), optimizer.state_dict()
    monkeypatch.setenv(VARIABLE, "100000")
    for call in (model, lambda x: model.gradient(x, y), lambda x: model.objective(x, y),
                 lambda x: model.linearize(x, y), lambda x: optimizer.step(x, y)):  # fmt: skip
        with pytest.raises(nt.NewtritonError, match="samples needs"):
            call(x)
    assert torch.equal(model.params, before)
    after = optimizer.state_dict()
    assert torch.equal(after["generator"], state["generator"])
    assert after["steps"] == state["steps"] and after["damping"] == state["damping"]
    monkeypatch.setenv(VARIABLE, "inf")
    assert optimizer.step(x, y).loss > 0.0


def test_what_is_said_to_fit_fits_and_one_sample_more_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nt.compile(NETWORK, (20,), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    x, y = torch.randn(500, 20), torch.randint(0, 10, (500,))
    optimizer = nt.KFAC(model)
    monkeypatch.setenv(VARIABLE, "150000")
    with pytest.raises(nt.NewtritonError) as refusal:
        optimizer.step(x, y)
    most = int(re.search(r"at most (\d+)", str(refusal.value))[1])  # type: ignore[index]
    with pytest.raises(nt.NewtritonError, match=f"at most {most} samples"):
        optimizer.step(x[: most + 1], y[: most + 1])
    optimizer.step(x[:most], y[:most])


def test_a_factor_that_does_not_fit_names_its_size_and_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nt.compile(nt.Linear(3), (5000,), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    x, y = torch.randn(2, 5000), torch.tensor([0, 1])
    monkeypatch.setenv(VARIABLE, "5e7")
    with pytest.raises(nt.NewtritonError) as refusal:
        nt.KFAC(model).step(x, y)
    assert "A of layer '', 5,001 × 5,001, 0.1 GB" in str(refusal.value)
    assert "max_factor" in str(refusal.value)
    assert nt.KFAC(model, max_factor=4000).step(x, y).accepted


def test_a_dense_matrix_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nt.compile(NETWORK, (20,), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    lin = model.linearize(torch.randn(3, 20), torch.tensor([0, 1, 2]))
    matrix = TrainedMatrix(lin, "ggn")
    monkeypatch.setenv(VARIABLE, "1e7")
    with pytest.raises(nt.NewtritonError, match="the matrix needs 14"):
        matrix.dense()

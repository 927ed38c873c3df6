"""The check finds a wrong kernel, and says which."""

import argparse
import json

import pytest
import torch

import newtriton as nt
from newtriton.command.main import main
from newtriton.compiler.lowering import printing
from newtriton.compiler.lowering.tile import Along
from newtriton.runtime.checking import numbers as check
from newtriton.runtime.fused.executor import Settings

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
INTERPRETED = Settings("ieee", "fused", True, 8192)


def small() -> nt.Model:
    net = nt.Sequential(nt.Conv2d(4, 3), nt.SiLU(), nt.MaxPool2d(2), nt.Flatten(), nt.Linear(3))
    return nt.compile(net, (2, 6, 6), nt.CrossEntropyLoss(), backend="aten", device="cpu")


@pytest.mark.interpreter
@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_all_kernels_of_a_small_network_are_right(precision: str):
    errors = list(check.numbers("small", small(), 3, Settings(precision, "fused", True, 8192)))
    assert len(errors) > 30 and all(e.good for e in errors), [str(e) for e in errors if not e.good]


@pytest.mark.interpreter
def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch):
    right = printing.ALONG_ROW[Along.SUM]
    monkeypatch.setitem(printing.ALONG_ROW, Along.SUM, f"1.001 * {right}")
    wrong = [e for e in check.numbers("small", small(), 3, INTERPRETED) if not e.good]
    assert "linearize" in wrong[0].kernel and "row_max" in wrong[0].kernel
    assert str(wrong[0]).endswith("WRONG")


def test_a_nan_is_not_good():
    assert not check.Error("kernel", float("nan"), 2e-5).good


def test_every_kernel_of_a_vgg_is_a_job_once():
    jobs = list(check.jobs(["vgg11"], ["tf32"]))
    different = check.distinct(jobs)
    assert 40 < len(different) < len(jobs)
    assert {j.kind for j in jobs} == {"contraction", "outer", "pointwise"}


def test_the_same_network_gives_the_same_code():
    def sources() -> list[str]:
        return [plan.source for plan in check.program_plans(small(), "tf32", 7)]

    kept = [sources() for _ in range(4)]  # nodes lie elsewhere in memory each time
    assert all(again == kept[0] for again in kept)


def test_lines_are_written_as_data(tmp_path):
    path = tmp_path / "deep" / "check.json"
    report = check.Report("vgg11 tf32 c", "sm_90", registers=90, copies={16: 24})
    check.store(path, [check.Error("a", 1e-7, 2e-5), check.Error("b", 1.0, 2e-5), report])
    data = json.loads(path.read_text())
    assert [row["good"] for row in data["rows"]] == [True, False, True]
    (worst,) = data["summary"]
    assert worst["precision"] == "tf32" and worst["most_registers"] == 90 and not worst["faults"]
    assert set(data["machine"]) == {"date", "device", "torch", "triton"}


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["check", "--only", "code", "--nets", "resnet"]) == 2
    assert "resnet" in capsys.readouterr().err


def test_a_wrong_line_gives_status_one(monkeypatch: pytest.MonkeyPatch, capsys):
    lines = [check.Error("fine", 0.0, 1.0), check.Error("broken", 2.0, 1.0)]
    monkeypatch.setattr(check, "_numbers", lambda options: iter(lines))
    options = argparse.Namespace(
        nets=["vgg11"], targets=["sm_90"], only="numbers", json=None, gpu=False
    )
    assert check.run(options) == 1
    assert "2 kernels, 1 of them" in capsys.readouterr().out


@pytest.mark.interpreter
@pytest.mark.parametrize("length", [1, 2500])
def test_all_kernels_of_vectors_are_right(length: int):
    errors = list(check.vector_numbers(length, torch.device("cpu"), INTERPRETED))
    assert len(errors) == 15 and all(e.good for e in errors), [str(e) for e in errors if not e.good]

"""The check prints a line per kernel, keeps them as data, and says whether all is well."""

import argparse
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from newtriton.bench import gpu
from newtriton.command import check, steps
from newtriton.command.main import main
from newtriton.runtime.checking.disassembly import Report
from newtriton.runtime.checking.networks import SMALL
from newtriton.runtime.checking.numbers import Error, Failure
from newtriton.runtime.fused.settings import Settings
from newtriton.runtime.model.compile import PRECISIONS


def test_lines_are_written_as_data(tmp_path):
    path = tmp_path / "deep" / "check.json"
    report = Report("vgg11 tf32 c", "sm_90", registers=90, copies={16: 24})
    check.store(path, [Error("a", 1e-7, 2e-5), Error("b", 1.0, 2e-5), report])
    data = json.loads(path.read_text())
    assert [row["good"] for row in data["rows"]] == [True, False, True]
    (worst,) = data["summary"]
    assert worst["precision"] == "tf32" and worst["most_registers"] == 90 and not worst["faults"]
    assert set(data["machine"]) == {"date", "device", "torch", "triton"}


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["check", "--only", "code", "--nets", "resnet"]) == 2
    assert "resnet" in capsys.readouterr().err


def test_a_wrong_line_gives_status_one(monkeypatch: pytest.MonkeyPatch, capsys):
    lines = [Error("fine", 0.0, 1.0), Error("broken", 2.0, 1.0)]
    monkeypatch.setattr(check, "compared", lambda options: iter(lines))
    options = argparse.Namespace(
        nets=["vgg11"], targets=["sm_90"], only="numbers", json=None, gpu=False
    )
    assert check.run(options) == 1
    assert "2 kernels, 1 of them" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "halves"),
    [([], ["numbers", "code"]), (["--only", "numbers"], ["numbers"])],
)
def test_each_half_runs_where_it_can(
    monkeypatch: pytest.MonkeyPatch, tmp_path, arguments: list[str], halves: list[str]
):
    started = []

    def start(command: list[str], env: dict[str, str], check: bool) -> subprocess.CompletedProcess:
        started.append((command, env.get("TRITON_INTERPRET")))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setattr(subprocess, "run", start)
    path = tmp_path / "check.json"
    assert main(["check", *arguments, "--json", str(path)]) == 0
    assert [command[command.index("--only") + 1] for command, _ in started] == halves
    assert [interpreted for _, interpreted in started] == ["1", None][: len(halves)]
    names = [command[-1] for command, _ in started]
    alone = [str(path)]
    assert names == (alone if arguments else [str(path.with_stem(f"check-{h}")) for h in halves])


# --- on a GPU, with stand-ins ---------------------------------------------------------------------


class Clock:
    """A clock that each line and each table of times moves on by a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Stand-ins: networks of two kernels, times of one table, the third precision raises."""
    clock = Clock()

    def numbers(name: str, model: object, batch: int, settings: Settings) -> Iterator[Error]:
        for i in range(2):
            clock.now += 1.0
            if settings.precision == "bf16":
                raise RuntimeError("out of\nmemory")
            yield Error(f"{name} {settings.precision} {i}", 0.0, 1.0)

    def vectors(length: int, device: object, settings: Settings) -> Iterator[Error]:
        clock.now += 1.0
        yield Error(f"vectors {length}", 2.0, 1.0)

    def times(name: str, step: object, until: float, path: Path | None) -> gpu.Outcome:
        clock.now += 1.0
        print(f"{name} took 1 ms")
        return gpu.Outcome.FAILED if name == "kernels" else gpu.Outcome.DONE

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a stand-in")
    monkeypatch.setattr(steps, "_model", lambda net, device: None)
    monkeypatch.setattr(
        steps, "settings_of", lambda device, precision, *_, **__: Settings(precision)
    )
    monkeypatch.setattr(steps, "numbers", numbers)
    monkeypatch.setattr(steps, "vector_numbers", vectors)
    monkeypatch.setattr(gpu, "measure", times)
    monkeypatch.setattr(check, "time", clock)
    return clock


def test_a_check_on_a_gpu_goes_on_to_the_end(clock: Clock, tmp_path, capsys):
    path = tmp_path / "gpu.json"
    assert main(["check", "--gpu", "--json", str(path)]) == 1
    shown = capsys.readouterr().out
    rows = json.loads(path.read_text())["rows"]
    assert [row["kernel"] for row in rows[:3]] == [f"vgg11 200 tf32 {i}" for i in (0, 1)] + [
        "plain 3 tf32 0"
    ]
    failed = [row for row in rows if "message" in row]
    assert len(failed) == len(gpu.BATCHES) + len(SMALL)
    assert failed[0]["kernel"] == "numbers of vgg11 at 200 samples in bf16"
    assert failed[0]["message"] == "RuntimeError: out of memory" and not failed[0]["good"]
    assert shown.index("vgg11 200 tf32 1") < shown.index("first took") < shown.index("plain 3 tf32")
    assert "compiled took 1 ms" in shown and "Left out" not in shown
    bad = len(failed) + 2  # those of vectors
    assert f"{len(rows)} kernels, {bad} of them not as they should be" in shown


def test_a_check_on_a_gpu_says_what_it_left_out(clock: Clock, tmp_path, capsys):
    path = tmp_path / "gpu.json"
    assert main(["check", "--gpu", "--seconds", "3.5", "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    done, left = shown.split("Left out for lack of time:\n")
    assert "vgg11 200 tf32 1" in done and "first took 1 ms" in done and "plain 3 tf32 0" in done
    assert "3 kernels, 0 of them" in done
    names = [line.strip() for line in left.splitlines()]
    assert names[0] == "the rest of the numbers of plain at 3 samples in tf32"
    every = [str(step) for step in steps.gpu_steps(["vgg11"], PRECISIONS)]
    assert names[1:] == every[3:]
    assert json.loads(path.read_text())["left_out"] == names


def test_a_check_on_a_gpu_needs_one(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["check", "--gpu"]) == 2
    assert "sees none here" in capsys.readouterr().err


def test_an_exception_takes_one_line(capsys):
    line = Failure("vgg11 200 tf32 hvp 3: conv", "RuntimeError: launch failed")
    assert not line.good and str(line).endswith("RuntimeError: launch failed  FAILED")

"""Calls in forked processes: results as they come, and no process that is left or waited for."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import pytest

from newtriton.runtime import processes
from newtriton.runtime.processes import Lost, in_processes

OTHERS = set[object]()


@pytest.fixture(autouse=True)
def _others() -> None:
    """Notes the processes that tests of other modules have left at work."""
    OTHERS.clear()
    OTHERS.update(active_children())


def square(x: int) -> int:
    return x * x


def divided(x: int) -> float:
    return 1 / x


def killed(x: int) -> int:
    if x == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


class Unpicklable(Exception):
    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


def unpicklable() -> None:
    raise Unpicklable(1, 2)


@pytest.mark.parametrize("workers", [1, 3, 20])
def test_every_call_is_made_once(workers: int):
    calls = [partial(square, x) for x in range(10)]
    assert sorted(in_processes(calls, workers)) == [x * x for x in range(10)]
    assert not {*active_children()} - OTHERS
    assert list(in_processes([], workers)) == []


def test_what_a_call_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(in_processes([partial(divided, x) for x in (1, 0, 2)], 2))
    with pytest.raises(processes.NewtritonError, match="Unpicklable: 1 and 2"):
        list(in_processes([unpicklable], 1))
    assert not {*active_children()} - OTHERS


def test_a_process_that_is_killed_is_not_waited_for():
    found = []
    with pytest.raises(Lost, match=r"1 of 6 calls were lost.*signal 9"):
        found.extend(in_processes([partial(killed, x) for x in range(6)], 2))
    with pytest.raises(Lost, match="1 of 6"):
        for x in in_processes([partial(killed, x) for x in range(6)], 1):
            found.append(x)
    assert sorted(found[-5:]) == [0, 1, 3, 4, 5]
    assert not {*active_children()} - OTHERS


def test_who_stops_asking_ends_the_processes():
    for _ in in_processes([partial(square, x) for x in range(50)], 2):
        break
    assert not {*active_children()} - OTHERS


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from newtriton.runtime.processes import in_processes

if {handled}:
    signal.signal(signal.SIGTERM, lambda number, frame: None)  # as a run that finishes its step

def slow():
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(60)

try:
    list(in_processes([slow] * 4, 2))
except KeyboardInterrupt:
    sys.exit(130)
"""


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked for in /proc")
@pytest.mark.parametrize(
    ("number", "handled", "code"),
    [(signal.SIGINT, True, 130), (signal.SIGKILL, False, -9)],
)
def test_an_interrupted_run_leaves_no_process(
    tmp_path: Path, number: signal.Signals, handled: bool, code: int
):
    """Ctrl-C reaches all processes of a terminal, the others the run alone."""
    command = [sys.executable, "-c", SCRIPT.format(handled=handled), str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as run:
        while len(list(tmp_path.iterdir())) < 2:
            assert run.poll() is None
            time.sleep(0.02)
        if number == signal.SIGINT:
            os.killpg(run.pid, number)
        else:
            os.kill(run.pid, number)
        assert run.wait(60) == code
        assert run.stderr is not None and not run.stderr.read()
    children = [int(path.name) for path in tmp_path.iterdir()]
    assert len(children) == 2
    while any(alive(child) for child in children):
        time.sleep(0.02)

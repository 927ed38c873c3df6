"""A lock lets one thread in at a time, the same one again, and is free in a forked process."""

import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import pytest

from newtriton.compiler.graph.locks import Lock


def test_one_thread_is_inside_at_a_time(monkeypatch: pytest.MonkeyPatch):
    lock, counts = Lock(), [0]

    def count(_: int) -> None:
        for _ in range(200):
            with lock, lock:
                before = counts[0]
                list(range(50))
                counts[0] = before + 1

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    sys.setswitchinterval(interval)
    assert counts == [800]


def test_it_is_free_in_a_forked_process():
    lock, taken, done = Lock(), Event(), Event()

    def take() -> None:
        with lock:
            taken.set()
            done.wait()

    def enter() -> None:
        with lock:
            pass

    holder = Thread(target=take)
    holder.start()
    taken.wait()
    child = multiprocessing.get_context("fork").Process(target=enter)
    child.start()
    child.join(60)
    done.set()
    holder.join()
    assert child.exitcode == 0
    with lock:
        pass

"""The first signal is noted, the next one acts, and what was ignored stays ignored."""

import os
import signal
import threading

import pytest

from newtriton.runtime.training.signals import noted


def test_the_first_one_is_noted_and_the_next_one_acts() -> None:
    with pytest.raises(KeyboardInterrupt), noted() as found:
        os.kill(os.getpid(), signal.SIGINT)
        assert found.number == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noted() as found:
            os.kill(os.getpid(), signal.SIGINT)
            assert found.number is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_noted() -> None:
    found: list[int | None] = []

    def inside() -> None:
        with noted() as ending:
            found.append(ending.number)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [None]

"""Signals that end a run: the first is noted, so that a step can be finished; the next one acts."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Noted:
    """The signal that has come.

    Attributes:
        number: its number, None before one has come.
    """

    number: int | None = None


@contextmanager
def noted() -> Iterator[Noted]:
    """Notes the first Ctrl-C or SIGTERM inside a `with` statement; a second one acts at once.

    A signal that is ignored stays so. Only the main thread gets signals: in another one, none
    are noted.
    """
    found = Noted()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    held = [number for number in ENDING if before[number] not in (signal.SIG_IGN, None)]

    def give_back() -> None:
        for number in held:
            signal.signal(number, before[number])

    def note(number: int, frame: FrameType | None) -> None:
        found.number = number
        give_back()

    for number in held:
        signal.signal(number, note)
    try:
        yield found
    finally:
        give_back()

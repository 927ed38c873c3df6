"""Which ranks have left by an error what all ranks do together, told through the group's store.

A call of the communication library waits for all ranks. Where one raises an error between two
calls, the others would wait for it until the time-out. So it writes down after how many calls it
has left, and who waits looks there now and then: a rank that has begun a further call is out of
step with it for good, and raises an error, too. Ranks that have all left after the same call are
in step, and may go on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from math import inf
from threading import Thread
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist

from ...compiler.graph.errors import NewtritonError, one_line
from .joining import attempt

LOOK = 0.25  # seconds that one waits before it looks, and that a store has to answer
PATIENT = 4  # looks: who leaves in the call that one waits for may have done its part of it
ENTRIES = "newtriton/departures"  # the store's key of how many there are
SHOWN = 400  # characters of an error that others show


class Place(NamedTuple):
    """Where in the sequence of calls a rank has left.

    Attributes:
        calls: how many calls it had begun.
        times: how often it has left since the last of them.
    """

    calls: int = -1
    times: int = 0


class Entry(NamedTuple):
    """A departure, as it is written down.

    Attributes:
        rank: the rank that has left.
        place: where.
        sentence: what others say of it.
    """

    rank: int
    place: Place
    sentence: str


class Departures:
    """The departures of a group's ranks, and the calls of this one, which they are counted by.

    Args:
        group: the process group.

    Attributes:
        calls: how many calls this rank has begun.
        broken: why nothing can be communicated any more; None while that is not so.
    """

    def __init__(self, group: Any) -> None:
        self.calls, self.broken = 0, None
        self._size, self._rank = dist.get_world_size(group), dist.get_rank(group)
        self._store, self._limit, known = group.get_group_store(), _time_out(group), attempt()
        self._key = None if known is None else f"{ENTRIES}/{known}"  # None: nobody writes or reads
        self._left, self._depth = Place(), 0
        self._entries: list[Entry] = []
        self._thread: Thread | None = None

    @contextmanager
    def told(self) -> Iterator[None]:
        """Lets the others know where an error leaves the outermost such `with` statement."""
        self._depth += 1
        try:
            yield
        except BaseException as error:
            if self._depth == 1:
                self.leave(error)
            raise
        finally:
            self._depth -= 1

    def begin(self) -> None:
        """Counts a call that begins, when all are in step.

        Raises:
            NewtritonError: they are not, or a call has failed before.
        """
        self.check()
        if self._left.calls == self.calls:
            self._rejoin()
        self.calls += 1

    def check(self) -> None:
        """Raises an error where a call has failed before."""
        if self.broken is not None:
            raise NewtritonError(self.broken)

    def wait(self, work: Any) -> None:
        """Waits for a call on the host, and looks meanwhile whether a rank has left.

        Raises:
            NewtritonError: one has.
        """
        late = 0
        while True:
            try:
                work.wait(timedelta(seconds=LOOK))
                return
            except RuntimeError:
                if work.is_completed():  # it has failed, or ended just now
                    work.wait()
                    return
            self._ask(self._update)
            late += any(entry.place.calls == self.calls for entry in self._further())
            self._check(self.calls + (late > PATIENT))

    def fail(self, sentence: str) -> NewtritonError:
        """Returns the error with which this call and all later ones end."""
        self.broken = sentence
        return NewtritonError(sentence)

    def leave(self, error: BaseException) -> None:
        """Writes down that this rank leaves by an error."""
        again = self._left.calls == self.calls
        self._left = Place(self.calls, self._left.times + 1 if again else 1)
        entry = json.dumps([self._rank, *self._left, self.broken or self._sentence(error)])

        def write() -> None:
            number = self._store.add(self._key, 1)
            self._store.set(f"{self._key}/{number}", entry)

        self._ask(write)

    def _sentence(self, error: BaseException) -> str:
        """Returns what others say of an error of this rank."""
        name = "" if isinstance(error, NewtritonError) else type(error).__name__
        said = one_line(": ".join(filter(None, (name, str(error)))), SHOWN)
        return (
            f"rank {self._rank} has raised an error, which ends the run on all: {said} (what was "
            "saved last is intact: start all ranks again)"
        )

    def _rejoin(self) -> None:
        """Waits until all ranks have left where this one has."""
        end = time.monotonic() + self._limit
        while time.monotonic() < end:
            self._ask(self._update)
            self._check(inf)
            if sum(entry.place == self._left for entry in self._entries) == self._size:
                return
            time.sleep(LOOK / 10)
        raise self.fail(
            "this rank has raised an error, and another one neither has nor answers within the "
            "group's time-out: start all ranks again"
        )

    def _check(self, calls: float) -> None:
        """Raises an error where a rank has left further on than this one, and before a call."""
        for entry in self._further():
            if entry.place.calls < calls:
                raise self.fail(entry.sentence)

    def _further(self) -> Iterator[Entry]:
        """Yields the departures of others that are further on than this rank's last one."""
        for entry in self._entries:
            if entry.rank != self._rank and self._left < entry.place:
                yield entry

    def _update(self) -> None:
        """Reads what has been written down since."""
        while self._store.check([key := f"{self._key}/{len(self._entries) + 1}"]):
            rank, calls, times, sentence = json.loads(self._store.get(key))
            self._entries.append(Entry(rank, Place(calls, times), sentence))

    def _ask(self, call: Callable[[], None]) -> None:
        """Calls the store, which a rank may hold that hangs: nobody waits for it for long."""
        if self._key is None:
            return
        if self._thread is not None:
            self._thread.join(LOOK)
            if self._thread.is_alive():
                return
        self._thread = Thread(target=_quietly, args=(call,), daemon=True)
        self._thread.start()
        self._thread.join(LOOK)


class Within:
    """The departures of a group for some of its ranks, whose calls the others do not count.

    Args:
        departures: those of the group.
    """

    def __init__(self, departures: Departures | Within) -> None:
        self.begin = self.check = departures.check
        self.wait, self.fail = departures.wait, departures.fail
        self.told, self.leave = departures.told, departures.leave


def _quietly(call: Callable[[], None]) -> None:
    """Calls a store that may have gone with its rank."""
    try:
        call()
    except RuntimeError:
        return


def _time_out(group: Any) -> float:
    """Returns the seconds after which a group's calls give up."""
    device = "cuda" if dist.get_backend(group) == "nccl" else "cpu"
    options = getattr(group._get_backend(torch.device(device)), "options", None)
    return getattr(options, "_timeout", dist.default_pg_timeout).total_seconds()


_known: WeakKeyDictionary[Any, Departures] = WeakKeyDictionary()


def departures_of(group: Any) -> Departures:
    """Returns the departures of a group: the same for all that communicate on it."""
    if group not in _known:
        _known[group] = Departures(group)
    return _known[group]

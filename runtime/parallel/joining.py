"""The default group of ranks that torchrun starts, and starts again where one has failed.

torchrun's store outlives the processes: what a rank has written there before it failed, addresses
among it, is what others find that have been started again. So ranks agree on a prefix of the keys
that no earlier ones have had.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4
from weakref import WeakSet

import torch.distributed as dist

from ...compiler.graph.errors import NewtritonError, one_line

KEYS = "newtriton/joining"
PAUSE = 0.02  # seconds between two looks

_made = WeakSet[Any]()


def join(backend: str, timeout: timedelta | None) -> None:
    """Makes the default group from torchrun's environment.

    Raises:
        NewtritonError: not all ranks join it within the time-out.
    """
    limit = dist.default_pg_timeout if timeout is None else timeout
    try:
        store, rank, size = next(iter(dist.rendezvous("env://", timeout=limit)))
        if dist.is_torchelastic_launched():
            store = dist.PrefixStore(_agreed(store, rank, size, limit), store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except RuntimeError as error:
        reason = one_line(str(error), 200)
        raise NewtritonError(
            f"the ranks did not find each other within {limit}: see the errors of others ({reason})"
        ) from error
    _made.add(dist.group.WORLD)


def attempt() -> str | None:
    """Returns what tells the keys of these processes in a store from those of earlier ones.

    None where nothing does: torchrun's processes on several nodes, which have a group of their own.
    """
    if not dist.is_torchelastic_launched() or dist.group.WORLD in _made:
        return ""
    alone = os.environ.get("GROUP_WORLD_SIZE") == "1"  # nodes count restarts each for itself
    return os.environ.get("TORCHELASTIC_RESTART_COUNT") if alone else None


def _agreed(store: Any, rank: int, size: int, limit: timedelta) -> str:
    """Returns text that the first rank has drawn, and given to each by what that one has drawn."""
    own, end = uuid4().hex, time.monotonic() + limit.total_seconds()
    if rank:
        store.set(f"{KEYS}/asks/{rank}", own)
        store.wait([f"{KEYS}/answers/{own}"], limit)
        found = store.get(f"{KEYS}/answers/{own}").decode()
        store.set(f"{KEYS}/heard/{found}/{rank}", "")
        return found
    left, answered = set(range(1, size)), set[str]()
    while left and time.monotonic() < end:
        for other in sorted(left):
            if store.check([f"{KEYS}/heard/{own}/{other}"]):
                left.discard(other)
            elif store.check([f"{KEYS}/asks/{other}"]):
                asked = store.get(f"{KEYS}/asks/{other}").decode()
                if asked not in answered:
                    store.set(f"{KEYS}/answers/{asked}", own)
                answered.add(asked)
        time.sleep(PAUSE)
    if left:
        names = ", ".join(map(str, sorted(left)))
        raise RuntimeError(f"rank {names} is missing")
    return own

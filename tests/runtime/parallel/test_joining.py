"""Ranks that find each other in a store in which others have been before."""

from __future__ import annotations

from datetime import timedelta
from threading import Thread

import pytest
import torch.distributed as dist

import newtriton as nt
from newtriton.runtime.parallel import joining
from newtriton.runtime.parallel.joining import attempt, join

SIZE = 3


def agreed(store: dist.Store, limit: float = 20.0, size: int = SIZE) -> list[str]:
    """Returns what each rank finds, threads standing for them."""
    found = [""] * SIZE

    def run(rank: int) -> None:
        found[rank] = joining._agreed(store, rank, SIZE, timedelta(seconds=limit))

    threads = [Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in reversed(threads):  # the first one comes last, and finds what is old
        thread.start()
    for thread in threads:
        thread.join(limit)
    return found


def test_each_time_ranks_agree_on_another_prefix() -> None:
    store = dist.HashStore()
    found = [agreed(store) for _ in range(3)]
    assert all(len(set(ranks)) == 1 for ranks in found)
    assert len({ranks[0] for ranks in found}) == 3


def test_a_rank_that_is_missing_is_named() -> None:
    store = dist.HashStore()
    agreed(store)
    with pytest.raises(RuntimeError, match="rank 1, 2 is missing"):
        joining._agreed(store, 0, SIZE, timedelta(seconds=0.1))


def test_ranks_that_do_not_find_each_other_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with pytest.raises(nt.NewtritonError, match=r"did not find each other within 0:00:00\.5"):
        join("gloo", timedelta(seconds=0.5))


def test_attempts_are_told_apart_where_nodes_count_them_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "GROUP_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert attempt() == ""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    assert attempt() == "2"
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    assert attempt() is None

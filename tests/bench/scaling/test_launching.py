"""Ranks do what they are asked, and keep what they are given."""

from __future__ import annotations

import os
from typing import Any

import pytest

import newtriton as nt
from newtriton.bench.scaling.launching import ranks


def kept(parallel: nt.DataParallel, held: dict[str, Any]) -> tuple[int, int]:
    held["asked"] = held.get("asked", 0) + 1
    return parallel.ranks.size, held["asked"]


def ended(parallel: nt.DataParallel, held: dict[str, Any]) -> None:
    os._exit(1)


def test_a_rank_keeps_its_things_and_one_that_has_ended_is_an_error() -> None:
    with ranks(1) as ask:
        assert [ask(kept), ask(kept)] == [[(1, 1)], [(1, 2)]]
        with pytest.raises(nt.NewtritonError, match="rank 0 has ended"):
            ask(ended)

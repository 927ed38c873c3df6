"""A state of which ranks have parts is whole on the first of them."""

from __future__ import annotations

from typing import Any

import torch

import newtriton as nt
from newtriton.runtime.parallel.states import completed

from .workers import workers

CPU = torch.device("cpu")


def put_together(parallel: nt.DataParallel) -> dict[str, Any]:
    rank = parallel.ranks.rank
    names = {0: ("a",), 1: ("b", "c"), 2: ()}[rank]
    kept = {name: {"A": -torch.zeros(2, 1, dtype=torch.float64)} for name in names}
    state = {"factors": kept, "counts": {"steps": 3}, 5: torch.tensor([True])}
    return completed(parallel.ranks, state, CPU)


def test_the_first_rank_gets_what_others_have() -> None:
    first, *others = workers(3)(put_together)
    assert first["factors"].keys() == {"a", "b", "c"} and first["counts"] == {"steps": 3}
    for found in first["factors"].values():
        assert found["A"].dtype == torch.float64 and found["A"].signbit().all()
    assert [other["factors"].keys() for other in others] == [{"b", "c"}, set()]

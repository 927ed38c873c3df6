"""Ranks that differ where they must not say so before they train."""

from __future__ import annotations

from datetime import timedelta
from time import sleep

import pytest
import torch
import torch.distributed as dist

import newtriton as nt
from newtriton.runtime.parallel.agreement import check_alike, digest
from newtriton.runtime.parallel.ranks import Ranks

from .cases import compiled, samples
from .workers import workers


class Nameless(nt.MSELoss):
    """A loss whose text has an address, which is another one in each process."""

    __repr__ = object.__repr__


def begun(parallel: nt.DataParallel, differs: str) -> str:
    odd = parallel.ranks.rank == 1
    name = "perceptron" if odd and differs == "network" else "chain"
    decay = 0.5 if odd and differs == "option" else 0.01
    seed = 1 if odd and differs == "seed" else 0
    dtype = torch.float32 if odd and differs == "dtype" else torch.float64
    # Nodes of it are in the network, which then name another loss as the place they are from.
    before = compiled("perceptron", parallel) if odd and differs == "history" else None
    model = compiled(name, parallel, weight_decay=decay, seed=seed, dtype=dtype)
    model.criterion = Nameless() if differs == "address" else model.criterion
    if odd and differs == "parameters":
        model.params[0] += 1.0
    with pytest.MonkeyPatch.context() as patch:
        if odd and differs == "version":
            patch.setattr(torch, "__version__", "2.11.0")
        try:
            model.linearize(*samples("chain", 4))
        except nt.NewtritonError as error:
            return str(error)
    del before
    return ""


@pytest.mark.parametrize(
    ("differs", "named"),
    [
        ("nothing", ""), ("address", ""), ("history", ""),
        ("network", "network"), ("option", "loss or option"),
        ("seed", "loss or option"), ("parameters", "state of the parameters"),
        ("dtype", "loss or option"), ("version", "version of newtriton or PyTorch"),
    ],
)  # fmt: skip
def test_all_ranks_name_what_differs(differs: str, named: str) -> None:
    first, second = workers(2)(begun, differs)
    assert first == second
    assert (f"rank 1 has another {named} than rank 0" in first) if named else not first


def test_digests_tell_parts_apart() -> None:
    assert digest("ab", "c") != digest("a", "bc") and 0 <= digest(b"x") < 2**63
    check_alike(Ranks(None), {"anything": 3})


def hung(parallel: nt.DataParallel) -> str:
    group = dist.new_group(timeout=timedelta(seconds=1.5))
    if parallel.ranks.rank == 1:
        sleep(2.5)
        return ""
    try:
        Ranks(group).most(1)
    except nt.NewtritonError as error:
        return str(error)
    return "nothing"


def test_a_rank_that_hangs_is_an_error_within_the_time_out() -> None:
    first, _ = workers(2)(hung)
    assert "another rank has ended, or does not answer within the group's time-out" in first

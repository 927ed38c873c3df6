"""What a user says of data-parallel training."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import newtriton as nt
from newtriton.runtime.parallel.data_parallel import LAUNCHED


def test_options_are_checked() -> None:
    with pytest.raises(nt.NewtritonError, match="batch_norm is 'all': one of 'whole', 'rank'"):
        nt.DataParallel(batch_norm="all")
    with pytest.raises(nt.NewtritonError, match="factors is 'half'"):
        nt.DataParallel(factors="half")
    with pytest.raises(nt.NewtritonError, match="timeout is 0"):
        nt.DataParallel(timeout=0)
    with pytest.raises(nt.NewtritonError, match=r"group is <object object>: give what .*new_group"):
        nt.DataParallel(object())
    assert nt.DataParallel(factors="bf16").dtype == torch.bfloat16


def test_without_a_group_it_says_how_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(nt.NewtritonError, match="start with `torchrun --nproc-per-node K …`"):
        nt.compile(nt.Linear(1), (2,), nt.MSELoss(), parallel=nt.DataParallel())
    with pytest.raises(nt.NewtritonError, match=r"parallel is 2: give e\.g\. newtriton"):
        nt.compile(nt.Linear(1), (2,), nt.MSELoss(), parallel=2)  # type: ignore[arg-type]


def test_options_are_pickled_and_a_group_is_not() -> None:
    options = nt.DataParallel(batch_norm="rank", timeout=30.0)
    assert repr(pickle.loads(pickle.dumps(options))) == repr(options)
    assert copy.deepcopy(options) is options
    with pytest.raises(nt.NewtritonError, match="cannot be pickled"):
        pickle.dumps(nt.DataParallel(torch.distributed.ProcessGroup(0, 1)))

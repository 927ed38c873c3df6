"""Who shares a batch: nobody, where one process trains; ranks are in tests/runtime/parallel."""

from __future__ import annotations

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.model.sharing import dropout_now, shared


def test_one_process_has_all_of_a_batch() -> None:
    model = nt.compile(nt.Linear(3), (5,), nt.MSELoss(), backend="aten")
    programs, x = model.programs[True], torch.zeros(4, 5)
    checked, share, numbers = shared(model, programs.traced, x, torch.zeros(4, 3), True)
    assert (checked.batch, share, numbers) == (4, None, {})
    assert dropout_now(model, share) == model.dropout.now


def test_a_batch_that_needs_labels_is_refused_without() -> None:
    model = nt.compile(nt.Linear(3), (5,), nt.MSELoss(), backend="aten")
    traced, x = model.programs[True].traced, torch.zeros(4, 5)
    assert shared(model, traced, x, None)[0].labels is None
    with pytest.raises(NewtritonError, match="labels"):
        shared(model, traced, x, None, True)

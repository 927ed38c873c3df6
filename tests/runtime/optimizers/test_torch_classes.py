"""Classes of torch.optim as a user names them, and what is refused of what they make."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.optimizers.torch_classes import name_of, optimizer_of, schedule_of


def parameter() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.zeros(2))]


def test_a_class_is_named_as_a_user_does() -> None:
    assert name_of(torch.optim.Adam) == "torch.optim.Adam"
    assert name_of(dict) == "dict"


@pytest.mark.parametrize(
    ("cls", "options", "said"),
    [
        (torch.optim.SparseAdam, {}, "take Adam"),
        (torch.optim.SGD, {"lr": -1.0}, "refuses"),
        (lambda parameters: parameters, {}, "give a class of torch.optim"),
    ],
)
def test_what_is_no_optimizer_for_a_model_is_refused(cls: Any, options: Any, said: str) -> None:
    with pytest.raises(NewtritonError, match=said):
        optimizer_of(cls, parameter(), options)


def test_a_schedule_goes_on_after_each_step() -> None:
    optimizer = optimizer_of(torch.optim.SGD, parameter(), {"lr": 0.1})
    assert isinstance(schedule_of(partial(StepLR, step_size=2), optimizer), StepLR)
    for none in (ReduceLROnPlateau, 3):
        with pytest.raises(NewtritonError, match=r"torch\.optim\.lr_scheduler"):
            schedule_of(none, optimizer)

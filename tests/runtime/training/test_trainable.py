"""What a call of `fit` gives is refused before anything is trained, or made what the loop takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.training.trainable import check_call, check_saving

BATCH = torch.zeros(2, 3), torch.zeros(2, 1)


def call(data: Any, epochs: int = 1, callbacks: Any = ()) -> Any:
    model = nt.compile(nt.Linear(1), (3,), nt.MSELoss(), backend="aten", device="cpu")
    return check_call(model, nt.FITRE(model), data, epochs, False, callbacks, None, False)


def test_a_pair_is_a_batch_and_callbacks_are_listed() -> None:
    train, validation, epochs, callbacks, average = call((BATCH, None), 2, (bool,))
    assert (len(train), validation, epochs, callbacks, average) == (1, None, 2, [bool], None)


@pytest.mark.parametrize(
    ("data", "epochs", "said"),
    [
        (([], None), 1, "train has no batches"),
        (([BATCH], "text"), 1, "validation is a str"),
        ((iter([BATCH]), None), 2, "one-shot iterator"),
        (([(torch.zeros(2, 4), torch.zeros(2, 1))], None), 1, "compiled for N×3"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(data: Any, epochs: int, said: str) -> None:
    with pytest.raises(NewtritonError, match=said):
        call(data, epochs)


def test_options_of_a_checkpoint_need_one() -> None:
    check_saving(None, None, "never", None)
    with pytest.raises(NewtritonError, match="give its folder"):
        check_saving(None, 3, "never", None)
    with pytest.raises(NewtritonError, match="leave history out"):
        check_saving("run", None, "auto", nt.History())

"""A run ends where its last epochs are no better than the best, whatever it has been through."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.runtime.training.epoch import Epoch
from newtriton.runtime.training.stopping import EarlyStopping


def ended_after(stops: EarlyStopping, values: list[float], **fixed: Any) -> int | None:
    """Returns the epoch after which a run with these values ends, None where it goes on."""
    for n in range(1, len(values) + 1):
        epochs = [
            Epoch(i, i, 0.0, **{"loss": 1.0, **fixed, stops.monitor: value})
            for i, value in enumerate(values[:n], 1)
        ]
        if stops(nt.History(epochs)):
            return n
    return None


@pytest.mark.parametrize(
    ("stops", "values", "last"),
    [
        (EarlyStopping(2), [3.0, 2.0, 2.5, 2.0, 1.0], 4),
        (EarlyStopping(2), [3.0, 2.0, 2.5, 1.9, 2.0, 1.8], None),
        (EarlyStopping(1), [3.0, 3.0], 2),
        (EarlyStopping(2, min_delta=0.5), [3.0, 2.6, 2.4, 2.0, 1.9], 5),
        (EarlyStopping(2, "validation_accuracy"), [0.5, 0.6, 0.55, 0.6], 4),
        (EarlyStopping(2, "validation_accuracy"), [0.5, 0.6, 0.7, 0.8], None),
        (EarlyStopping(2, "loss"), [1.0, 2.0, 3.0], 3),
        (EarlyStopping(2), [3.0, math.nan, math.nan], 3),
        (EarlyStopping(2), [math.nan, math.nan, 1.0], 2),
        (EarlyStopping(2), [math.inf, math.nan, 1.0], 2),
    ],
)
def test_the_epochs_that_are_no_better_are_counted(
    stops: EarlyStopping, values: list[float], last: int | None
) -> None:
    assert ended_after(stops, values) == last


def test_what_is_not_there_cannot_be_watched() -> None:
    with pytest.raises(nt.NewtritonError, match="validation_loss, which epoch 1 has none of: give"):
        EarlyStopping(2)(nt.History([Epoch(1, 1, 0.0, 1.0)]))


@pytest.mark.parametrize(
    ("args", "options", "said"),
    [
        ((0,), {}, "patience is 0: give a positive integer"),
        ((2, "val_loss"), {}, "monitor is 'val_loss': one of 'validation_loss'"),
        ((2,), {"min_delta": -1.0}, "min_delta is -1.0: give a number ≥ 0"),
        ((2,), {"mode": "max"}, r"EarlyStopping\(\) has no option 'mode'"),
    ],
)
def test_what_it_is_given_is_checked(args: Any, options: Any, said: str) -> None:
    with pytest.raises(nt.NewtritonError, match=said):
        EarlyStopping(*args, **options)


def trained(folder: Path, epochs: int) -> nt.History:
    """Trains with a rate at which the loss is the same or rises."""
    model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu", seed=0)
    optimizer = nt.TorchOptimizer(model, torch.optim.SGD, lr=1e-30)
    data = [(torch.eye(3), torch.arange(3))]
    return nt.fit(
        model, optimizer, data, data, epochs, progress=False, callbacks=[EarlyStopping(3)],
        checkpoint=folder, resume="auto",
    )  # fmt: skip


def test_a_run_that_is_resumed_ends_after_the_same_epoch(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", 9)
    assert (len(whole.epochs), whole.stopped) == (4, True)
    for epochs in (1, 3):
        assert not trained(tmp_path / "parts", epochs).stopped
    parts = trained(tmp_path / "parts", 9)
    assert (len(parts.epochs), parts.stopped) == (4, True)
    assert len(trained(tmp_path / "parts", 9).epochs) == 4  # it stays ended

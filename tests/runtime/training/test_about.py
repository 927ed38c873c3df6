"""What is told of a run can be written as JSON, whatever it was made of."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import torch

import newtriton as nt
from newtriton.runtime.training.about import about, arguments_of, versions


def test_a_run_is_told_by_what_it_was_made_of() -> None:
    net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3))
    model = nt.compile(net, (5,), nt.CrossEntropyLoss(), device="cpu", weight_decay=0.5)
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=2)
    optimizer = nt.TorchOptimizer(model, torch.optim.Adam, lr=0.1, schedule=schedule)
    data = nt.Batches(torch.zeros(6, 5), torch.arange(6) % 3, 2)
    told = about(model, optimizer, data, {"net": "mlp", "every": (1, 2)})
    assert json.loads(json.dumps(told)) == told
    assert told["model"] == {
        "network": "Sequential(Linear(4), Tanh(), Linear(3))", "loss": "CrossEntropyLoss()",
        "parameters": 39, "weight_decay": 0.5, "dtype": "float32", "backend": "aten",
        "precision": "ieee", "ranks": 1,
    }  # fmt: skip
    assert (told["optimizer"]["class"], told["optimizer"]["lr"]) == ("TorchOptimizer(Adam)", 0.1)
    assert "StepLR" in told["optimizer"]["schedule"]
    assert told["data"] == {"batches": 3, "batch_size": 2}
    assert told["options"] == {"net": "mlp", "every": [1, 2]}


def test_arguments_by_position_are_told_by_their_names_and_models_by_none() -> None:
    model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
    told = arguments_of(nt.SecondOrder(model, nt.MatrixFree(model, "ggn"), "truncated-cg"))
    assert told == {"curvature": "MatrixFree(model, 'ggn')", "solver": "truncated-cg"}
    assert arguments_of(nt.KFAC(model=model)) == {}


def test_parts_of_a_users_own_are_told_by_their_classes() -> None:
    class Mine:
        def __len__(self) -> int:
            raise TypeError("unknown")

    mine: Any = Mine()
    told = about(mine, mine, mine, {})
    assert told["model"] == {"class": "Mine"}
    assert told["optimizer"] == {"class": "Mine"}
    assert told["data"] == {}


def test_versions_are_those_that_are_installed() -> None:
    assert versions()["torch"] == torch.__version__
    assert {"python", "newtriton", "numpy"} <= versions().keys()

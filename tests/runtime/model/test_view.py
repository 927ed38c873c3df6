"""Views of parameters: ordinary tensors whose flag is the model's."""

from __future__ import annotations

import copy
import io

import torch
from torch import Tensor

import newtriton as nt
from newtriton.runtime.model.view import ParameterView


def views() -> tuple[nt.Model, dict[str, Tensor]]:
    model = nt.compile(nt.Linear(3), (2,), nt.MSELoss(), backend="aten", device="cpu")
    return model, dict(model.named_parameters())


def test_a_view_is_written_through_and_computed_with() -> None:
    model, found = views()
    found["weight"].fill_(2.0)
    assert (model.unflatten(model.params)["weight"] == 2.0).all()
    version = model.params._version
    found["bias"].add_(1.0)
    assert model.params._version > version
    assert type(found["weight"] + 1.0) is type(found["weight"].T) is Tensor
    torch.nn.init.zeros_(found["weight"])
    assert not model.unflatten(model.params)["weight"].any()
    assert all(isinstance(p, ParameterView) and p.requires_grad for p in model.parameters())


def test_a_copy_of_a_view_is_a_plain_tensor() -> None:
    _, found = views()
    file = io.BytesIO()
    torch.save(found, file)
    file.seek(0)
    for other in (copy.deepcopy(found), torch.load(file, weights_only=True)):
        assert type(other["bias"]) is Tensor and torch.equal(other["bias"], found["bias"])

"""A linearization of a batch and one of data are the same to a curvature and to a diagnosis."""

from __future__ import annotations

import torch

import newtriton as nt
from newtriton.runtime.model.linearized import Linearized

MEMBERS = [name for name in vars(Linearized) if not name.startswith("_")]


def test_both_have_all_members() -> None:
    model = nt.compile(nt.Linear(2), (3,), nt.CrossEntropyLoss(), device="cpu")
    x, y = torch.eye(3), torch.tensor([0, 1, 0])
    for lin in (model.linearize(x, y), nt.LinearizedData(model, [(x, y)])):
        assert [name for name in MEMBERS if not hasattr(lin, name)] == []
        assert nt.KroneckerCurvature(model, "kflr").update(lin)

"""Errors quote any value on one short line, whatever it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from newtriton.compiler.graph.errors import quoted


class Mute:
    """An object without a text."""

    def __repr__(self) -> str:
        raise RuntimeError("there is none")


QUOTED: list[tuple[Any, str]] = [
    ("fast", "'fast'"),
    (0.5, "0.5"),
    (None, "None"),
    ((3, 4), "(3, 4)"),
    ({"a": 1}, "{'a': 1}"),
    ([1] * 100, "[1, 1, 1, 1, 1, 1, 1, 1, ...]"),
    ("two\nlines\ud800", r"'two\nlines\ud800'"),
    (object(), "<object object>"),
    (Mute(), "<Mute>"),
    ([Mute()], "[<Mute>]"),
    (torch.tensor([1.0, 2.0]), "tensor([1., 2.])"),
    (torch.zeros(40, 40), "<Tensor of shape (40, 40)>"),
    (torch.zeros(3, device="meta"), "<Tensor of shape (3,)>"),
    (np.zeros((3, 3)), "<ndarray of shape (3, 3)>"),
    (nn.Linear(2, 3), "Linear(in_features=2, out_features=3, bias=True)"),
    (nn.Linear, "<class 'torch.nn.modules.linear.Linear'>"),
]


@pytest.mark.parametrize(("value", "text"), QUOTED, ids=[text for _, text in QUOTED])
def test_values_are_quoted_on_one_line(value: Any, text: str) -> None:
    assert quoted(value) == text


@pytest.mark.parametrize("value", ["x" * 10_000, b"x" * 10_000, 10**4000, 10**5000], ids=range(4))
def test_quotations_are_short(value: Any) -> None:
    assert len(quoted(value)) < 400

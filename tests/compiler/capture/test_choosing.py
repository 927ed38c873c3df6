"""Of structured outputs, the tensor that counts."""

from collections import namedtuple
from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.compiler.capture.choosing import chosen_output

A, B = torch.zeros(1), torch.ones(1)
Pair = namedtuple("Pair", ("logits", "aux"))


@pytest.mark.parametrize(
    ("given", "output", "expected"),
    [
        (A, None, A),
        ([A], None, A),
        ({"loss": A, "logits": B}, None, B),
        (Pair(A, B), None, A),
        (Pair(A, B), "aux", B),
        (Pair(A, B), 1, B),
        ((None, B), None, B),
        ({"a": A, "b": B}, "b", B),
    ],
)
def test_one_tensor_is_chosen(given: Any, output: Any, expected: torch.Tensor) -> None:
    assert chosen_output(given, output) is expected


@pytest.mark.parametrize("given", [{"a": A, "b": B}, (A, B), None])
def test_where_none_is_named_the_choices_are_listed(given: Any) -> None:
    with pytest.raises(nt.NewtritonError, match=r"give output=|no tensor in it"):
        chosen_output(given, None)

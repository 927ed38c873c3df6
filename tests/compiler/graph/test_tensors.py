"""What is no dense tensor of real numbers is refused with the way out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.tensors import check_tensor

TENSORS: list[tuple[Any, str]] = [
    ([1.0], "x are list: give a torch.Tensor"),
    (np.zeros(3), "x are ndarray: give a torch.Tensor"),
    (torch.eye(3).to_sparse(), r"x are a tensor with the layout torch.sparse_coo: use .to_dense"),
    (torch.zeros(3, dtype=torch.complex64), "x are torch.complex64: give real numbers"),
    (torch.nested.as_nested_tensor([torch.zeros(2)]), "x are a nested tensor"),
]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(("value", "message"), TENSORS, ids=[text for _, text in TENSORS])
def test_what_is_no_dense_tensor_is_refused(value: Any, message: str) -> None:
    with pytest.raises(nt.NewtritonError, match=message):
        check_tensor("x", value)


def test_a_tensor_is_taken_wherever_it_is() -> None:
    x = torch.zeros(2, 3, device="meta")
    assert check_tensor("x", x) is x

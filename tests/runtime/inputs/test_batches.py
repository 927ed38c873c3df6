"""Batches come on the model's device and in its dtype, and data keep what else they have."""

import numpy as np
import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.inputs.batches import Moved, moved


class Place:
    device = torch.device("cpu")
    dtype = torch.float64
    integers = frozenset({"ids"})


def test_numbers_get_the_models_dtype_and_classes_stay() -> None:
    x, y = moved((np.zeros((2, 3), np.float32), [0, 1]), Place())
    assert (x.dtype, y.dtype) == (torch.float64, torch.int64)
    x, y = moved(({"ids": torch.zeros(2, dtype=torch.int32), "x": torch.ones(2)}, y / 2), Place())
    assert (x["ids"].dtype, x["x"].dtype, y.dtype) == (torch.int64, torch.float64, torch.float64)


@pytest.mark.parametrize("batch", [torch.ones(3), (1,), ("x", "y"), None])
def test_what_is_no_pair_is_refused(batch: object) -> None:
    with pytest.raises(NewtritonError, match="no pair of tensors"):
        moved(batch, Place())


def test_data_keep_what_else_they_have() -> None:
    data = Moved(nt.Batches(torch.zeros(4, 1), torch.zeros(4), 2, seed=5), Place())
    assert [x.dtype for x, _ in data] == [torch.float64] * 2
    assert data.seed == 5

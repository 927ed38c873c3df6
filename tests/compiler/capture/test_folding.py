"""Constants of an exported graph become leaves, equal for all samples, without infinities."""

from typing import Any

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.capture.folding import LARGE, Folded, leaf, single
from newtriton.compiler.graph.ir import N, Op
from newtriton.compiler.language.network import Scope, _Record


def folded(*values: Any) -> Folded:
    return Folded((values[0], values[-1]), None)


def test_one_number_is_an_expression_of_the_graph() -> None:
    assert single(folded(torch.full((2, 3), 0.5), torch.full((3, 3), 0.5))) == 0.5
    assert single(folded(torch.tensor([1.0, 2.0]))) is None
    found = leaf(folded(torch.tensor([-torch.inf])), (N, 3), Scope(_Record(training=True)))
    assert found.op is Op.BROADCAST
    assert repr(found.inputs[0]["value"]) == f"{-LARGE:g}"


@pytest.mark.parametrize("times", [1, 2])
def test_a_constant_of_all_samples_is_a_leaf_of_one(times: int) -> None:
    record = _Record(training=True)
    row = torch.arange(3.0 * times).view(times, 3)

    def rows(batch: int) -> Tensor:
        return row.repeat(batch, 1)

    found = leaf(folded(rows(2), rows(3)), (N * times, 3), Scope(record))
    assert found.shape == (N * times, 3)
    (values,) = record.constants.values()
    assert torch.equal(values.float(), row)


def test_a_constant_without_the_batch_is_the_same_at_all_batch_sizes() -> None:
    with pytest.raises(nt.NewtritonError, match="depends on the batch size"):
        _ = folded(torch.zeros(2), torch.ones(2)).tensor


def test_infinities_of_masks_are_large_numbers() -> None:
    record = _Record(training=True)
    leaf(folded(torch.tensor([0.0, -torch.inf]).double()), (2,), Scope(record))
    (values,) = record.constants.values()
    assert values.tolist() == [0.0, -LARGE]

"""The table of rules: every name is an op of PyTorch, once; what people write against autograd."""

from collections import Counter

import pytest
import torch

from newtriton.compiler.capture.dropout import DROPOUT
from newtriton.compiler.capture.images import IMAGES
from newtriton.compiler.capture.indexing import INDEXING
from newtriton.compiler.capture.pointwise import POINTWISE
from newtriton.compiler.capture.products import PRODUCTS
from newtriton.compiler.capture.reductions import REDUCTIONS
from newtriton.compiler.capture.shaping import SHAPING
from newtriton.compiler.capture.table import RULES

from ...modules import ODDITIES, check_captured

TABLES = (DROPOUT, IMAGES, INDEXING, POINTWISE, PRODUCTS, REDUCTIONS, SHAPING)


def test_every_rule_is_for_an_op_of_pytorch_and_stands_once() -> None:
    assert not [name for name in RULES if not hasattr(torch.ops.aten, name)]
    counted = Counter(name for table in TABLES for name in table)
    assert set(counted) == set(RULES)
    assert max(counted.values()) == 1


@pytest.mark.parametrize("name", ODDITIES)
def test_derivatives_of_what_people_write_are_autograds(name: str) -> None:
    check_captured(ODDITIES[name])

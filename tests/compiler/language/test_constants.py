"""Vectors of numbers as leaves: equal ones are one, and their values are found by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from newtriton.compiler.graph import ops
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.compiler.language.constants import check_numbers, constant, constants
from newtriton.compiler.language.network import constant_leaf

VECTOR = (0.5, 2.0, 1.0)


def test_equal_vectors_are_one_leaf_whose_values_are_found():
    leaf, other = constant(VECTOR), constant((0.5, 2.0))
    assert constant(tuple(VECTOR)) is leaf is not other
    found = constants([ops.input_("x", (3,)), leaf, other, leaf])
    assert [tuple(values.tolist()) for values in found.values()] == [VECTOR, (0.5, 2.0)]
    assert [constant_leaf(*of_name) for of_name in found.items()] == [leaf, other]


@pytest.mark.parametrize(
    "given", [list(VECTOR), VECTOR, torch.tensor(VECTOR), np.array(VECTOR)], ids=type
)
def test_a_vector_may_be_given_in_any_form(given: Any):
    assert check_numbers("weight", given) == VECTOR
    assert check_numbers("weight", torch.tensor(2)) == check_numbers("weight", 2) == (2.0,)


@pytest.mark.parametrize("bad", ["ab", [], None, [[1.0]], [-1.0], [math.inf], [True], -1.0])
def test_what_is_no_vector_is_refused(bad: Any):
    with pytest.raises(NewtritonError, match=r"weight(\[0\])? is "):
        check_numbers("weight", bad)

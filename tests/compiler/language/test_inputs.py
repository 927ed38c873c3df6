"""What inputs are declared by: shapes, kinds, one or several."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import numpy as np
import pytest

import newtriton as nt
from newtriton.compiler.language.inputs import specifications

IDS = nt.InputSpec((8,), "int")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((3, 8, 8), nt.InputSpec((3, 8, 8))),
        ([3, 8, 8], nt.InputSpec((3, 8, 8))),
        (5, nt.InputSpec((5,))),
        (np.int64(5), nt.InputSpec((5,))),
        ((), nt.InputSpec(())),
        (IDS, IDS),
        ((IDS, (3,)), (IDS, nt.InputSpec((3,)))),
        (((3,), 4), (nt.InputSpec((3,)), nt.InputSpec((4,)))),
        ({"ids": IDS, "x": 3}, {"ids": IDS, "x": nt.InputSpec((3,))}),
    ],
    ids=str,
)
def test_shapes_stand_for_inputs_of_numbers(given: Any, expected: Any) -> None:
    assert specifications(given) == expected


@pytest.mark.parametrize("given", [None, "8", (3, "8"), (3, 0), (3, 2.0), {"x": None}], ids=str)
def test_what_is_no_shape_is_refused(given: Any) -> None:
    with pytest.raises(nt.NewtritonError, match="give the shape of one sample"):
        specifications(given)


def test_a_kind_is_known() -> None:
    with pytest.raises(nt.NewtritonError, match="kind is 'long': one of 'float', 'int'"):
        nt.InputSpec((3,), "long")


class Unreadable(UserDict):
    """A dictionary that cannot be read."""

    def __getitem__(self, key: object) -> Any:
        raise RuntimeError("not today")


def test_shapes_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(nt.NewtritonError, match=r"input_shape are .*, which cannot be read: not"):
        specifications(Unreadable({"a": (3,)}))

"""Terms: interned, folded, and printed as the Python that they mean."""

import pytest

from newtriton.compiler.lowering import printing, tile
from newtriton.compiler.lowering.printing import triton
from newtriton.compiler.lowering.tile import (
    COLUMN,
    COLUMNS,
    INSIDE,
    NOWHERE,
    ONE,
    ROW,
    ROWS,
    TILE,
    ZERO,
    Along,
    Axis,
    Form,
    Index,
    Mask,
    Pointer,
    Value,
    add,
    call,
    coordinate,
    number,
    position,
    where,
    within,
)

a0, a1 = coordinate(0, Axis.ROWS), coordinate(1, Axis.COLUMNS)
x, y = Value.named("v0", TILE), Value.named("v1", ROWS)


def test_equal_terms_are_one_object():
    assert a0 * 3 + a1 is coordinate(0, Axis.ROWS) * 3 + coordinate(1, Axis.COLUMNS)
    assert position(1) is ONE and position(1) is not number(1)
    assert number(1) is not number(1.0) and number(0.0) is not position(0)
    assert Index.named("v0") is not Value.named("v0")


def test_zero_and_one_are_folded():
    assert a0 + 0 is a0 and a0 * 0 is ZERO and ZERO * a0 is ZERO
    assert ZERO + a0 is a0 and a0 - 0 is a0 and a0 * 1 is a0 and ONE * a0 is a0
    assert a0 // 1 is a0 and a0 % 1 is ZERO
    assert position(7) // 2 is position(3) and position(7) % 4 is position(3)
    assert position(2) + 3 is position(5) and position(2) - 3 is position(-1)
    assert a0 + -3 is a0 - 3


def test_terms_know_where_they_vary_and_their_coordinates():
    both = a0 * 4 + a1
    assert (a0.spans, a1.spans, both.spans) == (ROWS, COLUMNS, TILE)
    assert both.coordinates == {0, 1} and (ROW + COLUMN).coordinates == frozenset()
    mask = a0.inside(0, 5) & a1.at_least(1)
    assert mask.coordinates == {0, 1} and isinstance(mask, Mask)
    assert x.above(y).spans == TILE and number(1.0).spans == NOWHERE
    assert Value.named("v9", ROWS).coordinates == frozenset()


def test_positions_elements_and_conditions_are_told_apart():
    assert isinstance(where(INSIDE, a0, ZERO), Index)
    assert isinstance(where(INSIDE, x, y), Value)
    assert isinstance(x.equals(a0), Mask) and isinstance(a0.as_value(), Value)


def test_masks_cover_what_a_term_spans():
    valid = a0.below(3)
    assert within(NOWHERE) is None and within(NOWHERE, valid) is valid
    assert triton(within(TILE, valid) or valid) == "mr & mc & (a0 < 3)"
    assert (valid & None) is valid


@pytest.mark.parametrize(
    ("term", "text"),
    [
        (a0 * 3 + a1, "a0 * 3 + a1"),
        ((a0 + a1) * 3, "(a0 + a1) * 3"),
        (a0 * (a1 * 3), "a0 * (a1 * 3)"),
        (a0 - (a1 - 2), "a0 - (a1 - 2)"),
        (a0 - 2 - a1, "a0 - 2 - a1"),
        ((a0 + 2) // 3 % 4, "(a0 + 2) // 3 % 4"),
        (a0.inside(1, 4), "(a0 >= 1) & (a0 < 4)"),
        ((x.above(y) | x.differs(x)) & INSIDE, "((v0 > v1) | (v0 != v0)) & (mr & mc)"),
        (add([x, y, number(-1.0)]), "v0 + v1 + -1.0"),
        (number(1.0) / (x + y), "1.0 / (v0 + v1)"),
        (x * y * number(0.5), "v0 * v1 * 0.5"),
        (x.equals((a0 * 2 + a1).as_value()), "v0 == a0 * 2 + a1"),
        ((a0 * 2 + a1).as_value() * x, "(a0 * 2 + a1) * v0"),
        (where(a0.below(2), x, number(0.0)), "tl.where(a0 < 2, v0, 0.0)"),
        (number(float("-inf")), 'float("-inf")'),
        (call("tl.maximum", x, number(1.0)), "tl.maximum(v0, 1.0)"),
        (
            (Pointer.named("p[0]") + (a0 * 3 + a1)).load(within(ROWS), "float32"),
            "tl.load(p[0] + (a0 * 3 + a1), mask=mr, other=0).to(tl.float32)",
        ),
        ((Pointer.named("p[1]") + a0 * 3 + a1).load(None), "tl.load(p[1] + a0 * 3 + a1)"),
        (
            Value(Form.ALONG_ROW, (x,), Along.SUM, spans=ROWS),
            "tl.sum(tl.where(mr & mc, v0, 0.0), axis=1, keep_dims=True)",
        ),
    ],
)
def test_a_printed_term_means_the_term(term: tile.Term, text: str):
    assert triton(term) == text


def test_every_form_and_every_row_can_be_printed():
    assert set(printing._PRINT) == set(Form)
    assert set(printing.ALONG_ROW) == set(Along)


def test_an_element_that_nobody_read_is_not_printed():
    with pytest.raises(AssertionError, match="nobody has read"):
        triton(tile.UNKNOWN)


def test_a_loops_index_is_none_of_the_tiles():
    inner = tile.Index.named("l0")
    assert tile.in_loop([ROW, COLUMN * 2 + inner])
    assert not tile.in_loop([ROW, COLUMN + tile.coordinate(0, Axis.ROWS), tile.BATCH, ONE])
    assert not tile.in_loop([tile.UNKNOWN])

"""Places of kernels and lines: nothing overlaps, whatever the program."""

from collections.abc import Iterator
from itertools import pairwise

import pytest

from newtriton.runtime.drawing.cards import CHIP, HEAD, Card, card, shortened
from newtriton.runtime.drawing.layout import layout
from newtriton.runtime.drawing.picture import GIVEN, Kernel, Launch, Picture, Pill

from .drawn import CASES, picture

Rectangle = tuple[float, float, float, float]


def inside(shown: Card, x: float, y: float) -> Iterator[Rectangle]:
    """The boxes of a card, and its head."""
    yield x, y, x + shown.width, y + HEAD
    for box in shown.boxes:
        yield x + box.x, y + box.y, x + box.x + box.width, y + box.y + box.height


def check_apart(rectangles: list[Rectangle]) -> None:
    for i, (left, top, right, bottom) in enumerate(rectangles):
        for x, y, x_end, y_end in rectangles[:i]:
            assert right <= x or x_end <= left or bottom <= y or y_end <= top


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("net", "program"), CASES)
def test_no_two_boxes_overlap(net: str, program: str, fused: bool) -> None:
    places = layout(picture(net, program, fused))
    for shown, x, y in places.cards:
        boxes = list(inside(shown, x, y))
        check_apart(boxes)
        for left, top, right, bottom in boxes:
            assert x <= left
            assert right <= x + shown.width <= places.width
            assert y <= top
            assert bottom <= y + shown.height <= places.height
    cards = [(x, y, x + c.width, y + c.height) for c, x, y in places.cards]
    given = [(c.x, c.y, c.x + c.width, c.y + CHIP) for c in places.given]
    check_apart([*cards, *given])


@pytest.mark.parametrize(("net", "program"), CASES)
def test_lines_of_values_never_meet(net: str, program: str) -> None:
    shown = picture(net, program)
    places = layout(shown)
    left = min(x for _, x, _ in places.cards)
    spans: dict[float, list[tuple[float, float]]] = {}
    for lane in places.lanes:
        assert lane.x < left
        ends = [lane.exit.below, *(y for _, y in lane.entries)]
        spans.setdefault(lane.x, []).append((min(ends), max(ends)))
    for found in spans.values():
        found.sort()
        assert all(a[1] < b[0] for a, b in pairwise(found))
    written = {v for k in shown.kernels for v in k.writes}
    read = {v for k in shown.kernels for v in k.reads if shown.values[v].kind not in GIVEN}
    assert {lane.value for lane in places.lanes} == written & read == read


def test_a_card_says_what_it_reads_computes_and_writes() -> None:
    shown = picture("plain", "linearize")
    kernel = next(k for k in shown.kernels if k.kind == "contraction")
    texts = [box.text for box in card(kernel, shown).boxes]
    assert any(text.startswith("%") and "0.weight" in text for text in texts)
    assert sum(text.endswith(" conv") for text in texts) == 1


def test_long_names_lose_their_middle() -> None:
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghijk", 10) == "abcd…ghijk"


def test_a_node_that_needs_nothing_stands_before_those_that_need_it() -> None:
    pills = [Pill(i, "map", f"%{i}") for i in range(3)]
    kernel = Kernel(0, "pointwise", "N", "", pills, [], [], [(0, 1), (1, 2)], 0, 0)
    shown = card(kernel, Picture("", "", [], [], [], [kernel], [Launch()], []))
    left = [box.x for box in shown.boxes]
    assert left == sorted(set(left))

"""Memory over time: rectangles at the places of values, in one scale."""

import pytest

from newtriton.runtime.drawing.memory import HEIGHT, LEFT, drawn, width
from newtriton.runtime.drawing.picture import Picture, Room

from .drawn import CASES, picture

Rectangle = tuple[float, float, float, float]


def rooms(shown: Picture) -> list[tuple[Room, Rectangle]]:
    """The values' places with their rectangles."""
    found = [room for band in shown.bands[::-1] for room in band.rooms]
    marks = [e for e in drawn(shown).element.iter("rect") if "room" in e.get("class", "").split()]
    sides = [[float(e.get(name, "nan")) for name in ("x", "y", "width", "height")] for e in marks]
    return [(room, (x, y, w, h)) for room, (x, y, w, h) in zip(found, sides, strict=True)]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("net", "program"), CASES)
def test_rectangles_are_as_long_and_as_high_as_values(net: str, program: str, fused: bool) -> None:
    shown = picture(net, program, fused)
    step = width(shown) / len(shown.launches)
    scale = HEIGHT / sum(band.size for band in shown.bands)
    for room, (x, _, wide, height) in rooms(shown):
        assert x == pytest.approx(LEFT + room.start * step, abs=0.06)
        assert wide == pytest.approx((room.stop - room.start) * step, abs=0.06)
        assert height == pytest.approx(room.size * scale, abs=0.06)


@pytest.mark.parametrize(("net", "program"), CASES)
def test_rectangles_do_not_overlap(net: str, program: str) -> None:
    found = [rectangle for _, rectangle in rooms(picture(net, program))]
    rounding = 0.11
    for i, (x, y, wide, high) in enumerate(found):
        for left, top, other_wide, other_high in found[:i]:
            across = min(x + wide, left + other_wide) - max(x, left)
            down = min(y + high, top + other_high) - max(y, top)
            assert min(across, down) <= rounding

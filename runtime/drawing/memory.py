"""Draws memory over time: launches from left to right, bytes from below."""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from .markup import add, make
from .picture import Band, Picture, Room, amount
from .style import slug

LEFT, RIGHT, TOP = 150.0, 20.0, 26.0
WIDTH, WIDEST, HEIGHT = 720.0, 1400.0, 260.0
WIDE = 8.0  # the width of a launch, unless the picture would be too wide
LOWEST = 30.0  # a band's height, for its name
STRIP = 8.0  # the height of the launches' colours
LETTER = 6.1


@dataclass(frozen=True)
class OverTime:
    """The drawing with its size."""

    element: Element
    width: float
    height: float


def width(picture: Picture) -> float:
    """Returns the width of all launches."""
    return max(WIDTH, min(WIDEST, WIDE * len(picture.launches)))


def drawn(picture: Picture) -> OverTime:
    """Returns memory over time, in one scale for all sorts of it."""
    bands = [band for band in picture.bands if band.rooms]
    total = sum(band.size for band in bands)
    count = max(1, len(picture.launches))
    step, scale = width(picture) / count, HEIGHT / total if total else 0.0
    group, y = make("g", class_="memory"), TOP
    add(group, "text", "memory over time", class_="facts", x=14.0, y=14.0)
    strip = add(group, "g")
    for band in bands[::-1]:
        height = max(LOWEST, band.size * scale)
        y = _band(group, band, picture, (y, height, step, scale)) + 8
    _launches(strip, picture, step, y)
    return OverTime(group, LEFT + width(picture) + RIGHT, y + STRIP + 26)


Frame = tuple[float, float, float, float]  # upper edge, height, width of a launch, bytes' height


def _band(group: Element, band: Band, picture: Picture, frame: Frame) -> float:
    """Draws memory of one sort, and returns its lower edge."""
    y, height, step, scale = frame
    below, right = y + height, LEFT + step * max(1, len(picture.launches))
    add(group, "rect", class_="band", x=LEFT, y=y, width=right - LEFT, height=height)
    add(group, "text", band.name, class_="right", x=LEFT - 10, y=below - height / 2 - 2)
    size = amount(band.size, "B")
    add(group, "text", size, class_="right dim", x=LEFT - 10, y=below - height / 2 + 12)
    top = below - band.size * scale
    add(group, "line", class_="limit", x1=LEFT, x2=right, y1=top, y2=top)
    for room in band.rooms:
        _room(group, room, picture, (below, step, scale))
    add(group, "line", class_="axis", x1=LEFT, x2=right, y1=below, y2=below)
    return below


def _room(group: Element, room: Room, picture: Picture, frame: tuple[float, float, float]) -> None:
    """Draws the place of a value."""
    below, step, scale = frame
    value = picture.values[room.value]
    x, wide = LEFT + room.start * step, (room.stop - room.start) * step
    height = room.size * scale
    y = below - room.offset * scale - height
    until = math.ceil(room.stop) - 1
    said = f"{picture.said(room.value)}\nat byte {room.offset}"
    part = add(group, "g", class_=f"v-{value.kind.value}", data_v=room.value)
    add(part, "title", f"{said}, launches {int(room.start)} to {until}")
    which = "room" if height >= 4 else f"room thin {('even', 'odd')[room.value % 2]}"
    add(part, "rect", class_=which, x=x, y=y, width=wide, height=height)
    if height >= 12:
        texts = (f"{value.name} {value.label}", value.name)
        text = next((t for t in texts if LETTER * len(t) + 6 <= wide), "")
        if text:
            add(part, "text", text, class_="small", x=x + 4, y=y + height / 2 + 4)


def _launches(strip: Element, picture: Picture, step: float, y: float) -> None:
    """Draws the axis: the launches, coloured by how they are computed, and their numbers."""
    kinds: dict[int, str] = {}
    for kernel in picture.kernels:
        kinds.setdefault(kernel.launch, kernel.kind)
    count = len(picture.launches)
    every = next((n for n in (1, 2, 5, 10, 20, 50, 100, 1000) if n * step >= 22), count)
    for i in range(count):
        x = LEFT + i * step
        add(
            strip, "rect", class_=f"mark k-{slug(kinds[i])}",
            x=x + 0.5, y=y - 4, width=max(1.0, step - 1), height=STRIP,
        )  # fmt: skip
        if i % every == 0:
            add(strip, "text", str(i), class_="small middle dim", x=x + step / 2, y=y + STRIP + 8)
    add(strip, "text", "launch", class_="right dim", x=LEFT - 10, y=y + STRIP + 4)

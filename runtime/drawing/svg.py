"""Draws a program: launches from above, kernels with their nodes, lines of values beside them."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from . import memory, style
from .cards import CHIP, HEAD, Box, Card
from .layout import MARGIN, NARROWEST, Chip, Lane, Layout, by_launch, layout
from .markup import NAMESPACE, add, make, points, serialised
from .picture import Kernel, Picture, amount

CORNER = 7.0
STYLES = {
    "op": "node",
    "view": "node without memory and work of its own",
    "parts": "node whose parts are added",
}


def svg(picture: Picture) -> str:
    """Returns the picture of a program as a file: memory over time, and below it the kernels."""
    places = layout(picture)
    over_time = memory.drawn(picture)
    width = max(places.width, over_time.width)
    root = _root(width, 0.0)
    add(root, "style", style.PICTURE)
    paper = add(root, "rect", class_="paper", width=width, height=0.0)
    y = _heading(root, picture)
    for part, height in (
        (over_time.element, over_time.height),
        (kernels(picture, places), places.height),
    ):
        part.set("transform", f"translate(0 {y:.0f})")
        root.append(part)
        y += height
    for element in (root, paper):
        element.set("height", f"{y:.0f}")
    root.set("viewBox", f"0 0 {width:.0f} {y:.0f}")
    return serialised(root)


def alone(part: Element, width: float, height: float) -> Element:
    """Returns a part as a picture of its own, for a page that has the style already."""
    root = _root(width, height)
    root.append(part)
    return root


def _root(width: float, height: float) -> Element:
    """Returns an empty picture."""
    size = {"width": f"{width:.0f}", "height": f"{height:.0f}"}
    return make(
        "svg", xmlns=NAMESPACE, class_="nt", viewBox=f"0 0 {width:.0f} {height:.0f}", **size
    )


def _heading(root: Element, picture: Picture) -> float:
    """Draws name, numbers and legend, and returns where they end."""
    add(root, "title", f"{picture.name}: {picture.how}")
    add(root, "text", picture.name, class_="title", x=MARGIN, y=28.0)
    add(root, "text", picture.how, class_="facts", x=MARGIN + 11.5 * len(picture.name) + 16, y=28.0)
    facts = " · ".join(f"{name} {number}" for name, number in picture.facts)
    add(root, "text", facts, class_="facts", x=MARGIN, y=48.0)
    group, height = legend(picture)
    group.set("transform", "translate(0 58)")
    root.append(group)
    return 66.0 + height


def legend(picture: Picture) -> tuple[Element, float]:
    """Returns what the colours mean, of those that the picture has, and the height of that."""
    group, x, y = make("g", class_="legend"), MARGIN, 0.0
    for sample, text in _colours(picture):
        width = float(sample.get("width", 0)) + 6.4 * len(text) + 18
        if x + width > NARROWEST:
            x, y = MARGIN, y + 20
        part = add(group, "g", transform=f"translate({x:.1f} {y:.1f})")
        part.append(sample)
        add(part, "text", text, class_="facts", x=float(sample.get("width", 0)) + 4, y=13.0)
        x += width
    return group, y + 20


def _colours(picture: Picture) -> Iterator[tuple[Element, str]]:
    """Yields samples of what a picture has, each with what it means."""
    kinds = dict.fromkeys(kernel.kind for kernel in picture.kernels)
    values = dict.fromkeys(value.kind for value in picture.values)
    for kind in (k for k in style.KERNELS if k in kinds):
        yield _sample(f"mark k-{style.slug(kind)}", 10.0), kind
    for kind, (*_, text) in style.VALUES.items():
        if kind in values:
            yield _sample(f"chip v-{kind.value}", 18.0), text
    styles = {p.style for k in picture.kernels for p in k.pills}
    for name in (name for name in STYLES if name in styles):
        yield _sample(f"pill {name} v-input", 18.0), STYLES[name]
    if any(b >= len(k.reads) + len(k.pills) for k in picture.kernels for _, b in k.edges):
        yield _sample("pill stored v-input", 18.0), "written"


def _sample(which: str, width: float) -> Element:
    """Returns a sample of a colour."""
    return make("rect", class_=which, y=3.0, width=width, height=12.0, rx=width / 4)


def kernels(picture: Picture, places: Layout, link: str = "") -> Element:
    """Returns the kernels of a program, with what comes from outside above them.

    Args:
        picture: the program.
        places: where everything stands.
        link: the beginning of the names of the kernels' anchors; "" where there are none.
    """
    group = make("g", class_="kernels")
    add(group, "text", "comes from outside", class_="facts", x=MARGIN, y=16.0)
    for chip in places.given:
        _given(group, chip, picture)
    for i, (top, height) in enumerate(places.launches):
        add(
            group, "rect", class_="band", x=4.0, y=top - 5, width=places.width - 8,
            height=height + 10, rx=CORNER,
        )  # fmt: skip
        add(group, "text", str(i), class_="number", x=34.0, y=top + 17)
    numbers = {k: (i, q) for i, found in by_launch(picture).items() for q, k in enumerate(found)}
    for k, (card, x, y) in enumerate(places.cards):
        i, q = numbers[k]
        where = f"{link}{i}-{q}" if link else ""
        group.append(_card(card, x, y, picture, where))
    for lane in places.lanes:
        group.append(_lane(lane, picture))
    return group


def _given(group: Element, chip: Chip, picture: Picture) -> None:
    """Draws a value that comes from outside."""
    value = picture.values[chip.value]
    part = add(group, "g", class_=f"v-{value.kind.value}", data_v=chip.value)
    add(part, "title", f"{picture.outside[chip.value]}\n{amount(value.size, 'B')}")
    _chip(part, chip.text, chip.x, chip.y, chip.width)


def _chip(part: Element, text: str, x: float, y: float, width: float, style: str = "chip") -> None:
    """Draws a chip."""
    add(part, "rect", class_=style, x=x, y=y, width=width, height=CHIP, rx=CHIP / 2)
    add(part, "text", text, class_="small", x=x + 5, y=y + 11)


def _lane(lane: Lane, picture: Picture) -> Element:
    """Returns the line of a value: out of the chip, down beside the kernels, into others."""
    kind = picture.values[lane.value].kind
    group = make("g", class_=f"lane v-{kind.value}", data_v=lane.value)
    add(group, "title", picture.said(lane.value))
    out, last = lane.exit, max(y for _, y in lane.entries)
    path = f"M{out.x:.1f} {out.y:.1f}H{out.right:.1f}V{out.below:.1f}H{lane.x:.1f}V{last:.1f}"
    path += "".join(f"M{lane.x:.1f} {at:.1f}H{to:.1f}" for to, at in lane.entries)
    add(group, "path", class_="wide", d=path)
    add(group, "path", d=path)
    for to, at in lane.entries:
        add(group, "path", class_="tip", d=f"M{to:.1f} {at:.1f}l-6 -3.2v6.4z")
        add(group, "circle", cx=lane.x, cy=at, r=2.2)
    return group


def _card(card: Card, x: float, y: float, picture: Picture, where: str) -> Element:
    """Returns a kernel; a link to what a page says of it, where there is one."""
    kernel = card.kernel
    name = f"kernel k-{style.slug(kernel.kind)}"
    part = (
        make("a", href=f"#{where}", id=f"at-{where}", class_=name)
        if where
        else make("g", class_=name)
    )
    part.set("transform", f"translate({x:.1f} {y:.1f})")
    add(part, "rect", class_="card", width=card.width, height=card.height, rx=CORNER)
    add(part, "path", class_="head", d=_head(card.width))
    add(part, "rect", class_="mark", y=CORNER, width=3.5, height=card.height - 2 * CORNER)
    add(part, "text", card.title, class_="name", x=10.0, y=16.0)
    add(part, "text", card.costs, class_="costs", x=card.width - 9, y=16.0)
    for route in card.routes:
        add(part, "path", class_="edge", d=points(list(route)))
    stored = {
        a - len(kernel.reads) for a, b in kernel.edges if b >= len(kernel.reads) + len(kernel.pills)
    }
    for box in card.boxes:
        _box(part, box, kernel, picture, stored)
    return part


def _head(width: float) -> str:
    """Returns the outline of a card's head, whose upper corners are round."""
    right = f"H{width - CORNER:.1f}q{CORNER:g} 0 {CORNER:g} {CORNER:g}V{HEAD:g}z"
    return f"M0 {HEAD:g}V{CORNER:g}q0 -{CORNER:g} {CORNER:g} -{CORNER:g}{right}"


def _box(part: Element, box: Box, kernel: Kernel, picture: Picture, stored: set[int]) -> None:
    """Draws a node or a chip."""
    if box.kind == "node":
        pill = kernel.pills[box.index]
        which = f"pill {pill.style}{' stored' if box.index in stored else ''}"
        inside = add(part, "g", data_n=pill.number)
        add(inside, "title", pill.line)
        body = add(inside, "rect", class_=which, x=box.x, y=box.y, rx=5.0)
        body.set("width", f"{box.width:.1f}")
        body.set("height", f"{box.height:.0f}")
        add(inside, "text", box.text, x=box.x + 6, y=box.y + 14)
    elif box.kind == "again":
        add(part, "text", box.text, class_="small again", x=box.x + 5, y=box.y + 11)
    else:
        v = (kernel.reads if box.kind == "read" else kernel.writes)[box.index]
        value = picture.values[v]
        inside = add(part, "g", class_=f"v-{value.kind.value}", data_v=v)
        add(inside, "title", f"{box.kind}s {picture.said(v)}")
        _chip(inside, box.text, box.x, box.y, box.width)

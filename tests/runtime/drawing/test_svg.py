"""The drawing of a program: valid, complete, the same every time."""

from collections import Counter
from typing import Any
from xml.etree import ElementTree

import pytest

import newtriton as nt
from newtriton.runtime.drawing import memory, style
from newtriton.runtime.drawing.markup import NAMESPACE, fit
from newtriton.runtime.drawing.picture import Picture
from newtriton.runtime.drawing.programs import pictures
from newtriton.runtime.drawing.svg import svg

from .drawn import CASES, model, nodes, picture


def drawn(shown: Picture) -> ElementTree.Element:
    return ElementTree.fromstring(svg(shown))


def classes(root: ElementTree.Element) -> Counter[str]:
    """How often each class is used."""
    return Counter(name for e in root.iter() for name in e.get("class", "").split())


@pytest.mark.parametrize(("net", "program"), CASES)
def test_a_picture_holds_every_kernel_and_every_node_once(net: str, program: str) -> None:
    shown = picture(net, program)
    root = drawn(shown)
    assert root.tag == f"{{{NAMESPACE}}}svg"
    assert classes(root)["kernel"] == len(shown.kernels)
    numbers = [e.get("data-n") for e in root.iter() if "data-n" in e.attrib]
    added = sum(p.style == "parts" for k in shown.kernels for p in k.pills)
    assert len(numbers) == len(nodes(shown.kernels)) + added
    assert {int(n or -1) for n in numbers} == set(nodes(shown.kernels))
    assert classes(root)["room"] == sum(len(band.rooms) for band in shown.bands)
    assert classes(root)["lane"] > 0


def test_equal_input_gives_equal_bytes() -> None:
    net = nt.Sequential(nt.Conv2d(3, 2), nt.SiLU(), nt.Flatten(), nt.Linear(2))
    found = set[str]()
    for _ in range(2):
        made = nt.compile(net, (1, 5, 5), nt.CrossEntropyLoss(), backend="aten", device="cpu")
        found.add(svg(next(pictures(made, [made.programs[True].linearize], 3))))
    assert len(found) == 1


class Named:
    """A layer with an input and a part of one name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build(self, x: Any, scope: Any) -> Any:
        return scope.build(self.name, nt.Linear(3), x[self.name])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ['<&">', "</text><script>", "a\x01\udcff"])
def test_names_never_become_markup(name: str, fused: bool) -> None:
    net = nt.Sequential(Named(name), nt.Tanh(), nt.Linear(2))
    made = nt.compile(net, {name: (3,)}, nt.MSELoss(), backend="aten", device="cpu")
    root = drawn(next(pictures(made, [made.programs[True].linearize], 4, fused)))
    assert any(fit(name) in (e.text or "") for e in root.iter())
    assert not list(root.iter(f"{{{NAMESPACE}}}script"))


def test_every_colour_that_is_used_is_known() -> None:
    for net, program in CASES[::3]:
        for fused in (True, False):
            for name in classes(drawn(picture(net, program, fused))):
                if name.startswith(("k-", "v-")):
                    assert f".{name}{{" in style.PICTURE
                    assert style.PICTURE.count(f"--{name}:") == 2  # light and dark


def test_memory_of_nothing_is_drawn() -> None:
    empty = Picture("nothing", "", [], [], [], [], [], [])
    assert memory.drawn(empty).height > 0
    assert model("plain").programs[True].linearize.name == picture("plain", "linearize").name

"""XML as it is written here: attributes from keywords, numbers short, text always escaped.

Names given by users are text wherever they stand. What XML cannot hold, control characters and
halves of pairs, is replaced.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

NAMESPACE = "http://www.w3.org/2000/svg"
_UNFIT = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def fit(text: str) -> str:
    r"""Returns a text with what XML cannot hold replaced.

    Examples:
        >>> fit("a\x00b")
        'a\ufffdb'
    """
    return _UNFIT.sub("\ufffd", text)


def add(parent: Element, tag: str, text: str = "", **attributes: object) -> Element:
    """Adds an element and returns it.

    Args:
        parent: what it is added to.
        tag: its name.
        text: what stands in it.
        attributes: by name, with "_" for "-" and behind names that Python keeps for itself.
    """
    found = make(tag, text, **attributes)
    parent.append(found)
    return found


def make(tag: str, text: str = "", **attributes: object) -> Element:
    """Returns an element; see `add`."""
    named = {k.rstrip("_").replace("_", "-"): fit(_written(v)) for k, v in attributes.items()}
    found = Element(tag, {k: v for k, v in named.items() if v != ""})
    found.text = fit(text) or None
    return found


def _written(value: object) -> str:
    """Returns a number without digits that nobody sees, anything else as text."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def points(route: list[tuple[float, float]]) -> str:
    """Returns a path through points: level at each of them, curved between."""
    (x, y), *others = route
    found = [f"M{_written(x)} {_written(y)}"]
    for a, b in others:
        if b == y:
            found.append(f"H{_written(a)}")
        else:
            half = _written((x + a) / 2)
            found.append(f"C{half} {_written(y)} {half} {_written(b)} {_written(a)} {_written(b)}")
        x, y = a, b
    return "".join(found)


def serialised(root: Element) -> str:
    """Returns an element as XML, a line each."""
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="unicode") + "\n"

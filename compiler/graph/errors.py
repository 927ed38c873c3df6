"""What newtriton raises when it is given something that it cannot use, and how that is quoted."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

QUOTED = 160  # characters of a value in an error
SMALL = 4  # numbers of a tensor that are quoted
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class NewtritonError(ValueError):
    """Bad input: the message names the value received and the way out.

    It is a ValueError. Everything is checked before any parameter changes.

    Examples:
        >>> import newtriton as nt
        >>> try:
        ...     nt.GELU(approximate="fast")
        ... except nt.NewtritonError as error:
        ...     print(error)
        approximate is 'fast': one of 'none', 'tanh'
    """


class ShapeError(NewtritonError):
    """A layer cannot take the shape that reaches it, or data do not fit the network.

    Attributes:
        placed: whether the message says at which layer it happened.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.Sequential(nt.Conv2d(4, 3), nt.Linear(10))
        >>> try:
        ...     nt.compile(net, input_shape=(1, 8, 8), loss=nt.CrossEntropyLoss())
        ... except nt.ShapeError as error:
        ...     print(error)
        Linear(10) at layer 1 got a 4×6×6 image: add Flatten() before it
    """

    placed = False


class MissingRule(NewtritonError):
    """A transformation meets an op for which it has no rule.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> net = nt.Sequential(nt.Linear(4), nt.Residual(nt.Linear(4)), nt.Linear(3))
        >>> model = nt.compile(net, input_shape=(4,), loss=nt.CrossEntropyLoss())
        >>> lin = model.linearize(torch.zeros(2, 4), torch.tensor([0, 1]))
        >>> try:
        ...     lin.kronecker_factors("kfra")
        ... except nt.MissingRule as error:
        ...     print("kfra goes along chains of layers" in str(error))
        True
    """


class _Quotation(reprlib.Repr):
    """Text of values that is short, on one line, and comes whatever the value is."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple, self.maxset = 3, 8, 8, 8, 8
        self.maxstring = self.maxother = QUOTED

    def repr_instance(self, x: Any, level: int) -> str:
        """Returns the text of an object, an array's shape, or the object's class."""
        try:
            shape = getattr(x, "shape", None)
            if isinstance(shape, tuple) and not isinstance(x, type) and not _is_small(x):
                return f"<{type(x).__name__} of shape {tuple(shape)}>"
            text = ADDRESS.sub("", " ".join(repr(x).split()))
        except Exception:
            return f"<{type(x).__name__}>"
        return text if len(text) <= QUOTED else f"{text[:QUOTED]}…"


def _is_small(x: Any) -> bool:
    """Whether an array has few numbers, all of them here."""
    on_host = getattr(getattr(x, "device", None), "type", "cpu") in ("cpu", "c")
    return on_host and int(x.size if isinstance(x.size, int) else x.numel()) <= SMALL


_QUOTATION = _Quotation()


def quoted(value: object) -> str:
    """Returns a value as errors quote it: what `repr` says, on one line and not too long.

    Examples:
        >>> quoted("fast"), quoted([1] * 100)
        ("'fast'", '[1, 1, 1, 1, 1, 1, 1, 1, ...]')
        >>> quoted(object())
        '<object object>'
    """
    try:
        text = _QUOTATION.repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
    return text if len(text) <= 2 * QUOTED else f"{text[: 2 * QUOTED]}…"


def meant(value: object, known: Iterable[str]) -> str:
    """Returns the end of an error's sentence: the known name that is nearest, if one is near.

    Examples:
        >>> meant("adm", ["sgd", "adam"]), meant("xyz", ["sgd", "adam"])
        ("; did you mean 'adam'?", '')
    """
    names = {name.lower(): name for name in known}
    near = get_close_matches(value.lower(), names, 1) if isinstance(value, str) else []
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def one_line(text: str, most: int = 1500) -> str:
    """Returns text as one line that can be printed anywhere; what cannot be is escaped.

    Examples:
        >>> one_line("  two   words ")
        'two words'
    """
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return line if len(line) <= most else f"{line[:most]}…"

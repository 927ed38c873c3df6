"""What a layer is given: sizes by position, of which one can be inferred, and options by name.

PyTorch's layers take first how much goes in. Here this follows from what reaches the layer: it may
be left out, and is compared where it is given. So `Linear(8)` and PyTorch's `Linear(20, 8)` both
mean what they say. Everything else has a name; NumPy's integers are integers, booleans are none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..graph import ops
from ..graph.calls import names_of, unknown
from ..graph.errors import NewtritonError, ShapeError, quoted
from ..graph.ir import Node
from ..graph.options import check_count
from ..language.initial import WEIGHTS

LARGEST = (1 << 31) - 1  # elements along an axis
Size = int | Sequence[int]
Check = Callable[[str, Any], Any]


def arranged(
    owner: object,
    names: Mapping[str, Check],
    inferred: str,
    given: Sequence[Any],
    named: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the sizes of a layer by name, None for the one that is to be inferred.

    Args:
        owner: the layer.
        names: the sizes in PyTorch's order, each with what checks it.
        inferred: the one that may be left out.
        given: the positional arguments.
        named: arguments by name that are no options.

    Raises:
        NewtritonError: there are too few or too many, or one is no size.
    """
    layer = type(owner).__name__
    for name in named.keys() - names:
        raise unknown(layer, name, [*names, *names_of(type(owner))])
    free = [name for name in names if name not in named]
    if len(given) == len(free) - 1 and inferred in free:
        free.remove(inferred)
    if len(given) != len(free):
        raise NewtritonError(
            f"{_call(layer, given, named)} has {len(given)} positional arguments: give "
            f"{_forms(layer, names, inferred)}, and options by name"
        )
    found = {**named, **dict(zip(free, given, strict=True))}
    return {
        name: None if found.get(name) is None and name == inferred else check(name, found.get(name))
        for name, check in names.items()
    }


def stated(found: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns the sizes that were given, as they are printed."""
    return tuple(value for value in found.values() if value is not None)


def by_name(layer: str, given: Sequence[Any], example: str) -> None:
    """Raises an error where options are given by position."""
    if given:
        values = ", ".join(map(quoted, given))
        raise NewtritonError(
            f"{layer}(…, {values}) gives options by position: give them by name, as {example}"
        )


def _list(names: Mapping[str, Check]) -> str:
    return ", ".join(names)


def _call(layer: str, given: Sequence[Any], named: Mapping[str, Any]) -> str:
    """Returns the text of a call."""
    arguments = [*map(quoted, given), *(f"{name}={quoted(value)}" for name, value in named.items())]
    return f"{layer}({', '.join(arguments)})"


def _forms(layer: str, names: Mapping[str, Check], inferred: str) -> str:
    """Returns the calls that there are."""
    short = ", ".join(name for name in names if name != inferred)
    return f"{layer}({short}) or {layer}({_list(names)})"


def check_size(what: str, value: object, least: int = 1) -> int:
    """Returns a size of an axis, an integer from `least` to 2³¹ − 1.

    Raises:
        NewtritonError: the value is no such integer.
    """
    return check_count(what, value, least, LARGEST)


def axes(count: int, least: int = 1) -> Check:
    """Returns the check of a size along each of `count` axes: an integer, or one for each axis."""

    def check(what: str, value: Any) -> Any:
        several = isinstance(value, (tuple, list))
        if several and len(value) != count:
            raise NewtritonError(_wrong(what, value, least, count))
        try:
            numbers = [check_size(what, v, least) for v in (value if several else [value])]
        except NewtritonError:
            raise NewtritonError(_wrong(what, value, least, count)) from None
        return tuple(numbers) if several else numbers[0]

    return check


def _wrong(what: str, value: object, least: int, count: int) -> str:
    several = {1: "", 2: " or a pair of them"}.get(count, f" or {count} of them")
    return f"{what} is {quoted(value)}: give an integer ≥ {least}{several}, below 2³¹"


def each(value: Size, count: int) -> tuple[int, ...]:
    """Returns the size along each axis: one integer stands for all."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * count


def check_init(value: str) -> None:
    """Raises an error where there is no such rule for weights."""
    if not isinstance(value, str) or value not in WEIGHTS:
        raise NewtritonError(f"init is {quoted(value)}: one of {', '.join(WEIGHTS)}")


def check_inferred(what: str, given: object, found: object, call: str) -> None:
    """Raises an error where what reaches the layer is not what the layer was told.

    Args:
        what: the size's name.
        given: what the layer was told; None compares nothing.
        found: what reaches it.
        call: the layer's call without that size.
    """
    if given is not None and given != found:
        raise ShapeError(
            f"{what} is {given}, and {found} arrive: give {found}, or leave it out as in {call}"
        )


def check_divides(what: str, number: int, groups: int) -> None:
    """Raises an error where channels do not divide into groups."""
    if number % groups:
        raise ShapeError(f"{number} {what} do not divide into {groups} groups")


# --- values in the graph and in PyTorch's order ---------------------------------------------------


def check_numbers(x: Node) -> None:
    """Raises an error where integers arrive, whose numbers mean nothing."""
    if x.type.kind == "int":
        raise ShapeError("it needs numbers, and integers arrive: put Embedding() before it")


def image(x: Node) -> Node:
    """Returns an image, N×H×W×C.

    Raises:
        ShapeError: it is none.
    """
    check_numbers(x)
    if ops.rank(x) != 4:
        raise ShapeError("it needs a C×H×W image: move it before Flatten()")
    return x


def spatial(x: Node, count: int) -> Node:
    """Returns a value with `count` spatial axes with its channels last.

    Raises:
        ShapeError: it has other axes.
    """
    if count == 2:
        return image(x)
    check_numbers(x)
    if ops.rank(x) != 3:
        raise ShapeError("it needs a C×L sequence")
    return ops.transpose(x, (0, 2, 1))


def restored(x: Node, count: int) -> Node:
    """Returns a value with its channels last as the layers take it."""
    return x if count == 2 else ops.transpose(x, (0, 2, 1))


def torch_order(x: Node) -> Node:
    """Returns a value with its axes in PyTorch's order: images become N×C×H×W."""
    return ops.transpose(x, (0, 3, 1, 2)) if ops.rank(x) == 4 else x


def graph_order(x: Node) -> Node:
    """Returns a value in PyTorch's order as the layers take it: images become N×H×W×C."""
    return ops.transpose(x, (0, 2, 3, 1)) if ops.rank(x) == 4 else x


def torch_axis(what: str, x: Node, axis: int) -> int:
    """Returns an axis in PyTorch's order, counted from the front.

    Raises:
        ShapeError: there is no such axis, or it is that of the samples.
    """
    rank = ops.rank(x)
    if not -rank <= axis < rank or axis % rank == 0:
        raise ShapeError(f"{what} is {axis}: the samples stand on axis 0, and {rank - 1} follow")
    return axis % rank


def axis_of(what: str, x: Node, axis: int) -> int:
    """Returns where an axis in PyTorch's order lies in the graph; see `torch_axis`."""
    place = torch_axis(what, x, axis)
    return {1: 3, 2: 1, 3: 2}[place] if ops.rank(x) == 4 else place

"""What an option must be; every error names the value and the way out.

NumPy's scalars are numbers too: they are taken, and become Python's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from numbers import Integral, Real
from typing import Any, TypeVar

from .errors import NewtritonError, meant, quoted

LONGEST = (1 << 63) - 1  # the largest integer that PyTorch takes

T = TypeVar("T")


def check_option(what: str, value: object, choices: tuple[str, ...], hint: str = "") -> None:
    """Raises an error that lists the choices, and a hint or the nearest, where it is none of them.

    Args:
        what: the option's name.
        value: its value.
        choices: the values that there are.
        hint: what is said instead of the nearest choice.
    """
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(map(repr, choices))
        more = f"; {hint}" if hint else meant(value, choices)
        raise NewtritonError(f"{what} is {quoted(value)}: one of {listed}{more}")


def check_number(
    what: str,
    value: object,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Returns a finite number with least ≤ value ≤ most and above < value < below, as a float.

    Raises:
        NewtritonError: the value is no such number.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        number = _float(value)
        if math.isfinite(number) and least <= number <= most and above < number < below:
            return number
    bounds = ((least, "≥"), (above, ">"), (most, "≤"), (below, "<"))
    limits = [f"{sign} {bound:g}" for bound, sign in bounds if math.isfinite(bound)]
    raise NewtritonError(
        f"{what} is {quoted(value)}: give a number {' and '.join(limits) or 'that is finite'}"
    )


def _float(value: Real) -> float:
    """Returns a number as a float, infinite where it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def check_count(what: str, value: object, least: int = 1, most: int = LONGEST) -> int:
    """Returns an integer from `least` to `most`.

    Raises:
        NewtritonError: the value is no such integer.
    """
    wanted = "a positive integer" if least == 1 else f"an integer ≥ {least}"
    if isinstance(value, Integral) and not isinstance(value, bool):
        if least <= int(value) <= most:
            return int(value)
        if int(value) > most:
            wanted = f"one up to {most}"
    raise NewtritonError(f"{what} is {quoted(value)}: give {wanted}")


def check_integer(what: str, value: object, most: int = LONGEST) -> int:
    """Returns an integer of either sign, from −most to most.

    Raises:
        NewtritonError: the value is none.
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and abs(int(value)) <= most:
        return int(value)
    raise NewtritonError(f"{what} is {quoted(value)}: give an integer up to {most}")


def check_counts(what: str, values: object, example: str) -> tuple[int, ...]:
    """Returns positive integers, at least one, in a tuple or a list.

    Raises:
        NewtritonError: the values are something else.
    """
    if not isinstance(values, (tuple, list)) or not values:
        raise NewtritonError(
            f"{what} is {quoted(values)}: give a tuple of positive integers, e.g. {example}"
        )
    return tuple(check_count(f"{what}[{i}]", value) for i, value in enumerate(values))


def check_kind(what: str, value: object, kind: type[T] | tuple[type[T], ...], example: str) -> T:
    """Returns a value that is of a class.

    Raises:
        NewtritonError: it is of another one.
    """
    if isinstance(value, kind):
        return value
    raise NewtritonError(f"{what} is {quoted(value)}: give {example}")


def check_members(what: str, value: T, names: Iterable[str], example: str) -> T:
    """Returns an object, of whatever class, that has attributes of some names.

    Raises:
        NewtritonError: it lacks one.
    """
    if not isinstance(value, type) and all(hasattr(value, name) for name in names):
        return value
    raise NewtritonError(f"{what} is {quoted(value)}: give {example}")


def check_callable(what: str, value: T) -> T:
    """Returns a value that can be called.

    Raises:
        NewtritonError: it cannot.
    """
    if callable(value):
        return value
    raise NewtritonError(f"{what} is {quoted(value)}: give a function")


def check_names(what: str, values: object) -> tuple[str, ...]:
    """Returns texts that are given in a tuple, a list or a set.

    Raises:
        NewtritonError: the values are something else, a text alone among them.
    """
    if isinstance(values, (tuple, list, Set)):
        names = tuple(value for value in values if isinstance(value, str))
        if len(names) == len(values):
            return names
    raise NewtritonError(f"{what} is {quoted(values)}: give a list of names")


def check_list(what: str, values: object, example: str) -> list[Any]:
    """Returns what can be passed through as a list.

    Raises:
        NewtritonError: the values are something else, or cannot be read.
    """
    if not isinstance(values, Iterable):
        raise NewtritonError(f"{what} is {quoted(values)}: give {example}")
    try:
        return list(values)
    except Exception as error:  # of a user's own class
        raise NewtritonError(
            f"{what} is {quoted(values)}, which cannot be read: {error}"
        ) from error


def check_mapping(what: str, value: object) -> dict[str, Any]:
    """Returns what a dictionary has by name.

    Raises:
        NewtritonError: the value is none, a key is no text, or it cannot be read.
    """
    if not isinstance(value, Mapping):
        raise NewtritonError(f"{what} are {quoted(value)}: give a dictionary by name")
    try:
        found = dict(value)
    except Exception as error:  # of a user's own class
        raise NewtritonError(
            f"{what} are {quoted(value)}, which cannot be read: {error}"
        ) from error
    for key in found:
        if not isinstance(key, str):
            raise NewtritonError(f"{what} have a key {quoted(key)}: give strings")
    return found


def check_seed(value: object) -> int:
    """Returns a seed, an integer from 0 to 2⁶³ − 1.

    Raises:
        NewtritonError: the value is no such integer.
    """
    seed = check_count("seed", value, 0)
    if seed >= 1 << 63:
        raise NewtritonError(f"seed is {quoted(value)}: give an integer below 2⁶³")
    return seed


def check_flag(what: str, value: object) -> bool:
    """Returns a value that is True or False.

    Raises:
        NewtritonError: the value is neither.
    """
    if isinstance(value, bool):
        return value
    raise NewtritonError(f"{what} is {quoted(value)}: give True or False")

"""What an option must be; every error names the value and the way out.

NumPy's scalars are numbers too: they are taken, and become Python's.
"""

from __future__ import annotations

import math
from numbers import Integral, Real

from .errors import NewtritonError, quoted


def check_option(what: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises an error that lists the choices where the value is none of them."""
    if not isinstance(value, str) or value not in choices:
        raise NewtritonError(f"{what} is {quoted(value)}: one of {', '.join(map(repr, choices))}")


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
        number = float(value)
        if math.isfinite(number) and least <= number <= most and above < number < below:
            return number
    bounds = ((least, "≥"), (above, ">"), (most, "≤"), (below, "<"))
    limits = [f"{sign} {bound:g}" for bound, sign in bounds if math.isfinite(bound)]
    raise NewtritonError(
        f"{what} is {quoted(value)}: give a number {' and '.join(limits) or 'that is finite'}"
    )


def check_count(what: str, value: object, least: int = 1) -> int:
    """Returns an integer of at least `least`.

    Raises:
        NewtritonError: the value is no such integer.
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least:
        return int(value)
    wanted = "a positive integer" if least == 1 else f"an integer ≥ {least}"
    raise NewtritonError(f"{what} is {quoted(value)}: give {wanted}")


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

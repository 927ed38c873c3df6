"""Symbolic sizes of an exported graph as the compiler's dimensions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ..graph.errors import NewtritonError
from ..graph.ir import Dim, N, Shape


def dimension(size: int | torch.SymInt) -> Dim:
    """Returns a number, or N or N·k for a multiple of the batch size.

    Raises:
        NewtritonError: the size is another function of the batch size.
    """
    if isinstance(size, int):
        return size
    expression = size.node.expr
    if expression.is_Integer:
        return int(expression)
    count, rest = expression.as_coeff_Mul()
    if not is_of_batch(size) or not rest.is_Symbol or not count.is_Integer:
        raise NewtritonError(
            f"a tensor has {expression} elements along an axis: sizes are numbers, or multiples of "
            "the batch size"
        )
    return N if count == 1 else N * int(count)


def dimensions(shape: Iterable[int | torch.SymInt]) -> Shape:
    """Returns a shape of numbers and multiples of N."""
    return tuple(map(dimension, shape))


def is_of_batch(value: Any) -> bool:
    """Whether a symbolic size, number or truth value depends on the batch size alone.

    Others depend on what is in a tensor; PyTorch's names of their symbols do not begin with "s".
    """
    return all(str(symbol).startswith("s") for symbol in value.node.expr.free_symbols)


def number(value: Any, batch: int) -> Any:
    """Returns what a symbolic size, number or truth value is at a batch size."""
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        expression = value.node.expr
        found = expression.subs(dict.fromkeys(expression.free_symbols, batch))
        kinds = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}
        return kinds[type(value)](found)
    return value

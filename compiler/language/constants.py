"""Vectors of numbers that a loss is made with, as leaves of the graph.

A loss is traced without a scope. So the leaf's name says which numbers it stands for: equal vectors
are one leaf, in whatever loss they occur, and whoever runs a graph finds their values by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from numbers import Real

import torch
from torch import Tensor

from ..graph import ops
from ..graph.errors import NewtritonError, quoted
from ..graph.ir import Node, Op
from ..graph.options import check_number

Numbers = tuple[float, ...]
PREFIX = "constant:"
_values: dict[str, Numbers] = {}


def check_numbers(what: str, values: object) -> Numbers:
    """Returns finite numbers ≥ 0, one or a vector (a tensor or a sequence), as a tuple of floats.

    Raises:
        NewtritonError: it is no such vector.
    """
    given = values.tolist() if hasattr(values, "tolist") else values  # type: ignore[attr-defined]
    given = [given] if isinstance(given, Real) else given
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise NewtritonError(f"{what} is {quoted(values)}: give a vector of numbers")
    return tuple(check_number(f"{what}[{i}]", value, 0.0) for i, value in enumerate(given))


def constant(values: Numbers) -> Node:
    """Returns the leaf of a vector."""
    name = hashlib.sha256(repr(values).encode()).hexdigest()[:16]
    _values[name] = values
    return ops.input_(PREFIX + name, (len(values),))


def constants(nodes: Iterable[Node]) -> dict[str, Tensor]:
    """Returns the values of the leaves of vectors among some nodes, by name, in float64."""
    leaves = (n["name"] for n in nodes if n.op is Op.INPUT)
    names = (leaf.removeprefix(PREFIX) for leaf in leaves if leaf.startswith(PREFIX))
    return {n: torch.tensor(_values[n], dtype=torch.float64) for n in names if n in _values}

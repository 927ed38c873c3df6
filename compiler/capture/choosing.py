"""Which tensor of what a module returns counts as its output."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..graph.errors import NewtritonError, quoted

LOGITS = "logits"


def chosen_output(given: Any, output: str | int | None) -> Tensor:
    """Returns the tensor that counts.

    Args:
        given: what the module returns: a tensor, or a tuple, a dict or a dataclass of them.
        output: the index or the field; a lone tensor and the field `logits` need no word.

    Raises:
        NewtritonError: it is not there, or there are several and none is named.
    """
    if isinstance(given, Tensor) and output is None:
        return given
    fields = _fields(given)
    if output is not None:
        found = fields.get(output)
        if isinstance(found, Tensor):
            return found
        raise NewtritonError(f"output is {quoted(output)}: {_choices(given, fields)}")
    tensors = {name: x for name, x in fields.items() if isinstance(x, Tensor)}
    if LOGITS in tensors:
        return tensors[LOGITS]
    if len(tensors) == 1:
        return next(iter(tensors.values()))
    raise NewtritonError(f"the module returns {_kind(given)}: {_choices(given, fields)}")


def _fields(given: Any) -> dict[str | int, Any]:
    """Returns the parts of a structured output by the names that they go by."""
    if isinstance(given, Mapping):
        return dict(given)
    if dataclasses.is_dataclass(given):
        return {f.name: getattr(given, f.name) for f in dataclasses.fields(given)}
    if isinstance(given, (tuple, list)):
        named = dict(zip(getattr(given, "_fields", ()), given, strict=False))
        return {**dict(enumerate(given)), **named}
    return {}


def _kind(given: Any) -> str:
    """Says what a module returns."""
    return f"{'a' if type(given).__name__[0] not in 'aeiou' else 'an'} {type(given).__name__}"


def _choices(given: Any, fields: Mapping[str | int, Any]) -> str:
    """Says what `output` can be."""
    tensors = [repr(name) for name, x in fields.items() if isinstance(x, Tensor)]
    if isinstance(given, Tensor):
        return "the module returns one tensor, leave it out"
    if not tensors:
        return "there is no tensor in it; return one"
    return f"give output=, one of {', '.join(tensors)}"

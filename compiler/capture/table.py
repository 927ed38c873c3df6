"""One table: the name of an ATen op → what builds it from nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch._ops import OpOverload
from torch.fx import Node as Call

from .images import IMAGES
from .pointwise import POINTWISE
from .products import PRODUCTS
from .reductions import REDUCTIONS
from .rows import ROWS
from .shaping import SHAPING

RULES: dict[str, Callable[..., Any]] = {
    **POINTWISE, **SHAPING, **REDUCTIONS, **PRODUCTS, **IMAGES, **ROWS,
}  # fmt: skip


def name_of(call: Call) -> str:
    """Returns the name of a call's op without its overload: "add" for `aten.add.Tensor`."""
    if isinstance(call.target, OpOverload):
        return call.target._schema.name.removeprefix("aten::")
    return getattr(call.target, "__name__", str(call.target))


def known(call: Call) -> bool:
    """Whether there is a rule for a call, or none is needed."""
    return name_of(call) in RULES or not isinstance(call.target, OpOverload)


def given(call: Call) -> Iterator[Any]:
    """Yields a call's operands and options in the order of the op's schema, defaults among them."""
    for i, argument in enumerate(call.target._schema.arguments):
        if i < len(call.args):
            yield call.args[i]
        else:
            yield call.kwargs.get(argument.name, argument.default_value)

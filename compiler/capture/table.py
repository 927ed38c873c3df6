"""One table: the name of an ATen op → what builds it from nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch._ops import OpOverload

from .calls import Call, name_of
from .dropout import DROPOUT
from .images import IMAGES
from .indexing import INDEXING
from .pointwise import POINTWISE
from .products import PRODUCTS
from .reductions import REDUCTIONS
from .shaping import SHAPING

RULES: dict[str, Callable[..., Any]] = {
    **POINTWISE, **SHAPING, **REDUCTIONS, **PRODUCTS, **IMAGES, **INDEXING, **DROPOUT,
}  # fmt: skip


def known(call: Call) -> bool:
    """Whether there is a rule for a call, or none is needed."""
    return name_of(call) in RULES or not isinstance(call.target, OpOverload)

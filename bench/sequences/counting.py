"""Bytes that PyTorch's operators move and hold, counted on tensors without memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from ...runtime.footprint import UNTOUCHED, Allocations, aten


class Moved(Allocations):
    """Counts what operators read and write, and the most that their results take at a time.

    An operator reads each of its operands once and writes each result once, of a tensor that
    repeats itself what lies in memory. Views move nothing, and rows that are looked up are as many
    as come out. What operators work in besides is not counted.

    Attributes:
        moved: the bytes that operators have read and written.
        held: the most bytes of their results that were alive at a time.

    Examples:
        >>> import torch
        >>> from newtriton.bench.sequences.counting import Moved
        >>> x = torch.ones(100, device="meta")
        >>> with Moved() as found:
        ...     y = (x + 1.0).view(10, 10).t()
        >>> found.moved, found.held
        (800, 400)
    """

    def __init__(self) -> None:
        super().__init__()
        self.moved = self.held = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Makes the call and counts."""
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self.held = max(self.held, self.now)
        given, made = _tensors((args, kwargs)), _tensors(result)
        storages = {x.untyped_storage()._cdata for x in given}
        writes = func._schema.is_mutable
        made = [x for x in made if writes or x.untyped_storage()._cdata not in storages]
        if made and func not in UNTOUCHED:
            read = [x for i, x in enumerate(given) if i not in UNREAD.get(func, ())]
            most = sum(map(_bytes, made)) if func in LOOKING_UP else None
            self.moved += sum(min(_bytes(x), most or _bytes(x)) for x in read)
            self.moved += sum(map(_bytes, made))
        return result


def _tensors(values: Any) -> list[Tensor]:
    """Returns the tensors in nested values, each once."""
    return list({id(x): x for x in tree_leaves(values) if isinstance(x, Tensor)}.values())


def _bytes(x: Tensor) -> int:
    return min(x.nbytes, x.untyped_storage().nbytes())


# Operators that read as many rows, or elements, of their first operand as come out.
LOOKING_UP = {
    aten.embedding.default, aten.gather.default, aten.index_select.default,
    aten.nll_loss_forward.default,
}  # fmt: skip
# The operands that an operator only writes, or of which it takes no more than the shape.
UNREAD = {
    aten.copy_.default: (0,),
    aten.fill_.Scalar: (0,),
    aten.zero_.default: (0,),
    aten.ones_like.default: (0,),
    aten.zeros_like.default: (0,),
    aten.new_zeros.default: (0,),
    aten.nll_loss_backward.default: (1,),
}

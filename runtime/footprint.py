"""How much memory work takes, counted before any is taken: the work runs on tensors without memory.

PyTorch's meta tensors have a shape and no numbers. The very calls that will be made are made on
them, and each storage that comes into being counts until nothing holds it: there is no formula for
any operator or layer. What some of PyTorch's operators work in besides is in `WORKSPACE`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
aten: Any = torch.ops.aten


class Footprint(NamedTuple):
    """The bytes that work takes.

    Attributes:
        peak: the most that it holds at a time.
        kept: what is still held when it is done.
    """

    peak: int
    kept: int


class Allocations(TorchDispatchMode):
    """Counts the bytes of the storages that come into being inside the `with` and are held.

    Args:
        lazily: whether memory counts from when it is first written, not from when it is asked for:
            so it is on a CPU, where a page takes nothing before.

    Attributes:
        now: their bytes.
        peak: the most that these have been, with what operators work in.

    Examples:
        >>> import torch
        >>> from newtriton.runtime.footprint import Allocations
        >>> with Allocations() as found:
        ...     x = torch.ones(100, device="meta")
        ...     x = x + 1.0
        >>> found.footprint
        Footprint(peak=800, kept=400)
    """

    def __init__(self, lazily: bool = False) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.lazily = lazily
        self._bytes = dict[int, int]()  # by identity of a storage, how many of its bytes count

    @property
    def footprint(self) -> Footprint:
        """What has been counted so far."""
        return Footprint(self.peak, self.now)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Makes the call, and counts what its results are in and what it writes to."""
        given = _storages((args, kwargs))
        result = func(*args, **(kwargs or {}))
        if func is aten.convolution.default and _has_channels_last(args[0]):
            result = result.contiguous(memory_format=torch.channels_last)  # as on a device
        for key, storage in _storages(result).items():
            if key not in given:
                self._note(storage, 0 if self.lazily and func in UNTOUCHED else storage.nbytes())
        if func._schema.is_mutable:
            for key, storage in given.items():
                if self._bytes.get(key) == 0:
                    self._count(key, storage.nbytes())
        self.peak = max(self.peak, self.now + WORKSPACE.get(func, _nothing)(*args))
        return result

    def _note(self, storage: torch.UntypedStorage, size: int) -> None:
        """Counts a storage from now on, until nothing holds it."""
        key = id(storage)
        weakref.finalize(storage, self._release, key)
        self._count(key, size)

    def _count(self, key: int, size: int) -> None:
        self._bytes[key] = size
        self.now += size

    def _release(self, key: int) -> None:
        self.now -= self._bytes.pop(key)


def _storages(values: Any) -> dict[int, torch.UntypedStorage]:
    """Returns the storages of all tensors in nested values, by identity."""
    tensors = (x for x in tree_leaves(values) if isinstance(x, Tensor))
    return {id(s): s for s in (x.untyped_storage() for x in tensors)}


def _has_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def _nothing(*args: Any) -> int:
    return 0


def _by_columns(x: Tensor, *others: Any) -> int:
    """Returns the bytes of rows of a product that lie by columns: oneDNN copies them."""
    return 0 if x.is_contiguous() else x.nbytes


def _twice(*args: Any) -> int:
    """Returns twice the bytes of a matrix, in which LAPACK divides and conquers."""
    return 2 * args[0].nbytes


UNTOUCHED = {
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_strided.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
}
# Measured on CPUs, by the most that a process holds; what cuBLAS and cuDNN take is not known here.
WORKSPACE: dict[Any, Callable[..., int]] = {
    aten.mm.default: _by_columns,
    aten.addmm.default: lambda bias, *operands: _by_columns(*operands),
    aten._linalg_eigh.default: _twice,
    aten._linalg_svd.default: _twice,
}

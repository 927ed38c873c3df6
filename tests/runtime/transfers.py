"""Counts what waits for a device, on tensors that lie on the CPU, where nothing waits.

PyTorch's dispatcher shows the operators that read a number (`item`, `float`, `bool`, `if`) or whose
result has a size that depends on values, and those that look at what they have computed, such as
`torch.linalg.cholesky`. What it does not show, since no operator runs for it on the CPU, is
patched, and so is what makes tensors of Python's numbers, which are copied to the device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

READING = {
    *("_local_scalar_dense", "item", "equal", "is_nonzero", "_is_all_true", "_is_any_true"),
    *("nonzero", "nonzero_numpy", "masked_select", "_unique2", "unique_dim", "unique_consecutive"),
    *("bincount", "_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "linalg_eig", "linalg_qr"),
    *("linalg_lstsq", "repeat_interleave", "_assert_async", "_validate_compressed_sparse_indices"),
}
PATCHED = ("cpu", "tolist", "numpy", "__array__")
COPYING = ((torch, "tensor"), (torch, "as_tensor"), (torch, "asarray"), (Tensor, "new_tensor"))


class Transfers:
    """The transfers since the start, or since `clear`.

    Attributes:
        reads: device to host, by what made them.
        copies: host to device.
    """

    def __init__(self) -> None:
        self.reads: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self.paused = False

    def clear(self) -> None:
        """Forgets all."""
        self.reads.clear()
        self.copies.clear()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Counts nothing inside: the interpreter of kernels copies what a GPU would not."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    def noted(self, owner: Any, name: str, counter: Counter[str]) -> Callable[..., Any]:
        """A function that counts itself, and nothing that it calls."""
        original = getattr(owner, name)

        def function(*arguments: Any, **options: Any) -> Any:
            if not self.paused:
                counter[name] += 1
            with self.pause():
                return original(*arguments, **options)

        return function


class _Mode(TorchDispatchMode):
    def __init__(self, transfers: Transfers) -> None:
        super().__init__()
        self.transfers = transfers

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not self.transfers.paused:
            indices = args[1] if name.startswith(("index", "_unsafe_index")) else ()
            indices = indices if isinstance(indices, (list, tuple)) else ()  # index_select has none
            masks = [i for i in indices if isinstance(i, Tensor) and i.dtype is torch.bool]
            if name in READING or masks:
                self.transfers.reads[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted() -> Iterator[Transfers]:
    """Counts transfers inside a `with` statement, but for those of interpreted kernels."""
    transfers = Transfers()
    with ExitStack() as stack:
        for name in PATCHED:
            noted = transfers.noted(Tensor, name, transfers.reads)
            stack.enter_context(patch.object(Tensor, name, noted))
        for owner, name in COPYING:
            noted = transfers.noted(owner, name, transfers.copies)
            stack.enter_context(patch.object(owner, name, noted))
        try:
            from triton.runtime.interpreter import GridExecutor  # noqa: PLC0415
        except ImportError:
            pass
        else:
            launch = GridExecutor.__call__

            def interpreted(*arguments: Any, **options: Any) -> Any:
                with transfers.pause():
                    return launch(*arguments, **options)

            stack.enter_context(patch.object(GridExecutor, "__call__", interpreted))
        stack.enter_context(_Mode(transfers))
        yield transfers

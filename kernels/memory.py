"""New memory on the CPU: large blocks, which lie on huge pages, are used again.

A page that is touched first costs a fault, and PyTorch's large tensors are new to the process:
70,000 faults took a third of a ResNet's gradient and quadratic form.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from sys import getrefcount

import numpy as np
import torch
from torch import Tensor

LARGE = (
    1 << 22
)  # bytes from which on NumPy asks for huge pages; smaller memory of PyTorch's is warm
KEPT = 1 << 30  # bytes of blocks that are kept for later use
ALIGNMENT = 64  # bytes: that of PyTorch's own memory

Block = np.ndarray


class _Blocks(threading.local):
    """The blocks of a thread by size; tensors hold those that they lie in."""

    def __init__(self) -> None:
        self.by_size: defaultdict[int, list[Block]] = defaultdict(list)
        self.total = 0
        self.most = KEPT

    def free(self, size: int) -> Block:
        """Returns a block that no tensor holds."""
        blocks = self.by_size[size]
        for i in range(len(blocks)):
            if _holders(blocks, i) == NOBODY:
                return blocks[i]
        block = np.empty(size + ALIGNMENT, np.uint8)
        most = min(self.most, KEPT)
        if self.total + size > most:
            self.give_back()
        if self.total + size <= most:
            blocks.append(block)
            self.total += size
        return block

    def give_back(self) -> None:
        """Leaves the blocks that no tensor holds to the system."""
        for size, blocks in self.by_size.items():
            held = [blocks[i] for i in range(len(blocks)) if _holders(blocks, i) != NOBODY]
            self.total -= size * (len(blocks) - len(held))
            blocks[:] = held


def _holders(blocks: list[Block], i: int) -> int:
    """Returns how many references there are to a block, the list's and this call's among them."""
    return getrefcount(blocks[i])


NOBODY = _holders([np.empty(0, np.uint8)], 0)
_blocks = _Blocks()


def keep_at_most(size: int) -> None:
    """Keeps no more bytes than so many for later use in this thread; what is held counts.

    Examples:
        >>> from newtriton.kernels.memory import KEPT, keep_at_most
        >>> keep_at_most(KEPT)
    """
    _blocks.most = min(size, _blocks.most)
    if _blocks.total > _blocks.most:
        _blocks.give_back()


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns a new tensor, whose values are undefined.

    Examples:
        >>> import torch
        >>> from newtriton.kernels.memory import empty
        >>> empty((2, 3), torch.float32, torch.device("cpu")).shape
        torch.Size([2, 3])
    """
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE or device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    try:
        buffer = torch.from_numpy(_blocks.free(size))
    except (
        MemoryError
    ):  # as NumPy raises it: what is kept may make room, or PyTorch says what it is
        _blocks.give_back()
        return torch.empty(shape, dtype=dtype, device=device)
    start = -buffer.data_ptr() % ALIGNMENT
    return buffer[start : start + size].view(dtype).view(shape)


def empty_like(x: Tensor) -> Tensor:
    """Returns a new contiguous tensor of the shape, dtype and device of another."""
    return empty(tuple(x.shape), x.dtype, x.device)

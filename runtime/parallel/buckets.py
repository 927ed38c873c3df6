"""Tensors packed into flat memory, so that few calls carry many of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .triangles import numbers, pack, unpack


@dataclass(frozen=True)
class Part:
    """A tensor that travels.

    Attributes:
        tensor: the tensor.
        symmetric: whether it is a symmetric matrix, or a stack of them, and one triangle travels.
        dtype: the dtype in which it travels.
        to: the rank that wants the sum; None for all.
    """

    tensor: Tensor
    symmetric: bool
    dtype: torch.dtype
    to: int | None = None

    @property
    def numbers(self) -> int:
        """Of how many numbers it is made."""
        return numbers(self.tensor, self.symmetric)

    @property
    def lies_ready(self) -> bool:
        """Whether it can travel as it lies."""
        whole = not self.symmetric and self.dtype == self.tensor.dtype
        return whole and self.tensor.is_contiguous()

    def write(self, flat: Tensor) -> None:
        """Writes its numbers to flat memory."""
        if not self.symmetric:
            flat.copy_(self.tensor.reshape(-1))
            return
        pack(self.tensor, flat)

    def read(self, flat: Tensor) -> None:
        """Takes its numbers from flat memory."""
        if not self.symmetric:
            self.tensor.copy_(flat.view(self.tensor.shape))
            return
        unpack(flat.to(self.tensor.dtype), self.tensor)


class Bucket:
    """Parts that travel in one call.

    Args:
        parts: the parts, of one dtype, to one rank or all.

    Attributes:
        to: the rank that wants the sums; None for all.
    """

    def __init__(self, parts: list[Part]) -> None:
        self.parts, self.to = parts, parts[0].to
        self._flat: Tensor | None = None

    def packed(self) -> Tensor:
        """Returns flat memory with the numbers of all parts: a single one's own where it can be."""
        first = self.parts[0]
        if len(self.parts) == 1 and first.lies_ready:
            return first.tensor.view(-1)
        sizes = [part.numbers for part in self.parts]
        self._flat = torch.empty(sum(sizes), dtype=first.dtype, device=first.tensor.device)
        for part, flat in zip(self.parts, self._flat.split(sizes), strict=True):
            part.write(flat)
        return self._flat

    def unpack(self) -> None:
        """Gives the parts their numbers back."""
        if self._flat is None:
            return
        sizes = [part.numbers for part in self.parts]
        for part, flat in zip(self.parts, self._flat.split(sizes), strict=True):
            part.read(flat)
        self._flat = None


def buckets(parts: Iterable[Part], size: int) -> Iterator[Bucket]:
    """Yields buckets of at most so many bytes, each of one kind; a larger part travels alone.

    Args:
        parts: what travels, in the same order on all ranks.
        size: the bytes of a bucket.
    """
    held: dict[tuple[torch.dtype, int | None], list[Part]] = {}
    for part in parts:
        kind = part.dtype, part.to
        together = held.setdefault(kind, [])
        bytes_of = part.dtype.itemsize
        if together and bytes_of * (part.numbers + sum(p.numbers for p in together)) > size:
            yield Bucket(together)
            together = held[kind] = []
        together.append(part)
    yield from (Bucket(together) for together in held.values())

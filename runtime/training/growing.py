"""Batches that grow while training goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ...compiler.graph.options import check_count
from ...compiler.language.trees import Tree
from ..data.samples import Batches, Samples


class GrowingBatches(Batches):
    """Batches of m_k = min(first·e^((k−1)/b), last) samples, where k counts steps over all epochs.

    b is such that `last` is reached at step `steps` (Martens & Grosse 2015, section 13, with 500).
    An epoch ends with what is left of the samples.

    Args:
        x: the inputs (N, *features), or a tuple or a dictionary of them.
        y: the labels, one per sample.
        first: the size of the first batch.
        last: the size of the largest batch; all N unless given.
        steps: the step at which the largest is reached.
        shuffle: whether each epoch has a new order.
        seed: the seed of the orders.
        transform: changes the inputs of each batch, as that of `Batches` does.

    Raises:
        NewtritonError: a size is not positive, or `last` is less than `first`.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> batches = nt.GrowingBatches(torch.zeros(30, 2), torch.zeros(30), first=2, steps=4)
        >>> [len(y) for _, y in batches]
        [2, 5, 12, 11]
    """

    def __init__(
        self,
        x: Tree,
        y: torch.Tensor,
        first: int,
        last: int | None = None,
        *,
        steps: int = 500,
        shuffle: bool = True,
        seed: int = 0,
        transform: Callable[[Any, torch.Generator], Any] | None = None,
    ) -> None:
        super().__init__(
            x, y, check_count("first", first), shuffle=shuffle, seed=seed, transform=transform
        )
        self.first, self.last = first, check_count("last", len(y) if last is None else last, first)
        self.steps = check_count("steps", steps, 2)
        self.step = 0

    def size(self, step: int) -> int:
        """Returns the number of samples of the batch after `step` others."""
        growth = (self.last / self.first) ** (step / (self.steps - 1))
        return min(self.last, math.floor(self.first * growth + 0.5))

    def _ends(self) -> Iterator[int]:
        """Yields where each of the coming epoch's batches ends."""
        step, end = self.step, 0
        while end < len(self.y):
            end += self.size(step)
            step += 1
            yield min(end, len(self.y))

    def __len__(self) -> int:
        return sum(1 for _ in self._ends())

    def __iter__(self) -> Iterator[Samples]:
        order, generator = self._order(self.epoch), self._generator(self.epoch)
        ends = list(self._ends())
        self.epoch += 1
        return self._batches(order, ends, generator)

    def _batches(
        self, order: torch.Tensor | None, ends: list[int], generator: torch.Generator
    ) -> Iterator[Samples]:
        """Yields the batches that end there, and counts them."""
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            self.step, self.batch_size = self.step + 1, end - start
            yield self._take(order, start, generator)

    def state_dict(self) -> dict[str, int]:
        """Returns the numbers of epochs begun and batches given."""
        return {"epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues with what follows the saved state."""
        super().load_state_dict(state)
        self.step = state["step"]

"""Batches that grow while training goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ...compiler.graph.options import check_count, check_mapping
from ...compiler.language.trees import Tree
from ..data.samples import Batches, Place


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
        growth = (self.last / self.first) ** min(1.0, step / (self.steps - 1))
        return min(self.last, math.floor(self.first * growth + 0.5))

    def _ends(self, step: int | None = None) -> list[int]:
        """Returns where each batch ends of an epoch that begins at a step, the coming one's."""
        step, ends = self.step if step is None else step, [0]
        while ends[-1] < len(self.y):
            ends.append(min(ends[-1] + self.size(step), len(self.y)))
            step += 1
        return ends[1:]

    def _ends_of(self, state: Mapping[str, Any]) -> list[int]:
        """Returns the same of the epoch in the middle of which a state was saved."""
        step = check_count("load_state_dict: step", state.get("step"), state["batch"])
        return self._ends(step - state["batch"])

    def __len__(self) -> int:
        return len(self._ends())

    def _gave(self, place: Place) -> None:
        """Counts a batch, and keeps where its pass is."""
        super()._gave(place)
        starts = [0, *place.ends]
        self.step, self.batch_size = self.step + 1, starts[place.given] - starts[place.given - 1]

    def state_dict(self) -> dict[str, Any]:
        """Returns the numbers of epochs begun and batches given, and where an epoch is."""
        return {**super().state_dict(), "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues with what follows the saved state.

        Raises:
            NewtritonError: the state is of other batches; nothing has changed.
        """
        state = check_mapping("state", state)
        step = check_count("load_state_dict: step", state.get("step"), 0)
        super().load_state_dict(state)
        self.step = step

"""A value in float64, and how far float32 arithmetic may be from it, element by element."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Bounded(NamedTuple):
    """A value and its error bound.

    Attributes:
        value: the value, in float64; indices in int64.
        error: the largest error of each element, 0.0 where all are exact. Of an index it is 1 where
            another one is as good, up to rounding.
    """

    value: Tensor
    error: Tensor | float = 0.0

    @property
    def exact(self) -> bool:
        """Whether no element has an error."""
        return isinstance(self.error, float)

    @property
    def spread(self) -> Tensor:
        """The error as a tensor of the value's shape."""
        return torch.zeros_like(self.value, dtype=torch.float64) + self.error

    @property
    def magnitude(self) -> Tensor:
        """The largest absolute value that each element may have."""
        return self.value.abs() + self.error

"""Inner products and combinations of flat vectors, in float64 where they decide on a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def inner(u: Tensor, v: Tensor) -> float:
    """⟨u, v⟩ in float64."""
    return float(torch.dot(u.double(), v.double()))


def gram(vectors: Sequence[Tensor]) -> NDArray[np.float64]:
    """All inner products ⟨vᵢ, vⱼ⟩."""
    return np.array([[inner(u, v) for v in vectors] for u in vectors])


def combination(coefficients: NDArray[np.float64], vectors: Sequence[Tensor]) -> Tensor:
    """Σ cᵢ vᵢ."""
    result = torch.zeros_like(vectors[0])
    for factor, vector in zip(coefficients, vectors, strict=True):
        result.add_(vector, alpha=float(factor))
    return result

"""Sides of Kronecker products: symmetric matrices, full, of low rank, or diagonal.

A side of low rank is given by its root U, a diagonal by its numbers; each may have groups on a
leading axis. What a factorisation keeps of it are named tensors, which are saved as they are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from ..parts.cholesky import System
from ..parts.eigen import Spectrum, Symmetric

Saved = dict[str, Tensor]


class Side(ABC):
    """One side of a Kronecker product, S or a stack of them, one per group.

    Attributes:
        name: the name of the factor, "A" or "G".
    """

    name: str

    @property
    @abstractmethod
    def mean_diagonal(self) -> Tensor:
        """The mean tr S/dim S, one per group, in float64."""

    @abstractmethod
    def system(self, damping: Tensor) -> list[System]:
        """Returns the matrix whose inverse solves with S + damping·I, one per group.

        There is none where the inverse needs none.
        """

    @abstractmethod
    def saved(self, inverse: Tensor | None, damping: Tensor) -> Saved | None:
        """Returns what these solves need, from the inverse of `system`; None where it has none."""

    @abstractmethod
    def symmetric(self, basis: Tensor | None) -> list[Symmetric]:
        """Returns the matrix whose spectrum is that of S, in its range where S is of low rank.

        There is none where the spectrum is known.

        Args:
            basis: the eigenvectors to be refined; None for new ones.
        """

    @abstractmethod
    def elements(self, groups: Tensor, rows: Tensor) -> Tensor:
        """Returns the elements S_ij for all pairs of some rows, each of its own group.

        Those of two groups have no meaning.
        """

    def spectrum(self, found: Spectrum | None) -> Saved | None:
        """Returns the eigenvalues and eigenvectors under the side's name, as they were found."""
        if found is None:
            return None
        return {f"values_{self.name}": found.values, self.name: found.vectors}


class Full(Side):
    """A side that is a matrix."""

    def __init__(self, matrix: Tensor, name: str) -> None:
        self.matrix, self.name = matrix, name

    @property
    def mean_diagonal(self) -> Tensor:
        """The mean of the diagonal, one per group, in float64."""
        return self.matrix.diagonal(dim1=-2, dim2=-1).mean(-1, dtype=torch.float64)

    def system(self, damping: Tensor) -> list[System]:
        """Returns S with its damping."""
        return [System(self.matrix, damping)]

    def saved(self, inverse: Tensor | None, damping: Tensor) -> Saved | None:
        """Returns the inverse under the side's name."""
        return None if inverse is None else {f"{self.name}_inverse": inverse}

    def symmetric(self, basis: Tensor | None) -> list[Symmetric]:
        """Returns S itself."""
        return [Symmetric(self.matrix, basis=basis)]

    def elements(self, groups: Tensor, rows: Tensor) -> Tensor:
        """Returns the elements."""
        stack = self.matrix.reshape(-1, *self.matrix.shape[-2:])
        return stack[groups.unsqueeze(1), rows.unsqueeze(1), rows]


class Diagonal(Side):
    """A side diag(d), of which d is kept: no number of it is negative."""

    def __init__(self, values: Tensor, name: str) -> None:
        self.values, self.name = values, name

    @property
    def mean_diagonal(self) -> Tensor:
        """The mean of d, one per group, in float64."""
        return self.values.mean(-1, dtype=torch.float64)

    def system(self, damping: Tensor) -> list[System]:
        """Returns nothing."""
        return []

    def saved(self, inverse: Tensor | None, damping: Tensor) -> Saved:
        """Returns 1/(d + damping) under the side's name.

        Without damping no number counts for less than the largest one's rounding error.
        """
        return {f"{self.name}_inverse": self._damped(damping.unsqueeze(-1)).reciprocal_()}

    def _damped(self, damping: Tensor) -> Tensor:
        """Returns d + damping, which is never 0."""
        limits = torch.finfo(self.values.dtype)
        least = (limits.eps * self.values.amax(-1, keepdim=True)).clamp(min=limits.tiny)
        return torch.maximum(self.values + damping.to(self.values.dtype), least)

    def symmetric(self, basis: Tensor | None) -> list[Symmetric]:
        """Returns nothing: d are the eigenvalues, of unit vectors."""
        return []

    def elements(self, groups: Tensor, rows: Tensor) -> Tensor:
        """Returns d where the rows are the same, 0 elsewhere."""
        values = self.values.reshape(-1, self.values.shape[-1])[groups, rows]
        return torch.where(rows.unsqueeze(1) == rows, values, 0.0)

    def spectrum(self, found: Spectrum | None) -> Saved:
        """Returns a copy of d, which an average goes on with."""
        return {f"values_{self.name}": self.values.clone()}


class One(Diagonal):
    """The side of a bias alone: the number 1, which no damping joins."""

    def __init__(self, like: Tensor) -> None:
        super().__init__(torch.ones_like(like), "A")

    def saved(self, inverse: Tensor | None, damping: Tensor) -> Saved:
        """Returns nothing."""
        return {}


class HomogeneousDiagonal(Diagonal):
    """A diagonal side of a layer's inputs and the 1 of its bias, see `Homogeneous`."""

    @property
    def mean_diagonal(self) -> Tensor:
        """The inputs' mean square ρ², one per group, in float64; 1 where they are zero."""
        inputs = self.values[..., :-1].mean(-1, dtype=torch.float64)
        return inputs.where(inputs > 0.0, 1.0)

    def _damped(self, damping: Tensor) -> Tensor:
        """Returns d with its damping, that of the bias apart."""
        each = damping.expand(self.values.shape).clone()
        each[..., -1] /= self.mean_diagonal
        return super()._damped(each)


class LowRank(Side):
    """A side S = U Uᵀ with a root U of few columns, which is never multiplied out."""

    name = "A"

    def __init__(self, root: Tensor) -> None:
        self.root = root

    @property
    def mean_diagonal(self) -> Tensor:
        """The mean ‖U‖²/dim S, one per group, in float64."""
        root = self.root.double()
        return root.square().sum((-2, -1)) / root.shape[-2]

    def system(self, damping: Tensor) -> list[System]:
        """Returns the small UᵀU with its damping, which must be positive.

        The inverse is Woodbury's; where U is a column, Sherman and Morrison's (EA-CG, eq. 13).
        """
        positive = damping.masked_fill(damping <= 0, math.nan)
        return [System(self.root.mT @ self.root, positive)]

    def saved(self, inverse: Tensor | None, damping: Tensor) -> Saved | None:
        """Returns the inverse, and what goes with it in Woodbury's."""
        if inverse is None:
            return None
        scale = damping.to(self.root.dtype).reshape(*damping.shape, 1, 1)
        kept = self.root.clone()  # it may be a view of an average, which goes on
        return {"root": kept, "core_inverse": inverse, "damping": scale}

    def symmetric(self, basis: Tensor | None) -> list[Symmetric]:
        """Returns the root U; its few eigenvectors are computed anew."""
        return [Symmetric(self.root, is_root=True)]

    def elements(self, groups: Tensor, rows: Tensor) -> Tensor:
        """Returns products of rows of the root."""
        found = self.root.reshape(-1, *self.root.shape[-2:])[groups, rows]
        return found @ found.mT


class Homogeneous(Full):
    """The side of a layer's inputs and the 1 of its bias, with a damping that has no unit.

    A bias is damped as the weight of an input of the size ρ that the others have: the 1 counts as
    ρ·(1/ρ), with ρ² their mean square, so that S + δ·diag(1, …, 1, 1/ρ²) follows the inputs' scale.
    """

    @property
    def mean_diagonal(self) -> Tensor:
        """The inputs' mean square ρ², one per group, in float64; 1 where they are zero."""
        inputs = self.matrix.diagonal(dim1=-2, dim2=-1)[..., :-1].mean(-1, dtype=torch.float64)
        return inputs.where(inputs > 0.0, 1.0)

    def system(self, damping: Tensor) -> list[System]:
        """Returns S with its damping, that of the bias apart."""
        matrix, more = self.matrix.clone(), damping / self.mean_diagonal - damping
        matrix[..., -1, -1] += more.to(matrix.dtype)
        return [System(matrix, damping)]


def balance(a: Side, g: Side) -> Tensor:
    """Returns π = √[(tr A/dim A) / (tr G/dim G)] per group; 1 where a trace is not positive."""
    mean_a, mean_g = a.mean_diagonal, g.mean_diagonal
    return torch.where((mean_a > 0) & (mean_g > 0), (mean_a / mean_g).sqrt(), 1.0)


def spectrum(tensors: Mapping[str, Tensor]) -> Tensor:
    """Returns eigenvalues of A ⊗ G, O×D, without those that are 0 because A has low rank."""
    return tensors["values_G"].unsqueeze(-1) * tensors["values_A"].unsqueeze(-2)

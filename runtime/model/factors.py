"""Kronecker factors as the user gets them: stored as computed, in PyTorch's order on access."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...compiler.curvature.factors import KroneckerLayer


@dataclass(frozen=True)
class KroneckerFactors:
    """The pair of one layer: its curvature block is A ⊗ G (a pair per group on a leading axis).

    A_stored: D×D in (tap, channel) order, the homogeneous 1 last where the layer has a bias.
    G: O×O over output channels. kernel: taps per axis, (1, 1) for a linear layer.
    """

    A_stored: Tensor
    G: Tensor
    kernel: tuple[int, int]
    homogeneous: bool

    @property
    def order(self) -> Tensor:
        """Positions of the stored rows in PyTorch's (channel, tap) order, the 1 last."""
        taps = self.kernel[0] * self.kernel[1]
        size = self.A_stored.shape[-1] - self.homogeneous
        order = torch.arange(size, device=self.A_stored.device).view(taps, -1).T.reshape(-1)
        return torch.cat([order, order.new_tensor([size])]) if self.homogeneous else order

    @property
    def A(self) -> Tensor:
        """A acting on [weight.flatten(1), bias] in PyTorch's order."""
        if self.kernel == (1, 1):
            return self.A_stored
        order = self.order
        return self.A_stored.index_select(-1, order).index_select(-2, order)

    def times_inputs(self, m: Tensor) -> Tensor:
        """M A for a matrix M of O×D."""
        return m @ self.A_stored


@dataclass(frozen=True)
class MeanFactors:
    """The pair of one layer with E[ā]E[ā]ᵀ in place of A = E[ā āᵀ], which is never formed.

    mean: of the layer's inputs without the 1, D or groups×D, in (tap, channel) order. `apart`
    leaves weight and bias uncoupled, A = diag(E[a]E[a]ᵀ, 1), as EA-CG does (Chen et al. 2018,
    eqs. 10 and 11b).
    """

    mean: Tensor
    G: Tensor
    kernel: tuple[int, int]
    homogeneous: bool
    apart: bool = False

    @property
    def root(self) -> Tensor:
        """U of A = U Uᵀ: one column, or two where the bias stands apart."""
        column = self.mean.unsqueeze(-1)
        if not self.homogeneous:
            return column
        zero, one = torch.zeros_like(column[..., :1, :]), torch.ones_like(column[..., :1, :])
        if not self.apart:
            return torch.cat([column, one], -2)
        weight = torch.cat([column, torch.zeros_like(column)], -1)
        return torch.cat([weight, torch.cat([zero, one], -1)], -2)

    def times_inputs(self, m: Tensor) -> Tensor:
        """M A = (M U) Uᵀ for a matrix M of O×D."""
        root = self.root
        return (m @ root) @ root.mT


@dataclass(frozen=True)
class DiagonalFactors:
    """The diagonal block of a layer's parameters: mean of (∂ℓ_n/∂p)², by parameter name."""

    diagonal: Mapping[str, Tensor]


Factors = KroneckerFactors | MeanFactors | DiagonalFactors


def tensors(factors: Factors) -> dict[str, Tensor]:
    """The tensors of a block, as stored, by name."""
    if isinstance(factors, MeanFactors):
        return {"mean": factors.mean, "G": factors.G}
    if isinstance(factors, KroneckerFactors):
        return {"A": factors.A_stored, "G": factors.G}
    return dict(factors.diagonal)


def matrix(block: KroneckerLayer, views: Mapping[str, Tensor]) -> Tensor:
    """The layer's part of a vector as O×D (groups×O/g×D), the bias as last column."""
    weight = views[block.weight]
    lead = (block.groups,) if block.groups > 1 else ()
    rows = weight.shape[0] // block.groups
    parts = [weight.reshape(*lead, rows, -1)]
    if block.bias is not None:
        parts.append(views[block.bias].reshape(*lead, rows, 1))
    return torch.cat(parts, -1)


def write_matrix(block: KroneckerLayer, views: Mapping[str, Tensor], value: Tensor) -> None:
    """Writes an O×D matrix back into the layer's part of a vector."""
    weight = views[block.weight]
    columns = value.shape[-1] - (block.bias is not None)
    weight.copy_(value[..., :columns].reshape(weight.shape))
    if block.bias is not None:
        views[block.bias].copy_(value[..., columns].reshape(-1))


def sides(block: KroneckerLayer, views: Mapping[str, Tensor]) -> tuple[tuple[int, ...], int, int]:
    """Leading axis of the layer's factors (its groups, where there are several), D and O."""
    shape = matrix(block, views).shape
    return tuple(shape[:-2]), shape[-1], shape[-2]

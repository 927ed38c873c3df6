"""Kronecker factors as the user gets them: stored as computed, in PyTorch's order on access.

A layer with O outputs and D inputs, the homogeneous 1 of its bias among them, has a block of the
form A ⊗ G with A of D×D and G of O×O. A convolution in groups has a pair for each group, on a
leading axis of both tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor


class Factors(Protocol):
    """What is gathered of one layer, whichever structure its curvature block has."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors as they are stored, by the names under which a state saves them."""
        ...


@dataclass(frozen=True)
class KroneckerFactors:
    """The two factors of one layer, whose curvature block is A ⊗ G.

    A = E[ā āᵀ] over samples and positions, G = E[g gᵀ] over samples, summed over positions (Martens
    & Grosse 2015; Grosse & Martens 2016 for convolutions). On row-major weights the block is the
    matrix kron(G, A): it takes V, of O×D, to G V A. Of a table's lookups A is a diagonal; of a
    transposed convolution G is of patches, in (tap, channel) order.

    Attributes:
        A_stored: the factor A as it was computed, D×D, in (tap, channel) order, the 1 last.
        G: the factor G, O×O, over output channels.
        kernel: the taps along each axis; (1, 1) for a linear layer.
        homogeneous: whether the layer has a bias, so that A has a row and a column for the 1.
        diagonal: the names of the factors of which the diagonal alone is kept, D or O numbers.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(2), (3,), nt.MSELoss(), device="cpu")
        >>> lin = model.linearize(torch.ones(4, 3), torch.zeros(4, 2))
        >>> factors = lin.kronecker_factors("empirical")[""]
        >>> factors.A.shape, factors.G.shape
        (torch.Size([4, 4]), torch.Size([2, 2]))
        >>> bool((factors.A == 1.0).all())
        True
    """

    A_stored: Tensor
    G: Tensor
    kernel: tuple[int, int]
    homogeneous: bool
    diagonal: tuple[str, ...] = ()

    @property
    def order(self) -> Tensor:
        """The positions of the stored rows in PyTorch's (channel, tap) order, the 1 last."""
        taps = self.kernel[0] * self.kernel[1]
        size = self.A_stored.shape[-1] - self.homogeneous
        order = torch.arange(size, device=self.A_stored.device).view(taps, -1).T.reshape(-1)
        return torch.cat([order, order.new_tensor([size])]) if self.homogeneous else order

    @property
    def A(self) -> Tensor:
        """The factor A in PyTorch's order: it acts on the columns of [weight.flatten(1), bias]."""
        if self.kernel == (1, 1):
            return self.A_stored
        order = self.order
        rows = self.A_stored.index_select(-1, order)
        return rows if "A" in self.diagonal else rows.index_select(-2, order)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Both factors as they are stored, by the names under which a state saves them."""
        return {"A": self.A_stored, "G": self.G}

    @property
    def of_weights(self) -> KroneckerFactors:
        """The factors of the weights alone: A without the 1 of the bias."""
        if not self.homogeneous:
            return self
        a = self.A_stored[..., :-1]
        a = a if "A" in self.diagonal else a[..., :-1, :]
        return replace(self, A_stored=a.contiguous(), homogeneous=False)

    def times_inputs(self, m: Tensor) -> Tensor:
        """Returns the product M A for a matrix M of O×D."""
        return m * self.A_stored.unsqueeze(-2) if "A" in self.diagonal else m @ self.A_stored


@dataclass(frozen=True)
class MeanFactors:
    """The factors of one layer with E[ā]E[ā]ᵀ in place of A = E[ā āᵀ], which is never formed.

    This is EA-CG's approximation (Chen, Chou & Chang 2018, eqs. 10 and 11b).

    Attributes:
        mean: the mean of the layer's inputs without the 1, D or groups×D, in (tap, channel) order.
        G: the factor G, O×O, over output channels.
        kernel: the taps along each axis; (1, 1) for a linear layer.
        homogeneous: whether the layer has a bias.
        diagonal: ("G",) where G's diagonal alone is kept.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(2), (3,), nt.MSELoss(), device="cpu")
        >>> lin = model.linearize(torch.ones(4, 3), torch.zeros(4, 2))
        >>> lin.kronecker_factors("empirical", means=[""])[""].mean
        tensor([1., 1., 1.])
    """

    mean: Tensor
    G: Tensor
    kernel: tuple[int, int]
    homogeneous: bool
    diagonal: tuple[str, ...] = ()

    @property
    def root(self) -> Tensor:
        """The root U of A = U Uᵀ, D×1."""
        column = self.mean.unsqueeze(-1)
        if not self.homogeneous:
            return column
        return torch.cat([column, torch.ones_like(column[..., :1, :])], -2)

    @property
    def of_weights(self) -> MeanFactors:
        """The factors of the weights alone."""
        return replace(self, homogeneous=False)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The mean and G, by the names under which a state saves them."""
        return {"mean": self.mean, "G": self.G}

    def times_inputs(self, m: Tensor) -> Tensor:
        """Returns the product M A = (M U) Uᵀ for a matrix M of O×D."""
        root = self.root
        return (m @ root) @ root.mT


@dataclass(frozen=True)
class EigenbasisFactors:
    """The factors of one layer, and the gradient's second moments in their eigenbasis (EKFAC).

    The block takes V, of O×D, to U_G [S ⊙ (U_Gᵀ V U_A)] U_Aᵀ (George et al. 2018). The basis is
    that of the factors when it was last taken.

    Attributes:
        A_stored: the factor A, D×D, in (tap, channel) order, the 1 last.
        G: the factor G, O×O, over output channels.
        basis_A: U_A, D×D, orthonormal columns, rows in the order of A_stored.
        basis_G: U_G, O×O, orthonormal columns.
        S: the second moments, O×D.
        kernel: the taps along each axis; (1, 1) for a linear layer.
        homogeneous: whether the layer has a bias.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> from newtriton.runtime.curvatures.kronecker import KroneckerCurvature
        >>> model = nt.compile(nt.Linear(2), (3,), nt.MSELoss(), device="cpu")
        >>> curvature = KroneckerCurvature(model, "ekfac")
        >>> curvature.update(model.linearize(torch.ones(4, 3), torch.zeros(4, 2)))
        True
        >>> curvature.factors[""].S.shape
        torch.Size([2, 4])
    """

    A_stored: Tensor
    G: Tensor
    basis_A: Tensor
    basis_G: Tensor
    S: Tensor
    kernel: tuple[int, int]
    homogeneous: bool

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors as they are stored, by the names under which a state saves them."""
        both = {"A": self.A_stored, "G": self.G}
        return {**both, "basis_A": self.basis_A, "basis_G": self.basis_G, "S": self.S}


@dataclass(frozen=True)
class DiagonalFactors:
    """The diagonal block of a layer whose parameters enter by a broadcast, like batch norm's.

    Attributes:
        diagonal: the mean of (∂ℓ_n/∂p)² over samples for each parameter p, in its shape, by name.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> net = nt.Sequential(nt.Conv2d(2, 1), nt.BatchNorm2d(), nt.Flatten(), nt.Linear(2))
        >>> model = nt.compile(net, (1, 2, 2), nt.MSELoss(), device="cpu")
        >>> lin = model.linearize(torch.rand(4, 1, 2, 2), torch.zeros(4, 2))
        >>> sorted(lin.kronecker_factors("empirical")["1"].diagonal)
        ['1.bias', '1.weight']
    """

    diagonal: Mapping[str, Tensor]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The diagonal's parts, by the names of their parameters."""
        return dict(self.diagonal)

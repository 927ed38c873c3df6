"""Second moments of per-sample gradients in the eigenbasis of a layer's factors, in chunks.

    S = 1/N Σ_n (U_Gᵀ ∇W_n U_A)²,    ∇W_n = Σ_t g_t āₜᵀ over the T positions of sample n

(George et al. 2018, section 3.2), elementwise squared. With one position the square is a product of
squares, ((g U_G)²)ᵀ (ā U_A)²/N. With more, N gradients of O×D are formed a chunk of samples at a
time: the bytes of a sample are counted, and those of a chunk are at most `LIMIT`.

This is no program, since a basis is that of the factors which the same program has just computed,
and since the number of samples in a graph is a symbol, which cannot be cut into chunks. The batched
products here are what either backend would leave to PyTorch's operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..aten.switches import switches
from ..parallel.ranks import Ranks
from .factors import KroneckerFactors

if TYPE_CHECKING:
    from ...compiler.curvature.blocks import KroneckerLayer

# The bytes that a chunk of per-sample gradients may take; a chunk has a sample at least.
LIMIT = 1 << 26


@dataclass(frozen=True)
class SampledFactors:
    """The factors of one layer together with the samples of which they are second moments.

    Attributes:
        pair: the factors A and G.
        described: which parameters they are, and a convolution's window.
        inputs: the inputs a, N×D, N×T×D or N×H×W×C.
        adjoints: the adjoints of the layer's outputs, N×O, N×T×O or N×H×W×O, with copies on a
            leading axis or without.
        weight: what makes a sum over squared adjoints the second moment, N a copy.
        ranks: those that have other samples; None where there are none.
        samples: how many samples all ranks have; None for those here.
    """

    pair: KroneckerFactors
    described: KroneckerLayer
    inputs: Tensor
    adjoints: Tensor
    weight: float
    ranks: Ranks | None = None
    samples: int | None = None

    @property
    def positions(self) -> int:
        """Returns T, the number of positions of a sample."""
        return math.prod(self.adjoints.shape[1 - self.inputs.dim() : -1])

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Both factors, and N·T tr A tr G, which no second moment exceeds."""
        pair = self.pair.tensors
        traces = [x.diagonal(dim1=-2, dim2=-1).sum() for x in pair.values()]
        count = (self.samples or len(self.inputs)) * self.positions
        return {**pair, "bound": count * traces[0] * traces[1]}

    def sample_bytes(self) -> int:
        """Returns the most bytes that a sample takes while its gradient is formed and squared."""
        rows, columns = self.pair.G.shape[-1], self.pair.A_stored.shape[-1]
        positions, layer = self.positions, self.described
        numbers = 2 * layer.groups * positions * (rows + columns)  # as they are, and rotated
        if positions > 1:
            numbers += 2 * layer.groups * rows * columns
        if self.inputs.dim() == 4:
            numbers += math.prod(_padded(layer, self.inputs[0]).shape)
        return numbers * self.inputs.itemsize

    def moments(self, basis_a: Tensor, basis_g: Tensor) -> Callable[[], Tensor]:
        """Returns what gives `second_moments` when all layers have asked for theirs."""
        return partial(self.second_moments, basis_a, basis_g)

    def second_moments(self, basis_a: Tensor, basis_g: Tensor, limit: int = LIMIT) -> Tensor:
        """Returns S, O×D, one per group on a leading axis where there are several.

        Args:
            basis_a: U_A, D×D, orthonormal columns, one per group.
            basis_g: U_G, O×O, likewise.
            limit: the bytes that a chunk may take.
        """
        layer, groups, rows = self.described, self.described.groups, basis_g.shape[-1]
        u_a, u_g = (u.reshape(groups, *u.shape[-2:]) for u in (basis_a, basis_g))
        count, positions = len(self.inputs), self.positions
        copies = self.adjoints.reshape(-1, count, positions, groups, rows)
        rotate_first = positions <= rows  # the sides have fewer rows than the gradient
        total = torch.zeros(groups, rows, u_a.shape[-1], dtype=u_a.dtype, device=u_a.device)
        size = max(1, limit // self.sample_bytes())
        with switches(total.device):
            for chunk, inputs in zip(copies.split(size, 1), self.inputs.split(size), strict=True):
                a = _rows(layer, inputs)
                a = _rotated(a, u_a) if rotate_first else a
                for copy in chunk:
                    g = _rotated(copy.permute(2, 0, 1, 3), u_g)
                    total += _squares(g, a, None if rotate_first else u_a)
        if self.ranks is not None:
            self.ranks.sum_(total)
        return total.mul_(self.weight).reshape(*basis_g.shape[:-1], -1)


def _padded(layer: KroneckerLayer, images: Tensor) -> Tensor:
    """Returns images with zeros around them, as the window sees them."""
    height, width = layer.padding
    return pad(images, (0, 0, width, width, height, height))


def _rows(layer: KroneckerLayer, inputs: Tensor) -> Tensor:
    """Returns the homogeneous inputs ā of each position in A's order: groups×N×T×D."""
    if inputs.dim() < 4:
        rows = inputs.reshape(1, len(inputs), -1, inputs.shape[-1])
        return rows if layer.bias is None else pad(rows, (0, 1), value=1.0)
    windows = _padded(layer, inputs)
    sizes = zip(layer.kernel, layer.stride, layer.dilation, strict=True)
    for axis, (taps, stride, dilation) in enumerate(sizes, 1):
        windows = windows.unfold(axis, dilation * (taps - 1) + 1, stride)[..., ::dilation]
    windows = windows.unflatten(3, (layer.groups, -1)).permute(3, 0, 1, 2, 5, 6, 4)
    groups, count, height, width, *patch = windows.shape
    columns = math.prod(patch)
    shape = groups, count, height * width, columns + (layer.bias is not None)
    rows = torch.ones(shape, dtype=inputs.dtype, device=inputs.device)
    rows[..., :columns].unflatten(3, patch).unflatten(2, (height, width)).copy_(windows)
    return rows


def _rotated(x: Tensor, basis: Tensor) -> Tensor:
    """Returns the rows of x, groups×N×T×D, in a group's basis."""
    return (x.flatten(1, 2) @ basis).view(x.shape)


def _squares(g: Tensor, a: Tensor, basis: Tensor | None) -> Tensor:
    """Returns the sum over samples of (gᵀ a U)², groups×O×D; without a basis, a is rotated.

    Args:
        g: the rotated adjoints, groups×N×T×O.
        a: the inputs, groups×N×T×D.
        basis: U, groups×D×D, or None.
    """
    if g.shape[2] == 1:
        return g.squeeze(2).square().mT @ a.squeeze(2).square()
    gradients = g.mT @ a
    if basis is not None:
        gradients = _rotated(gradients, basis)
    return gradients.square_().sum(1)

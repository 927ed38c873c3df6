"""Convolution gradients on small maps as one matrix product over patches.

Where a batch has no more output positions than the layer has output channels, the patches are no
larger than the weights; then a matrix product beats PyTorch's convolution gradients, which starve
on few positions (2.5 times on 2×2 maps with 512 channels, batch 64).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...compiler.graph.ir import Node
from ...kernels.products import times_transposed


def is_small(node: Node, ct: Tensor) -> bool:
    """Whether the convolution gradient `node`, of output adjoint `ct`, is better taken here."""
    return node["groups"] == 1 and ct[..., 0].numel() <= ct.shape[-1]


def _taps(node: Node, padded: Tensor, kernel: tuple[int, int], size: torch.Size) -> list[Tensor]:
    """Returns views of a padded N×H×W×C image, one per tap, each of the output's `size`."""
    (sy, sx), (dy, dx) = node["stride"], node["dilation"]
    height, width = size
    return [
        padded[:, i * dy : i * dy + sy * height : sy, j * dx : j * dx + sx * width : sx]
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]


def weight_grad(node: Node, ct: Tensor, x: Tensor) -> Tensor:
    """Returns s̄⊛a, O×kh×kw×C: s̄ᵀ times the patches of a."""
    (py, px), (kh, kw) = node["padding"], node["kernel"]
    padded = torch.nn.functional.pad(x, (0, 0, px, px, py, py))
    patches = torch.stack(_taps(node, padded, (kh, kw), ct.shape[1:3]), dim=3)
    rows = ct.reshape(-1, ct.shape[-1])
    product = times_transposed(rows.mT, patches.view(-1, kh * kw * x.shape[-1]).mT)
    return product.view(-1, kh, kw, x.shape[-1])


def input_grad(node: Node, ct: Tensor, w: Tensor) -> Tensor:
    """Returns Wᵀ⋆s̄: s̄ times the weights gives adjoints of patches, summed where they overlap."""
    (py, px), (height, width) = node["padding"], node["size"]
    lead, (o, kh, kw, c) = ct.shape[:-3], w.shape
    g = ct.reshape(-1, *ct.shape[-3:])
    patches = times_transposed(g.reshape(-1, o), w.view(o, -1).mT)
    patches = patches.view(*g.shape[:3], kh * kw, c)
    padded = ct.new_zeros(len(g), height + 2 * py, width + 2 * px, c)
    for tap, patch in zip(
        _taps(node, padded, (kh, kw), g.shape[1:3]), patches.unbind(3), strict=True
    ):
        tap.add_(patch)
    return padded[:, py : py + height, px : px + width].reshape(*lead, height, width, c)

"""Symmetric matrices as half as many numbers, moved in blocks: nothing is done row by row.

A matrix of n rows is cut after h = ⌈n/2⌉ of them. The block below the cut and left of it is kept;
beside it the lower triangle of the first block and the upper one of the last share one rectangle
(Gustavson, Waśniewski, Dongarra & Langou 2010, rectangular full packed format).
"""

from __future__ import annotations

from torch import Tensor


def packed_size(rows: int) -> int:
    """Returns how many numbers a symmetric matrix is made of."""
    return rows * (rows + 1) // 2


def pack(matrix: Tensor, out: Tensor) -> None:
    """Writes what a symmetric matrix, or each of a stack, is made of to contiguous memory."""
    half, lower, upper, below = _parts(matrix, out)
    upper[..., :1, :] = 0.0
    lower.copy_(matrix[..., :half, :half].tril())
    upper.add_(matrix[..., half:, half:].triu())
    below.copy_(matrix[..., half:, :half])


def unpack(packed: Tensor, out: Tensor) -> None:
    """Writes the symmetric matrices that `pack` wrote the numbers of."""
    half, lower, upper, below = _parts(out, packed)
    out[..., :half, :half] = lower.tril() + lower.tril(-1).mT
    out[..., half:, half:] = upper.triu() + upper.triu(1).mT
    out[..., half:, :half] = below
    out[..., :half, half:] = below.mT


def _parts(matrix: Tensor, flat: Tensor) -> tuple[int, Tensor, Tensor, Tensor]:
    """Returns where a matrix is cut, and where its blocks lie: two triangles, and the one below.

    The upper triangle lies above the lower one's diagonal, in the same rectangle.
    """
    *lead, _, rows = matrix.shape
    half, even = -(-rows // 2), rows % 2 == 0
    stack = flat.view(*lead, packed_size(rows))
    size = (half + even) * half
    both = stack[..., :size].unflatten(-1, (half + even, half))
    upper = both[..., :half, :] if even else both[..., : half - 1, 1:]
    below = stack[..., size:].unflatten(-1, (rows - half, half))
    return half, both[..., even:, :], upper, below


def numbers(tensor: Tensor, symmetric: bool) -> int:
    """Returns of how many numbers a tensor is made."""
    if not symmetric:
        return tensor.numel()
    stack = tensor.numel() // tensor.shape[-1] ** 2
    return stack * packed_size(tensor.shape[-1])

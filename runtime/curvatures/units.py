"""What a relative damping is measured in, layer by layer.

A damping γI is the curvature of a prior: parameters that lie within τ of where they are cost
½γ‖s‖². Its unit in layer l is

    u_l = κ / τ_l²        κ = Σ_l n_l c_l τ_l² / Σ_l n_l

with c_l the mean of the diagonal of C_l, τ_l² the mean square of the layer's n_l parameters: κ is
the mean curvature of parameters that are measured in their own size. γu_l follows C_l when the loss
is multiplied by a number, and when the inputs of a layer, or all that it gives, are multiplied by
one and its parameters divided by it: steps along (C + γ diag(u_l I))⁻¹g then stay what they were.
A bias counts as the weight of an input of the mean size of the others, see `Homogeneous`.

γ is 1/N at least, for averages of N samples: a direction in which one sample in N has all of the
curvature may have none in C, and what has not been seen is not flat. An average with the weights w
of batches of n samples has 1/N = Σ w²/n (Kish 1965).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..parts.block import Block
from ..reading import read


def units(blocks: Sequence[Block], params: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns u_l by layer, in one transfer; 1 where all curvature or all parameters are zero.

    A layer whose parameters are all zero has the mean τ² of the others.

    Args:
        blocks: the blocks C_l, as they are now.
        params: the parameters by name.
    """
    curvatures, squares = read(
        torch.stack([block.mean_diagonal for block in blocks]),
        torch.stack([block.mean_square(params) for block in blocks]),
    )
    sizes = np.array([block.read(params).numel() for block in blocks], dtype=float)
    sizes /= sizes.sum()
    squares[squares <= 0.0] = sizes @ squares
    mean = float(sizes @ (curvatures * squares))
    if not 0.0 < mean < float("inf"):
        return {block.layer: 1.0 for block in blocks}
    return {
        block.layer: mean / float(square) for block, square in zip(blocks, squares, strict=True)
    }

"""What a relative damping is measured in, layer by layer.

A damping γI is the curvature of a prior: parameters that lie within τ of where they are cost
½γ‖s‖². Its unit in layer l is

    u_l = κ / τ_l²        κ = Σ_l n_l c_l τ_l² / Σ_l n_l

with c_l the mean of the diagonal of C_l, τ_l² the mean square of the layer's n_l parameters: κ is
the mean curvature of parameters that are measured in their own size. γu_l follows C_l when the loss
is multiplied by a number, and when the inputs of a layer, or all that it gives, are multiplied by
one and its parameters divided by it: steps along (C + γ diag(u_l I))⁻¹g then stay what they were.
A bias counts as the weight of an input of the mean size of the others, see `Homogeneous`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..parallel.owners import Owners
from ..parts.block import Block
from ..reading import read


def units(
    blocks: Sequence[Block], params: Mapping[str, Tensor], owners: Owners | None = None
) -> dict[str, float]:
    """Returns u_l by layer, in one transfer; 1 where all curvature or all parameters are zero.

    A layer whose parameters are all zero has the mean τ² of the others.

    Args:
        blocks: the blocks C_l, as they are now.
        params: the parameters by name.
        owners: which ranks hold which blocks; None where this one has all.
    """
    nothing = torch.zeros((), dtype=torch.float64, device=next(iter(params.values())).device)
    held = [owners is None or owners.hold(block.names) for block in blocks]
    found = [
        (block.mean_diagonal, block.mean_square(params)) if here else (nothing, nothing)
        for block, here in zip(blocks, held, strict=True)
    ]
    both = torch.stack([torch.stack(numbers) for numbers in zip(*found, strict=True)])
    curvatures, squares = read(both if owners is None else owners.all_sum(both))[0]
    sizes = np.array([block.read(params).numel() for block in blocks], dtype=float)
    sizes /= sizes.sum()
    squares[squares <= 0.0] = sizes @ squares
    mean = float(sizes @ (curvatures * squares))
    if not 0.0 < mean < float("inf"):
        return {block.layer: 1.0 for block in blocks}
    return {
        block.layer: mean / float(square) for block, square in zip(blocks, squares, strict=True)
    }

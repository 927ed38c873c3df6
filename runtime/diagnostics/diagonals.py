"""The diagonal of the Hessian or the Gauss–Newton matrix: exact where cheap, else estimated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...compiler.curvature.adjoints import MAX_COPIES
from ...compiler.curvature.blocks import MAX_FACTOR, KroneckerLayer, faults
from ...compiler.curvature.jacobian import no_jacobian
from ...compiler.graph.calls import checked
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.ir import per_sample
from ...compiler.graph.options import check_count, check_seed
from ..aten.switches import switches
from ..curvatures.kronecker import operators
from ..model.factors import Factors
from ..model.linearized import Linearized
from ..model.moments import SampledFactors
from ..parts.block import Block, BlockDiagonal
from .matrices import TrainedMatrix, signs
from .tables import table

if TYPE_CHECKING:
    from ..model.model import Model


@dataclass(frozen=True)
class Diagonal:
    """What `diagonal` found.

    Attributes:
        model: the model.
        values: the diagonal, or an unbiased estimate, flat; 0 for parameters that are frozen.
        errors: the standard error of each value, 0 where it is exact.
        products: how many products with the matrix it took.
    """

    model: Model
    values: Tensor
    errors: Tensor
    products: int

    def by_name(self) -> dict[str, Tensor]:
        """Returns the values in PyTorch's shapes, by parameter."""
        return self.model.unflatten(self.values)

    def __str__(self) -> str:
        """Returns a table with a row for each parameter that is trained."""
        values, errors = map(self.model.layout.torch_views, (self.values, self.errors))
        rows = [["diagonal", "smallest", "mean", "largest", "error"]]
        for name in (n for names in self.model.layers.values() for n in names):
            v, error = values[name], float(errors[name].square().mean().sqrt())
            numbers = [f"{float(x):.3g}" for x in (v.min(), v.mean(), v.max())]
            rows.append([name, *numbers, f"{error:.0e}" if error else "exact"])
        return table(rows)


@checked
def diagonal(
    lin: Linearized, matrix: str = "hessian", *, products: int = 100, seed: int = 0
) -> Diagonal:
    """Computes the diagonal of the Hessian or the Gauss–Newton matrix of h.

    Weight decay is in them, as in `hvp` and `ggnvp`, and frozen parameters are not. It is exact
    where that is cheap: the Gauss–Newton matrix's from squared gradients of each sample, with a
    backward copy for each column of a root of B, wherever samples do not mix and no weights are
    shared; and of a matrix with no more rows than `products`. Else it is the mean of v ⊙ Av over
    random signs v (Bekas, Kokiopoulou & Saad 2007), whose spread tells the standard errors: the
    variance of an element is the sum of squares of the others in its row, over the products.

    Args:
        lin: the point, and the batch or the data, see `LinearizedData`.
        matrix: "hessian" or "ggn".
        products: the most products, ≥ 2.
        seed: the seed of the random signs.

    Returns:
        the diagonal; `print` shows it as a table.

    Raises:
        NewtritonError: an option is unknown or none that there can be, the loss has no Gauss–Newton
            matrix, or a product is not finite.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> model = nt.compile(nt.Linear(1), input_shape=(2,), loss=nt.MSELoss())
        >>> lin = model.linearize(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 1))
        >>> print(nt.diagonal(lin))  # of 2 āāᵀ
        diagonal  smallest  mean  largest  error
        weight           2    10       18  exact
        bias             2     2        2  exact
    """
    products = check_count("products", products, 2)
    seed = check_seed(seed)
    a, model = TrainedMatrix(lin, matrix), lin.model
    values, errors = torch.zeros_like(model.params), torch.zeros_like(model.params)
    with switches(a.like.device):
        if len(a) <= products:
            values[a.places] = a.dense().diagonal()
        elif matrix == "ggn" and _squares(lin):
            values[a.places] = lin.mean(_squared)[a.places] + model.weight_decay
        else:
            v = signs(a.like, products, torch.Generator().manual_seed(seed))
            drawn = v * a.columns(v)
            values[a.places] = drawn.mean(1)
            errors[a.places] = drawn.std(1) / math.sqrt(products)
    if not bool(torch.isfinite(values).all()):
        raise NewtritonError("the diagonal is not finite at these parameters")
    return Diagonal(model, values, errors, a.products)


def _squares(lin: Linearized) -> bool:
    """Whether squared gradients of each sample make the Gauss–Newton matrix's diagonal."""
    traced = lin.programs.traced
    if not lin.programs.offers("kflr") or no_jacobian(traced) or faults(traced):
        return False
    products = [block for block in lin.model.blocks if isinstance(block, KroneckerLayer)]
    fit = all(block.plain and block.size <= MAX_FACTOR for block in products)
    return fit and per_sample(traced.z.shape) <= MAX_COPIES


def _squared(lin: Linearized) -> Tensor:
    """Returns the diagonal of the data term's Gauss–Newton matrix, flat."""
    model, found = lin.model, lin.kronecker_factors("kflr", per_sample=True)
    blocks = BlockDiagonal(model.layout, tuple(operators(model, [], False).values()), 0, False)
    parts = [_second_moments(found[block.layer], block) for block in blocks.blocks]
    return blocks.assembled(parts, model.params)


def _second_moments(factors: Factors, block: Block) -> Tensor:
    """Returns the second moments of a block's gradients, in the shape of its part of a vector."""
    if isinstance(factors, SampledFactors):
        sides = factors.pair.A_stored, factors.pair.G
        a, g = (torch.eye(x.shape[-1], out=x.new_empty(0)).expand(x.shape) for x in sides)
        return factors.second_moments(a, g)
    return block.read(factors.tensors)

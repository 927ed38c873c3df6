"""The trace of the Hessian or the Gauss–Newton matrix: exact, or Hutch++ with its error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ...compiler.graph.calls import checked
from ...compiler.graph.options import check_count, check_seed
from ..aten.switches import switches
from ..model.linearized import Linearized
from .matrices import TrainedMatrix, signs
from .tables import table


@dataclass(frozen=True)
class Trace:
    """What `trace` found.

    Attributes:
        value: the trace, or an unbiased estimate of it.
        error: the standard error of the estimate; 0 where it is exact.
        products: how many products with the matrix it took.
    """

    value: float
    error: float
    products: int

    def __str__(self) -> str:
        """Returns a table of one row."""
        error = f"{self.error:.1e}" if self.error else "exact"
        return table(
            [["trace", "error", "products"], [f"{self.value:.6g}", error, str(self.products)]]
        )


@checked
def trace(lin: Linearized, matrix: str = "hessian", *, products: int = 90, seed: int = 0) -> Trace:
    """Computes the trace of the Hessian or the Gauss–Newton matrix of h.

    Weight decay is in them, as in `hvp` and `ggnvp`, and frozen parameters are not. A matrix of no
    more rows than `products` is read off column by column. Of a larger one the estimate is Hutch++
    (Meyer, Musco, Musco & Woodruff 2021): exact on the range that a third of the products finds,
    and the mean of vᵀAv over random signs v on the rest, which tells its standard error. It is
    unbiased, of matrices with negative eigenvalues too.

    Args:
        lin: the point, and the batch or the data, see `LinearizedData`.
        matrix: "hessian" or "ggn".
        products: the most products, ≥ 6.
        seed: the seed of the random signs.

    Raises:
        NewtritonError: an option is unknown or none that there can be, the loss has no Gauss–Newton
            matrix, or a product is not finite.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> model = nt.compile(nt.Linear(2, bias=False), input_shape=(1,), loss=nt.MSELoss())
        >>> lin = model.linearize(torch.full((4, 1), 3.0), torch.zeros(4, 2))
        >>> print(nt.trace(lin))  # of 2 x² I
        trace  error  products
           36  exact         2
    """
    products = check_count("products", products, 6)
    seed = check_seed(seed)
    a = TrainedMatrix(lin, matrix)
    with switches(a.like.device):
        if len(a) <= products:
            return Trace(float(a.dense().double().trace()), 0.0, a.products)
        generator = torch.Generator().manual_seed(seed)
        sketch, rest = products // 3, products - 2 * (products // 3)
        basis = torch.linalg.qr(a.columns(signs(a.like, sketch, generator))).Q
        inside = (basis * a.columns(basis)).sum(dtype=torch.float64)
        v = signs(a.like, rest, generator)
        v -= basis @ (basis.mT @ v)
        forms = (v * a.columns(v)).sum(0, dtype=torch.float64)
        error = forms.std() / math.sqrt(rest)
        return Trace(float(inside + forms.mean()), float(error), a.products)

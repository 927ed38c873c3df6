"""The Hessian or the Gauss–Newton matrix of h as an operator on the parameters that are trained."""

from __future__ import annotations

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_option
from ...compiler.programs import MATRICES
from ..aten.switches import switches
from ..model.linearized import Linearized


class TrainedMatrix:
    """A matrix of h over the parameters that are trained: others have no part in it.

    Weight decay is in it, as in `hvp` and `ggnvp`.

    Args:
        lin: the point, and the batch or the data.
        matrix: "hessian" or "ggn".

    Attributes:
        places: where its rows stand in a flat vector, ascending.
        like: a vector of its size, dtype and device.
        products: how many products have been taken.

    Raises:
        NewtritonError: the matrix is unknown, or the model has no parameters that are trained.
    """

    def __init__(self, lin: Linearized, matrix: str) -> None:
        check_option("matrix", matrix, MATRICES)
        model = lin.model
        self.times = lin.hvp if matrix == "hessian" else lin.ggnvp
        names = [name for of_layer in model.layers.values() for name in of_layer]
        self.places = model.layout.places(names).sort().values.to(model.device)
        self.full, self.like = model.params, model.params[self.places]
        self.products = 0

    def __len__(self) -> int:
        return len(self.like)

    def __call__(self, v: Tensor) -> Tensor:
        """Returns the product with a vector of the matrix's size.

        Raises:
            NewtritonError: it is not finite.
        """
        self.products += 1
        with switches(v.device):
            full = torch.zeros_like(self.full).index_copy_(0, self.places, v)
            product = self.times(full)[self.places]
        if not bool(torch.isfinite(product).all()):
            raise NewtritonError("a product with the matrix was not finite: take smaller steps")
        return product

    def columns(self, vs: Tensor) -> Tensor:
        """Returns the products with the columns of a matrix, as columns."""
        return torch.stack([self(v) for v in vs.unbind(1)], 1)

    def dense(self) -> Tensor:
        """Returns the matrix, a product for each column."""
        columns = self.columns(torch.eye(len(self), out=self.like.new_empty(0)))
        return (columns + columns.mT) / 2


def signs(like: Tensor, columns: int, generator: torch.Generator) -> Tensor:
    """Returns columns of independent signs ±1, of the size of a vector.

    Args:
        like: the vector.
        columns: how many there are.
        generator: what draws them, on the CPU.
    """
    drawn = torch.randint(0, 2, (len(like), columns), generator=generator)
    return (2 * drawn - 1).to(like.device, like.dtype)

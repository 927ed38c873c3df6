"""The Hessian or the Gauss–Newton matrix of h as an operator on the parameters that are trained."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_option
from ...compiler.programs import MATRICES
from .. import capacity
from ..aten.switches import switches
from ..capacity import Item
from ..model.linearized import Linearized
from .linearized_data import check_linearized

HELD = 4  # matrices at a time: units, columns apart and together, their symmetric part
ITERATE = "take what needs products alone: k of the eigenvalues, a density, or a trace"


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
        check_linearized(lin)
        check_option("matrix", matrix, MATRICES)
        self.lin, self.matrix = lin, matrix
        names = [name for of_layer in lin.model.layers.values() for name in of_layer]
        if not names:
            raise NewtritonError("the model has no parameters that are trained: thaw some")
        self.places = lin.model.layout.places(names).sort().values.to(lin.model.device)
        self.like = lin.model.params[self.places]
        self.products = 0

    def __len__(self) -> int:
        return len(self.like)

    def __call__(self, v: Tensor) -> Tensor:
        """Returns the product with a vector of the matrix's size.

        Raises:
            NewtritonError: it is not finite.
        """
        return self.columns(v[:, None])[:, 0]

    def columns(self, vs: Tensor) -> Tensor:
        """Returns the products with vectors, columns of a matrix: of data in one pass.

        Raises:
            NewtritonError: they are not finite.
        """
        self.products += vs.shape[1]
        with switches(vs.device):
            found = self.lin.mean(partial(self._columns, vs))
        if not bool(torch.isfinite(found).all()):
            raise NewtritonError("a product with the matrix was not finite at these parameters")
        return found

    def _columns(self, vs: Tensor, lin: Linearized) -> Tensor:
        """Returns the products with columns at a linearization."""
        times = lin.hvp if self.matrix == "hessian" else lin.ggnvp
        like, places = lin.model.params, self.places
        full = (torch.zeros_like(like).index_copy_(0, places, v) for v in vs.unbind(1))
        return torch.stack([times(v)[places] for v in full], 1)

    def dense(self) -> Tensor:
        """Returns the matrix, a product for each column.

        Raises:
            NewtritonError: it does not fit into the memory that is free.
        """
        size = HELD * len(self) ** 2 * self.like.itemsize
        items = [Item(f"{len(self):,} × {len(self):,} numbers, {HELD} times", size, ITERATE)]
        capacity.check("the matrix", lambda n: items, None, self.like.device)
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

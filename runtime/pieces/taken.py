"""How an optimizer takes batches of a model: as they are, or in pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...compiler.graph.options import check_count
from ...compiler.graph.program import Program
from ...compiler.language.trees import Tree, count
from ...compiler.programs import Programs
from ...compiler.values import Gradient, Losses
from ..inputs.data import read_checked
from ..inputs.dropout import DropoutNumbers
from ..model.linearization import Linearization
from ..model.model import Model
from ..model.objective import completed
from ..parallel.ranks import Ranks
from ..vectors import Vectors
from .cut import CutBatch
from .gathering import Asked
from .linearized import LinearizedPieces


class Pieces:
    """A model whose batches are taken in pieces of a size: what an optimizer needs of a model.

    Loss, gradient, products, forms and factors are those of the whole batch, to rounding. A batch
    that is no larger than a piece is taken as it is.

    Args:
        model: the model.
        size: how many samples a piece has, `micro_batch`.
        asks: says which factors will be asked of the next linearization, if any.

    Raises:
        NewtritonError: the size is no number ≥ 1, or samples are mixed in training.
    """

    def __init__(
        self, model: Model, size: int, asks: Callable[[], Asked | None] = lambda: None
    ) -> None:
        self.model, self.size = model, check_count("micro_batch", size)
        self.asks = asks
        model.part_programs()  # it refuses networks that mix samples

    @property
    def vectors(self) -> Vectors:
        """The model's arithmetic on flat vectors."""
        return self.model.vectors

    @property
    def dropout(self) -> DropoutNumbers:
        """The model's random numbers of what drops out."""
        return self.model.dropout

    @property
    def programs(self) -> Mapping[bool, Programs]:
        """The model's programs of whole batches."""
        return self.model.programs

    @property
    def ranks(self) -> Ranks:
        """The ranks that train the model."""
        return self.model.ranks

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.model.device

    def samples(self, x: Tree) -> int:
        """Returns how many samples a batch has, see `Model.samples`."""
        return self.model.samples(x)

    def _fits(self, x: Tree) -> bool:
        """Whether a batch is taken as it is: ranks, whose parts may differ, all cut theirs."""
        return self.model.parallel is None and count(x) <= self.size

    def count(self, y: Tensor) -> float | Tensor:
        """Returns what weighs a batch in a mean of h over batches, see `Model.count`."""
        return self.model.count(y)

    def linearize(
        self,
        x: Tree,
        y: Tensor,
        *,
        ahead: Callable[[int], Sequence[Program]] | None = None,
        order: Tensor | None = None,
    ) -> Linearization[Model]:
        """Runs forward and backward on each piece, see `Model.linearize`."""
        if self._fits(x):
            return self.model.linearize(x, y, ahead=ahead, order=order)

        def fits() -> None:
            if ahead is not None:
                ahead(self.size)

        known = {"asked": self.asks(), "fits": fits, "order": order}
        return LinearizedPieces(self.model, x, y, self.size, **known)

    def gradient(self, x: Tree, y: Tensor) -> tuple[float, Tensor, dict[str, Tensor]]:
        """Returns h, its flat gradient, and no statistics, see `Model.gradient`."""
        if self._fits(x):
            return self.model.gradient(x, y)
        model, cut = self.model, CutBatch(self.model, x, y, self.size, draw=True)
        program = cut.programs.slopes
        gradient, out = model.layout.target(Gradient, program.outputs, model.params)
        found = cut.run(program, out=out)
        h = completed(model, gradient, *cut.measured(found[Losses()]))
        return h.objective, gradient, {}

    def objective(self, x: Tree, y: Tensor) -> float:
        """Returns h, summed in float64, see `Model.objective`."""
        if self._fits(x):
            return self.model.objective(x, y)
        cut = CutBatch(self.model, x, y, self.size)
        demands, (total, *_) = cut.measured(cut.run(cut.programs.evaluate)[Losses()])
        return float(read_checked(demands, total)[0])


Taken = Model | Pieces  # what an optimizer takes batches with


def taken(
    model: Model, micro_batch: int | None, asks: Callable[[], Asked | None] = lambda: None
) -> Taken:
    """Returns what takes batches of a model: the model itself where there are no pieces."""
    return model if micro_batch is None else Pieces(model, micro_batch, asks)


def described(taken: Taken) -> str | None:
    """Says how batches are taken, for the summary of an optimizer; None for whole ones."""
    return f"in pieces of {taken.size:,} samples" if isinstance(taken, Pieces) else None

"""Where a step could be made last, for a model that has come to where none can."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..pieces.taken import Taken
from .passes import Batch
from .sampling import mean_objective
from .snapshot import Snapshot

if TYPE_CHECKING:
    from torch import Tensor

    from ..model.model import Model


class Retreat:
    """Keeps parameters and running statistics from which a step could be made.

    Args:
        model: the model that is trained.
        taken: what takes its batches; the model itself unless given.
    """

    def __init__(self, model: Model, taken: Taken | None = None) -> None:
        self.model, self._taken = model, model if taken is None else taken
        self._good = Snapshot()
        self._version: int | None = None

    def _values(self) -> dict[str, Tensor]:
        return {"params": self.model.params, **self.model.buffers}

    def keep(self) -> None:
        """Copies the model's values, before it moves from them."""
        self._good.take(self._values())

    def moved(self) -> None:
        """Notes that all changes since `keep` are the optimizer's."""
        self._version = self.model.params._version

    def go_back(self, batches: Iterable[Batch]) -> bool:
        """Goes back where that helps: where the loss of the batches is finite there.

        Returns:
            whether the model has gone back; it never does where others have changed its parameters.
        """
        if self._version != self.model.params._version:
            return False
        here = Snapshot()
        here.take(self._values())
        self._good.restore()
        helps = math.isfinite(mean_objective(self._taken, batches))
        if not helps:
            here.restore()
        return helps

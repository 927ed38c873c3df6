"""Where a step could be made last, for a model that has come to where none can."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..parts.state import Undo, all_of, held
from ..pieces.taken import Taken
from .passes import Batch
from .sampling import mean_objective
from .snapshot import Snapshot

if TYPE_CHECKING:
    from torch import Tensor

    from ..model.model import Model
    from ..parts.protocols import Stateful


class Retreat:
    """Keeps what a step could be made from: parameters, running statistics, parts of an optimizer.

    Args:
        model: the model that is trained.
        parts: the parts that take in batches, which one may have spoilt.
        taken: what takes its batches; the model itself unless given.
    """

    def __init__(
        self, model: Model, parts: Sequence[Stateful] = (), taken: Taken | None = None
    ) -> None:
        self.model, self.parts = model, parts
        self._taken = model if taken is None else taken
        self._good, self._anew = Snapshot(), all_of([*map(held, parts)])
        self.forget()

    def _values(self) -> dict[str, Tensor]:
        return {"params": self.model.params, **self.model.buffers}

    def forget(self) -> None:
        """Gives up what was kept: model and parts have become others."""
        self._version: int | None = None
        self._parts: Undo | None = None

    def begin(self) -> None:
        """Keeps the parts before the first step."""
        if self._parts is None:
            self._parts = all_of([*map(held, self.parts)])

    def keep(self) -> None:
        """Copies the model's values, before it moves from them."""
        self.forget()  # until `moved`: a copy that is interrupted is none
        self.begin()
        self._good.take(self._values())

    def restore(self) -> None:
        """Makes the model what it was when it was kept."""
        self._good.restore()
        self.moved()

    def moved(self) -> None:
        """Notes that all changes since `keep` are the optimizer's."""
        self._version = self.model.params._version
        self.model.publish()

    def go_back(self, batches: Iterable[Batch]) -> bool:
        """Goes back: the parts do, and the model where the loss of the batches is finite there.

        Returns:
            whether the model has gone back; it never does where others have changed its parameters.
        """
        if self._parts is not None:
            self._parts()
            self._parts = self._anew  # where no step follows, the parts begin anew next time
        if self._version != self.model.params._version:
            return False
        here = Snapshot()
        here.take(self._values())
        helps = False
        try:
            self._good.restore()
            helps = math.isfinite(mean_objective(self._taken, batches))
        finally:
            if not helps:
                here.restore()
            self.model.publish()
        return helps

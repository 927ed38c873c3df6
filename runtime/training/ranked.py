"""A run that several ranks train: the first one saves it, and all end it at the same step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import length_hint
from typing import Any

from ...compiler.graph.errors import ADDRESS, NewtritonError
from ..data.samples import Batches
from ..parallel.agreement import check_alike, digest
from ..parallel.ranks import Ranks
from ..parallel.states import completed
from .generations import LAST
from .history import History
from .runs import Resumed, Within
from .saving import Saving

FAILED, NEW, RESUMED = 3, 1, 2  # what became of the first rank's beginning


def check_calls(
    ranks: Ranks, model: Any, optimizer: Any, data: tuple[Any, Any], *options: object
) -> None:
    """Raises the same error on all ranks where they train in different ways.

    Args:
        ranks: the ranks.
        model: the model.
        optimizer: the optimizer that takes the steps.
        data: the data to train on, and to validate on, None for none.
        options: what else is the same on all ranks.

    Raises:
        NewtritonError: names what differs, and on which rank.
    """
    if ranks.alone:
        return
    lengths = [-1 if part is None else length_hint(part) for part in data]
    orders = [_order(part) for part in data]
    facts = {
        "optimizer": _described(optimizer, model),
        "call of fit": repr(options),
        "number of batches": repr(lengths),
        "order of the data, or batch size": repr(orders),
    }
    check_alike(ranks, {what: digest(text) for what, text in facts.items()})


def _described(optimizer: Any, model: Any) -> str:
    """Returns what an optimizer is: all its options where it is one of ours."""
    kind = type(optimizer)
    if not kind.__module__.startswith(__name__.partition(".")[0]):
        return kind.__qualname__
    text = " ".join(str(optimizer).split())  # ranks have models on different devices
    return kind.__qualname__ + ADDRESS.sub("", text.replace(repr(model), ""))


def _order(data: Any) -> object:
    """Returns what the order of data depends on that are divided among ranks."""
    if not isinstance(data, Batches) or data.parallel is None:
        return None
    return type(data).__name__, data.seed, data.shuffle, data.batch_size, len(data.y), data.epoch


@dataclass
class RankedSaving(Saving):
    """Saves a run that ranks train, in a folder that all of them can read.

    What is saved is the same on all ranks, so that any number of them goes on with it.

    Attributes:
        ranks: the ranks.
    """

    ranks: Ranks = field(kw_only=True)

    @contextmanager
    def begun(self, resume: str) -> Iterator[Resumed]:
        """Begins a new run, or goes on with the one in the folder; the first rank alone locks it.

        Raises:
            NewtritonError: as `Saving.begun` raises it on the first rank, which others are told.
        """
        if self.ranks.rank:
            yield self._followed(self.ranks.most(0), resume)
            return
        told = False
        try:
            with super().begun(resume) as resumed:
                self.ranks.most(RESUMED if resumed.history.steps else NEW)
                told = True
                yield resumed
        except Exception:
            if not told:
                self.ranks.most(FAILED)
            raise

    def _followed(self, found: int, resume: str) -> Resumed:
        """Returns where the run stands that the first rank has begun."""
        if found == FAILED:
            raise NewtritonError("rank 0 could not begin the run: its own error says why")
        if found == NEW:
            return Resumed(History())
        which = LAST if resume == "auto" else resume
        return self.folder.load(self.model, self.optimizer, self.data, which)

    def is_due(self) -> bool:
        """Counts a step; whether the run has to be saved after it."""
        self.agree()
        return super().is_due()

    def agree(self) -> None:
        """Lets a signal that one rank has noted be noted by all."""
        self.signal.number = self.ranks.most(self.signal.number or 0) or None

    def save(self, history: History, within: Within | None = None, state: Any = None) -> None:
        """Saves the run, where this is the first rank, with what others have of its state."""
        if within is None:
            self.agree()
        state = completed(self.ranks, self.optimizer.state_dict(), self.model.device)
        if not self.ranks.rank:
            super().save(history, within, state)

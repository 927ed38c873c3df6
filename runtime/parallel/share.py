"""A rank's part of a batch among those of the others, and what all of them must agree on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from .ranks import Listening, Ranks

REFUSED, ENDED = -1.0, -2.0  # what stands for a size


@dataclass(frozen=True)
class Share:
    """The part of a batch that this rank has: the batch is the ranks' parts one after another.

    Attributes:
        here: how many samples it has.
        first: how many come before them.
        samples: how many the whole batch has.
        least: how many the smallest part has that is not empty.
        most: how many the largest part has.
        counted: what the samples here count.
        normaliser: the same of all, by which the sum of the whole batch's losses is divided.
        ranks: the ranks, as one takes part that has so many samples.
        order: where the samples here stand in the whole batch, where they do not follow each other.
    """

    here: int
    first: int
    samples: int
    least: int
    most: int
    counted: float
    normaliser: float
    ranks: Ranks
    order: Tensor | None = None

    @property
    def run(self) -> int:
        """The batch size of programs here: one, where there are no samples, see `Listening`."""
        return max(1, self.here)

    @property
    def weight(self) -> float:
        """The share of the samples."""
        return self.here / self.samples

    @property
    def mean_weight(self) -> float:
        """The share of what counts: the weight of a mean over the samples here."""
        return self.counted / self.normaliser


def share_of(ranks: Ranks, batch: int, counted: float | Tensor, device: torch.device) -> Share:
    """Returns this rank's share of a batch, when all ranks say what they have.

    Args:
        ranks: the ranks.
        batch: how many samples this one has.
        counted: what they count, see `Model.count`.
        device: where what is gathered lies.

    Raises:
        NewtritonError: another rank has refused its part, or nothing counts in the whole batch.
    """
    said = torch.tensor([float(batch), 0.0], dtype=torch.float64, device=device)
    said[1] = counted
    sizes, counts = _heard(ranks, said)
    if sum(counts) <= 0.0:
        raise NewtritonError(
            "no label of the whole batch counts: leave out batches in which all labels are ignored "
            "or of classes of weight 0"
        )
    before = sizes[: ranks.rank]
    ends = int(min(filter(None, sizes))), int(max(sizes))
    known = ranks if batch else Listening(ranks)
    own, total = counts[ranks.rank], sum(counts)
    return Share(batch, int(sum(before)), int(sum(sizes)), *ends, own, total, known)


def ended_together(ranks: Ranks, device: torch.device) -> None:
    """Says that this rank has no more batches.

    Raises:
        NewtritonError: other ranks have some.
    """
    if ranks.alone:
        return
    rows = ranks.gather(torch.tensor([ENDED, 0.0], dtype=torch.float64, device=device)).tolist()
    others = [rank for rank, (size, _) in enumerate(rows) if size != ENDED]
    if others:
        raise _uneven([rank for rank in range(ranks.size) if rank not in others])


def _uneven(ended: list[int]) -> NewtritonError:
    """Returns the error of ranks that have no more batches where others do."""
    names = ", ".join(map(str, ended))
    return NewtritonError(
        f"rank {names} has fewer batches than other ranks: give each as many, of which some may be "
        "empty"
    )


def _heard(ranks: Ranks, said: Tensor) -> tuple[list[float], list[float]]:
    """Returns what all ranks say, or raises an error where one has refused its part."""
    rows = ranks.gather(said).tolist()
    if ended := [rank for rank, (size, _) in enumerate(rows) if size == ENDED]:
        raise _uneven(ended)
    refusing = [rank for rank, (size, _) in enumerate(rows) if size == REFUSED]
    if refusing:
        names = ", ".join(map(str, refusing))
        raise NewtritonError(f"rank {names} refused its part of the batch: its own error says why")
    return [size for size, _ in rows], [count for _, count in rows]


@contextmanager
def refusing(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Tells the other ranks where this one raises an error before its share is known."""
    try:
        yield
    except Exception:
        if not ranks.alone:
            ranks.gather(torch.tensor([REFUSED, 0.0], dtype=torch.float64, device=device))
        raise


def own_part(ranks: Ranks, whole: slice) -> slice:
    """Returns this rank's part of some samples: all parts are of equal sizes, or one apart.

    Examples:
        >>> from newtriton.runtime.parallel.ranks import Ranks
        >>> own_part(Ranks(None), slice(10, 14))
        slice(10, 14, None)
    """
    count = whole.stop - whole.start
    start, stop = (whole.start + count * r // ranks.size for r in (ranks.rank, ranks.rank + 1))
    return slice(start, stop)

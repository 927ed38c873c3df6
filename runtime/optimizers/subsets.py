"""Batches split anew: sets of equal sizes, and a random sample of all rows as the last of them.

Function and gradient are sums over S_1, …, S_R. With the subset of the curvature for S_R, what its
forward pass keeps serves the products as well (Wang, Tan & Lin 2020, section 3.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...compiler.language.trees import Tree, mapped
from ...compiler.language.trees import rows as rows_of
from .passes import Batch


class Subset(NamedTuple):
    """Some samples of the data.

    Attributes:
        x: their inputs.
        y: their labels.
        places: where each stands in the data, int64.
    """

    x: Tree
    y: Tensor
    places: Tensor

    def at(self, index: slice | Tensor) -> Subset:
        """Returns the samples at an index."""
        return Subset(*(rows_of(part, index) for part in self))


class Subsets:
    """The samples of some batches in subsets S_1, …, S_R, of which S_R is drawn at random.

    Each sample is in one of them. The others keep the order of the data; they are of equal sizes,
    or one apart, and none is larger than a batch.

    Args:
        batches: the data.
        lengths: how many samples each batch has.
        share: the share of S_R in all samples; it has one at least.
        generator: what draws it, without replacement.
        disjoint: whether S_R is left out of the others; without it these are the batches as given.
        counts: whether any of some labels counts; of the others those in which none does have no
            part in a mean, and are left out.

    Attributes:
        sizes: how many samples each of the others has.
        sample: S_R, when it has been gone through.

    Examples:
        >>> import torch
        >>> from newtriton.runtime.optimizers.subsets import Subsets
        >>> data, generator = [(torch.eye(4), torch.arange(4))] * 2, torch.Generator()
        >>> [len(y) for _, y, _ in Subsets(data, [4, 4], 0.125, generator)]
        [4, 3, 1]
    """

    def __init__(
        self,
        batches: Iterable[Batch],
        lengths: Sequence[int],
        share: float,
        generator: torch.Generator,
        disjoint: bool = True,
        counts: Callable[[Tensor], bool] = lambda y: True,
    ) -> None:
        self.batches, self.lengths, self.disjoint = batches, lengths, disjoint
        self.counts = counts
        self.sample: Subset | None = None
        total = sum(lengths)
        wanted = max(1, round(share * total))
        order = torch.randperm(total, generator=generator, device=generator.device)
        others = total - wanted
        self._others: list[Tensor] | list[slice]
        if len(lengths) == 1:
            self._drawn, self._others = [order[:wanted]], [order[wanted:].sort().values]
        else:
            order = order.cpu()
            self._drawn = _by_batch(order[:wanted], lengths)
            self._others = _by_batch(order[wanted:], lengths)
        if disjoint:
            count = -(-others // max(lengths))
            self.sizes = [others // count + (i < others % count) for i in range(count)]
        else:
            self._others, self.sizes = [slice(None)] * len(lengths), [*lengths]

    def __iter__(self) -> Iterator[Subset]:
        drawn = list[Subset]()
        for subset in _regrouped(self._passed(drawn), self.sizes):
            if not self.disjoint or self.counts(subset.y):
                yield subset
        self.sample = _joined(drawn)
        yield self.sample

    def _passed(self, drawn: list[Subset]) -> Iterator[Subset]:
        """Yields what the other subsets get of each batch, and collects what S_R gets."""
        start = 0
        rows = zip(self.lengths, self._drawn, self._others, strict=True)
        for batch, (length, of_sample, of_others) in zip(self.batches, rows, strict=True):
            places = torch.arange(start, start + length, device=of_sample.device)
            whole = Subset(*batch, places)
            drawn.append(whole.at(of_sample))
            yield whole.at(of_others)
            start += length


def _by_batch(rows: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """Returns the rows of all batches as rows of each, in their order."""
    sizes = rows.new_tensor(lengths)
    ends, rows = sizes.cumsum(0), rows.sort().values
    inside = torch.searchsorted(rows, ends).diff(prepend=rows.new_zeros(1)).tolist()
    return [part - start for part, start in zip(rows.split(inside), ends - sizes, strict=True)]


def _joined(parts: Sequence[Subset]) -> Subset:
    """Returns samples that came in parts."""
    filled = [part for part in parts if len(part.y)]
    if len(filled) == 1:
        return filled[0]
    xs, ys, places = zip(*filled, strict=True)
    return Subset(mapped(lambda *x: torch.cat(x), *xs), torch.cat(ys), torch.cat(places))


def _regrouped(parts: Iterable[Subset], sizes: Iterable[int]) -> Iterator[Subset]:
    """Yields samples that come in parts in groups of the sizes; all parts are gone through."""
    parts, held = iter(parts), list[Subset]()
    for size in sizes:
        while sum(len(part.y) for part in held) < size:
            held.append(next(parts))
        joined = _joined(held)
        yield joined.at(slice(size))
        held = [joined.at(slice(size, None))]
    for _ in parts:
        pass

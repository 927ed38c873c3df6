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

Part = tuple[int, int]  # of a batch: how many samples come before it, and how many it has


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
        lengths: how many samples each batch has, on all ranks together.
        share: the share of S_R in all samples; it has one at least.
        generator: what draws it, without replacement.
        disjoint: whether S_R is left out of the others; without it these are the batches as given.
        counts: whether any of some labels counts; of the others those in which none does have no
            part in a mean, and are left out.
        parts: the part of each batch that is here, where others are elsewhere; the subsets are then
            what is here of those of all samples.

    Attributes:
        sizes: how many samples each of the others has.
        sample: S_R, when it has been gone through.
        order: where in S_R its samples stand that are here; None where all are.

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
        parts: Sequence[Part] | None = None,
    ) -> None:
        self.batches, self.lengths, self.disjoint = batches, lengths, disjoint
        self.counts = counts
        self.sample: Subset | None = None
        self.order: Tensor | None = None
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
        self._starts = [sum(lengths[:i]) for i in range(len(lengths))]
        if parts is not None:
            self._keep(parts)

    def _keep(self, parts: Sequence[Part]) -> None:
        """Leaves of all rows those that are here."""
        self._starts = [s + first for s, (first, _) in zip(self._starts, parts, strict=True)]
        drawn = list(zip(self._drawn, parts, strict=True))
        self.order = torch.cat([_is_inside(*pair) for pair in drawn]).nonzero().squeeze(1)
        self._drawn = [_inside(*pair) for pair in drawn]
        self.lengths = [here for _, here in parts]
        others = [r for r in self._others if isinstance(r, Tensor)]
        if not others:
            self.sizes = [*self.lengths]
            return
        pairs = list(zip(others, parts, strict=True))
        here = torch.cat([_is_inside(*pair) for pair in pairs])
        self.sizes = [int(group.sum()) for group in here.split(self.sizes)] if self.sizes else []
        self._others = [_inside(*pair) for pair in pairs]

    def __iter__(self) -> Iterator[Subset]:
        drawn = list[Subset]()
        for subset in _regrouped(self._passed(drawn), self.sizes):
            if not self.disjoint or self.counts(subset.y):
                yield subset
        self.sample = _joined(drawn)
        yield self.sample

    def _passed(self, drawn: list[Subset]) -> Iterator[Subset]:
        """Yields what the other subsets get of each batch, and collects what S_R gets."""
        rows = zip(self.lengths, self._starts, self._drawn, self._others, strict=True)
        for batch, (length, start, of_sample, of_others) in zip(self.batches, rows, strict=True):
            places = torch.arange(start, start + length, device=of_sample.device)
            whole = Subset(*batch, places)
            drawn.append(whole.at(of_sample))
            yield whole.at(of_others)


def _by_batch(rows: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """Returns the rows of all batches as rows of each, in their order."""
    sizes = rows.new_tensor(lengths)
    ends, rows = sizes.cumsum(0), rows.sort().values
    inside = torch.searchsorted(rows, ends).diff(prepend=rows.new_zeros(1)).tolist()
    return [part - start for part, start in zip(rows.split(inside), ends - sizes, strict=True)]


def _inside(rows: Tensor, part: Part) -> Tensor:
    """Returns the rows of a batch that are in a part of it, as rows of that."""
    return rows[_is_inside(rows, part)] - part[0]


def _is_inside(rows: Tensor, part: Part) -> Tensor:
    """Returns which rows of a batch are in a part of it."""
    first, here = part
    return (rows >= first) & (rows < first + here)


def _joined(parts: Sequence[Subset]) -> Subset:
    """Returns samples that came in parts."""
    filled = [part for part in parts if len(part.y)]
    if len(filled) < 2:
        return filled[0] if filled else parts[0]
    xs, ys, places = zip(*filled, strict=True)
    return Subset(mapped(lambda *x: torch.cat(x), *xs), torch.cat(ys), torch.cat(places))


def _regrouped(parts: Iterable[Subset], sizes: Iterable[int]) -> Iterator[Subset]:
    """Yields samples that come in parts in groups of the sizes; all parts are gone through."""
    parts, held = iter(parts), list[Subset]()
    for size in sizes:
        while not held or sum(len(part.y) for part in held) < size:
            held.append(next(parts))
        joined = _joined(held)
        yield joined.at(slice(size))
        held = [joined.at(slice(size, None))]
    for _ in parts:
        pass

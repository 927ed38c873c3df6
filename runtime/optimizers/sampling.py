"""A step's starting point over many batches: h and gradient of all, curvature on a sample.

Function and gradient go through the data in mini-batches, so that the memory is a mini-batch's, and
the last one is the sample of the curvature (Wang, Tan & Lin 2020, sections 3.1 and 3.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.program import Program
from ...compiler.language.trees import Tree, count, is_several
from ..model.linearization import Linearization
from ..pieces.taken import Taken
from ..reading import largest_of, read, remember
from .passes import Batch, Passes, check_batches, pair
from .subsets import Part, Subset, Subsets

B = TypeVar("B", Batch, Subset)
Piece = tuple[float | Tensor, float, Tensor, Mapping[str, Tensor]]  # share, h, gradient, statistics


def as_batches(x: Tree | Iterable[Batch], y: Tensor | None) -> Iterable[Batch]:
    """Returns the batch alone, or data that give the same batches in each pass of a step.

    Raises:
        NewtritonError: inputs come without labels, or the data are no batches, or can be passed
            through only once.
    """
    if y is not None:
        return [(x, y)]  # type: ignore[list-item] - the model looks at them
    if isinstance(x, Tensor) or is_several(x):
        raise NewtritonError("step(x) got inputs without labels: step(x, y)")
    if isinstance(x, Iterator):
        raise NewtritonError(
            f"data is a one-shot iterator ({type(x).__name__}): give a list or a loader"
        )
    return Passes(check_batches(x))


def weighted(model: Taken, batches: Iterable[B]) -> Iterator[tuple[B, float | Tensor]]:
    """Yields batches, each with its share of what counts in it and in those before it.

    A mean over batches moves to each by its share, wholly to the first: a batch alone is exact, and
    what counts in it is not asked for.
    """
    first: Tensor | None = None
    total: float | Tensor | None = None
    for batch in batches:
        y = batch[1]
        if first is None:
            first = y
            yield batch, 1.0
            continue
        counted = model.count(y)
        total = (model.count(first) if total is None else total) + counted
        yield batch, counted / total


def mean_gradient(
    model: Taken, batches: Iterable[Batch]
) -> tuple[float, Tensor, list[Mapping[str, Tensor]]]:
    """Returns the means of h and its gradient over all that counts in the batches.

    Returns:
        the mean of h, that of its gradient (flat), and the statistics of each batch.

    Raises:
        NewtritonError: there are no batches.
    """

    def parts() -> Iterator[Piece]:
        before, last = 0, None
        for (x, y), share in weighted(model, batches):
            before += _samples(model, last)
            with nullcontext() if last is None else model.dropout.kept(before):
                found = model.gradient(x, y)
            yield share, *found
            last = x

    return _mean(parts())


def _mean(parts: Iterable[Piece]) -> tuple[float, Tensor, list[Mapping[str, Tensor]]]:
    """Returns the means of h and its gradient over parts, and the statistics of each."""
    loss: float | Tensor = 0.0
    gradient, statistics = None, []
    for share, part, slope, of_batch in parts:
        loss = loss + (part - loss) * share
        if gradient is None:
            gradient = slope
        else:
            weight = share.to(slope.dtype) if isinstance(share, Tensor) else share
            bound = np.maximum(largest_of(gradient), largest_of(slope))  # of all between them
            remember(gradient.lerp_(slope, weight), float(bound))
        statistics.append(of_batch)
    if gradient is None:
        raise NewtritonError("the data have no batches: give at least one")
    return _number(loss), gradient, statistics


def mean_objective(model: Taken, batches: Iterable[Batch]) -> float:
    """Returns the mean of h over all that counts in the batches."""
    before, last = 0, None
    loss: float | Tensor = 0.0
    for (x, y), share in weighted(model, batches):
        before += _samples(model, last)
        with model.dropout.kept(before):
            part = model.objective(x, y)
        last = x
        loss = loss + (part - loss) * share
    return _number(loss)


def _samples(model: Taken, x: Tree | None) -> int:
    """Returns how many samples a batch has, 0 without one; nobody asks where nothing drops out."""
    return 0 if x is None or not model.dropout.sites else model.samples(x)


def _number(value: float | Tensor) -> float:
    """Returns a number that may be on a device."""
    return float(read(value)[0]) if isinstance(value, Tensor) else value


def _of_all(model: Taken, lengths: list[int]) -> tuple[list[int], list[Part] | None]:
    """Returns how many samples batches have, and where in them are those that this rank has.

    Raises:
        NewtritonError: ranks have different numbers of batches.
    """
    ranks, device = model.ranks, model.device
    if ranks.alone:
        return lengths, None
    batches = ranks.gather(torch.tensor([len(lengths)], device=device)).flatten().tolist()
    if len(set(batches)) > 1:
        raise NewtritonError(
            f"ranks have {', '.join(map(str, batches))} batches: give each as many, of which some "
            "may be empty"
        )
    found = ranks.gather(torch.tensor(lengths, device=device)).cpu()
    firsts = found[: ranks.rank].sum(0)
    return found.sum(0).tolist(), list(zip(firsts.tolist(), lengths, strict=True))


def _length(x: Tree, y: Tensor) -> int:
    """Returns how many samples a batch has.

    Raises:
        NewtritonError: it has not as many labels as inputs.
    """
    length = count(x)
    if len(y) != length:
        raise NewtritonError(f"a batch has {length} inputs and {len(y)} labels: give it as many")
    return length


class Sampled:
    """A point with objective and gradient of all batches, and second-order calls on a sample.

    The sample is the last of the subsets that function and gradient go through, see `Subsets`: its
    forward pass serves the products, and no sample takes part in two. Where batch statistics mix
    samples, subsets would make another function of the batches: the sample is then linearized
    besides.

    Args:
        model: the model at whose parameters the point is, or what takes its batches in pieces.
        batches: all data, passed through twice.
        share: the share of the samples that curvature is taken on.
        generator: what draws them.
        ahead: gives the programs that will run on the sample, see `Model.linearize`.

    Attributes:
        objective: the mean of h over all batches.
        count: the number of samples in them.
        gradient: its gradient, flat.
        statistics: the statistics of each batch, for `Model.update_statistics`.
        vectors: the arithmetic on flat vectors.
        second: the linearization on the sample.

    Raises:
        NewtritonError: there are no batches.
    """

    second: Linearization

    def __init__(
        self,
        model: Taken,
        batches: Iterable[Batch],
        share: float,
        generator: torch.Generator,
        ahead: Callable[[int], Sequence[Program]] | None = None,
    ) -> None:
        lengths = [_length(*pair(batch)) for batch in batches]
        if not lengths:
            raise NewtritonError("the data have no batches: give at least one")
        lengths, parts = _of_all(model, lengths)
        if 0 in lengths:  # a rank may have none of a batch, all together must have some
            raise NewtritonError("a batch has 0 inputs and 0 labels: give each at least one")
        self.vectors, self.count = model.vectors, float(sum(lengths))
        disjoint = not model.programs[True].traced.mixes_samples

        def counts(y: Tensor) -> bool:
            return _number(model.count(y)) > 0.0

        subsets = Subsets(batches, lengths, share, generator, disjoint, counts, parts)
        model.dropout.draw()
        self.objective, self.gradient, self.statistics = _mean(self._parts(model, subsets, ahead))

    def _parts(
        self,
        model: Taken,
        subsets: Subsets,
        ahead: Callable[[int], Sequence[Program]] | None,
    ) -> Iterator[Piece]:
        """Yields what the subsets contribute to the means; the last is linearized and kept."""
        for subset, share in weighted(model, subsets):
            x, y, places = subset
            with model.dropout.kept(places):
                if subset is not subsets.sample:
                    found = model.gradient(x, y)
                else:
                    second = self.second = model.linearize(x, y, ahead=ahead, order=subsets.order)
                    found = second.objective, second.gradient, second.statistics
            if subset is not subsets.sample or subsets.disjoint:
                yield share, *found

    def quadratic_forms(self, vs: Sequence[Tensor], curvature: str = "hessian") -> Tensor:
        """Returns the forms vᵢᵀ C vⱼ of the sample's curvature, k×k."""
        return self.second.quadratic_forms(vs, curvature)

    def hides(self, change: float) -> bool:
        """Whether rounding may be all of a change of h, as it is on the sample."""
        return self.second.hides(change)

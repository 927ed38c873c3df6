"""A step's starting point over many batches: h and gradient of all, curvature on a sample.

Function and gradient go through the data in mini-batches, so that the memory is a mini-batch's
(Wang, Tan & Lin 2020, section 3.5); the curvature is that of a share of the samples (section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.program import Program
from ...compiler.language.trees import Tree, count, is_several, mapped
from ...compiler.language.trees import rows as rows_of
from ..model.linearization import Linearization
from ..reading import read
from .passes import Batch, Passes

if TYPE_CHECKING:
    from ..model.model import Model


def as_batches(x: Tree | Iterable[Batch], y: Tensor | None) -> Iterable[Batch]:
    """Returns the batch alone, or data that give the same batches in each pass of a step.

    Raises:
        NewtritonError: inputs come without labels, or the data can be passed through only once.
    """
    if y is not None:
        return [(x, y)]  # type: ignore[list-item]
    if isinstance(x, Tensor) or is_several(x):
        raise NewtritonError("step(x) got inputs without labels: step(x, y)")
    if isinstance(x, Iterator):
        raise NewtritonError(
            f"data is a one-shot iterator ({type(x).__name__}): give a list or a loader"
        )
    return Passes(x)  # type: ignore[arg-type]


def weighted(model: Model, batches: Iterable[Batch]) -> Iterator[tuple[Batch, float | Tensor]]:
    """Yields batches, each with its share of what counts in it and in those before it.

    A mean over batches moves to each by its share, wholly to the first: a batch alone is exact, and
    what counts in it is not asked for.
    """
    first: Tensor | None = None
    total: float | Tensor | None = None
    for x, y in batches:
        if first is None:
            first = y
            yield (x, y), 1.0
            continue
        counted = model.count(y)
        total = (model.count(first) if total is None else total) + counted
        yield (x, y), counted / total


def mean_gradient(
    model: Model, batches: Iterable[Batch]
) -> tuple[float, Tensor, list[dict[str, Tensor]]]:
    """Returns the means of h and its gradient over all that counts in the batches.

    Returns:
        the mean of h, that of its gradient (flat), and the statistics of each batch.

    Raises:
        NewtritonError: there are no batches.
    """
    samples = 0
    loss: float | Tensor = 0.0
    gradient, statistics = None, []
    for (x, y), share in weighted(model, batches):
        with model.dropout.kept(samples) if samples else nullcontext():
            part, slope, of_batch = model.gradient(x, y)
        samples += count(x)
        loss = loss + (part - loss) * share
        if gradient is None:
            gradient = slope
        else:
            weight = share.to(slope.dtype) if isinstance(share, Tensor) else share
            gradient.lerp_(slope, weight)
        statistics.append(of_batch)
    if gradient is None:
        raise NewtritonError("the data have no batches: give at least one")
    return _number(loss), gradient, statistics


def mean_objective(model: Model, batches: Iterable[Batch]) -> float:
    """Returns the mean of h over all that counts in the batches."""
    samples = 0
    loss: float | Tensor = 0.0
    for (x, y), share in weighted(model, batches):
        with model.dropout.kept(samples):
            part = model.objective(x, y)
        samples += count(x)
        loss = loss + (part - loss) * share
    return _number(loss)


def _number(value: float | Tensor) -> float:
    """Returns a number that may be on a device."""
    return float(read(value)[0]) if isinstance(value, Tensor) else value


def draw(
    batches: Iterable[Batch], share: float, generator: torch.Generator, lengths: Sequence[int]
) -> Batch:
    """Draws a share of all samples, at least one, without replacement, as one batch.

    Args:
        batches: the data, of which no more than the sample is kept.
        share: the share of the sample.
        generator: what draws it.
        lengths: how many samples each batch has.
    """
    total = sum(lengths)
    wanted = max(1, round(share * total))
    rows = torch.randperm(total, generator=generator, device=generator.device)[:wanted]
    parts = [rows]
    if len(lengths) > 1:
        rows = rows.sort().values.cpu()
        sizes = rows.new_tensor(lengths)
        ends = sizes.cumsum(0)
        inside = torch.searchsorted(rows, ends).diff(prepend=rows.new_zeros(1)).tolist()
        starts = (ends - sizes).tolist()
        parts = [part - a for part, a in zip(rows.split(inside), starts, strict=True)]
    pairs = zip(parts, batches, strict=True)
    drawn = [(rows_of(x, part), rows_of(y, part)) for part, (x, y) in pairs if len(part)]
    xs, ys = zip(*drawn, strict=True)
    return mapped(lambda *parts: torch.cat(parts), *xs), torch.cat(ys)


def _counted(batches: Iterable[Batch], lengths: list[int]) -> Iterator[Batch]:
    """Yields the batches, and notes how many samples each has."""
    for x, y in batches:
        lengths.append(count(x))
        yield x, y


class Sampled:
    """A point with objective and gradient of all batches, and second-order calls on a sample.

    Args:
        model: the model at whose parameters the point is.
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
    """

    def __init__(
        self,
        model: Model,
        batches: Iterable[Batch],
        share: float,
        generator: torch.Generator,
        ahead: Callable[[int], Sequence[Program]] | None = None,
    ) -> None:
        lengths: list[int] = []
        noted = _counted(batches, lengths)
        self.objective, self.gradient, self.statistics = mean_gradient(model, noted)
        self.vectors = model.vectors
        self.count = float(sum(lengths))
        sample = draw(batches, share, generator, lengths)
        with model.dropout.kept():
            self.second: Linearization = model.linearize(*sample, ahead=ahead)

    def quadratic_forms(self, vs: Sequence[Tensor], curvature: str = "hessian") -> Tensor:
        """Returns the forms vᵢᵀ C vⱼ of the sample's curvature, k×k."""
        return self.second.quadratic_forms(vs, curvature)

    def hides(self, change: float) -> bool:
        """Whether rounding may be all of a change of h, as it is on the sample."""
        return self.second.hides(change)

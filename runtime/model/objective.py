"""h, the mean loss plus weight decay: of what programs give, on one rank or on all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...compiler.graph.errors import quoted
from ...compiler.graph.program import Output
from ...compiler.values import Counted, Labels, Losses
from ..inputs.data import Demand, read_checked
from ..parallel.share import Share
from ..vectors import inner_products
from .compiled import Compiled
from .statistics import variances


def counted(model: Compiled, labels: Tensor, batch: int) -> float | Tensor:
    """Returns what labels that have been checked count here."""
    program = model.programs[True].counted
    if not program.outputs:
        return float(batch * model.positions)
    given = {**model.constants, Labels(): labels}
    return model.runner.run(program, batch, given)[Counted()].double()


def total(model: Compiled, losses: Tensor, counted: Tensor | None = None) -> Tensor:
    """Returns h, a scalar in float64: the mean of the losses plus λ/2 ‖θ‖².

    Args:
        model: whose parameters θ are, and λ.
        losses: those of the samples.
        counted: what their sum is divided by, where labels decide that.
    """
    if counted is not None:
        mean = losses.double().sum() / counted.double()
    else:
        mean = losses.double().mean()
        mean = mean if model.positions == 1 else mean / model.positions
    return _with_decay(model, mean)


def _with_decay(model: Compiled, mean: Tensor) -> Tensor:
    """Returns a mean loss plus λ/2 ‖θ‖²."""
    if not model.weight_decay:
        return mean
    squares = [inner_products([model.params[run]])[0] for run in model.trained]
    return mean + 0.5 * model.weight_decay * sum(squares)


def _measured(model: Compiled, found: Mapping[Output, Tensor]) -> tuple[list[Demand], list[Tensor]]:
    """Returns what must be of the labels that count, and h with what divides its losses.

    The latter is left out where no label has a say in it.
    """
    count = found.get(Counted())
    h = total(model, found[Losses()], count)
    if count is None:
        return [], [h]
    sentence = (
        f"no label of the batch counts for {quoted(model.criterion)}: leave out batches in "
        "which all labels are ignored or of classes of weight 0"
    )
    return [Demand(~(count > 0.0), lambda: sentence)], [h, count]


def summed(
    model: Compiled,
    found: Mapping[Output, Tensor],
    demands: Sequence[Demand],
    share: Share | None,
    *flat: Tensor,
) -> tuple[list[Demand], list[Tensor]]:
    """Returns all demands, and h of the batch, of which ranks may have parts.

    Behind h stands what divides its losses, where labels have a say in it on one rank.

    Args:
        model: the model.
        found: the results of a program.
        demands: what the values of this rank's part must be.
        share: this rank's share of the batch; None for all of it.
        flat: what is summed over ranks besides, in place.
    """
    if share is None:
        broken, numbers = _measured(model, found)
        return [*demands, *broken], numbers
    flags = [demand.broken.reshape(1).double() for demand in demands]
    numbers = torch.cat([found[Losses()].double().sum().reshape(1), *flags])
    share.ranks.sum_(*flat, numbers)
    h = _with_decay(model, numbers[0] / share.normaliser)
    everywhere = zip(demands, numbers[1:], strict=True)
    return [_of_all(demand, flag > 0.0) for demand, flag in everywhere], [h]


def _of_all(demand: Demand, broken: Tensor) -> Demand:
    """Returns the demand that no rank's values break a demand."""

    def sentence() -> str:
        own = bool(demand.broken)
        return demand.sentence() if own else "another rank's part of the batch: its error says why"

    return Demand(broken, sentence)


class Evaluated(NamedTuple):
    """h at a point.

    Attributes:
        loss: h, a scalar in the model's dtype.
        objective: the same as a float, summed in float64.
        counted: what the sum of the losses is divided by, where labels decide that on one rank.
    """

    loss: Tensor
    objective: float
    counted: float | None


def completed(
    model: Compiled,
    gradient: Tensor,
    demands: Sequence[Demand],
    numbers: Sequence[Tensor],
    statistics: Mapping[str, Tensor] | None = None,
) -> Evaluated:
    """Makes the data term's gradient that of h, in place, and reads h, in one transfer.

    Args:
        model: the model.
        gradient: the flat gradient.
        demands: what the values of the batch must be, of `summed`.
        numbers: h, and what may stand behind it, of `summed`.
        statistics: the batch's.

    Raises:
        NewtritonError: a demand is not met.
    """
    decay_(model, gradient, model.params)
    largest = gradient, model.params, *variances(statistics or {})
    objective, *divisor = read_checked(demands, *numbers, largest=largest)
    counted = float(divisor[0]) if divisor else None
    return Evaluated(numbers[0].to(model.dtype), float(objective), counted)


def decay_(model: Compiled, vector: Tensor, point: Tensor) -> Tensor:
    """Adds λ times `point` to a product or gradient of the data term, in place.

    Frozen parameters have no part in it.
    """
    for run in model.trained if model.weight_decay else ():
        vector[run].add_(point[run], alpha=model.weight_decay)
    return vector

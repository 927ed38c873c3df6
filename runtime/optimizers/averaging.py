"""The Polyak average of the parameters (Martens & Grosse 2015; Botev et al. 2017, appendix B.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_number
from ..parts.state import Attributes, Maybe, Number, Shaped, Spec

if TYPE_CHECKING:
    from ..model.model import Model


class PolyakAverage(Attributes):
    """The average θ̂_t = β_t θ̂_{t−1} + (1 − β_t) θ_t with β_t = min(decay, 1 − 1/t).

    It is the plain mean at first, and has no effect on training (Martens & Grosse 2015; Botev et
    al. 2017, appendix B.4).

    Args:
        decay: the largest β, 0 ≤ β < 1.

    Attributes:
        mean: θ̂, flat; None before the first update.
        steps: t, the count of updates.

    Raises:
        NewtritonError: the decay is out of its range.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> average = nt.PolyakAverage(0.95)
        >>> for step in range(3):
        ...     average.update(torch.tensor([float(step)]))
        >>> average.mean
        tensor([1.])
    """

    STATE: ClassVar[tuple[str, ...]] = ("mean", "steps")

    def __init__(self, decay: float = 0.95) -> None:
        self.decay = check_number("average", decay, 0.0, below=1.0)
        self.mean: Tensor | None = None
        self.steps = 0

    def state_spec(self, model: Model) -> Mapping[str, Spec]:
        """Returns the specification of the average and of the count of what is in it."""
        return {
            "mean": Maybe(Shaped((model.layout.numel,), model.dtype)),
            "steps": Number(int, 0),
        }

    def update(self, params: Tensor) -> None:
        """Takes in the parameters θ_t after a step."""
        self.steps += 1
        if self.mean is None:
            self.mean = params.clone()
        else:
            self.mean = self.mean.lerp(params, 1.0 - min(self.decay, 1.0 - 1.0 / self.steps))

    @contextmanager
    def in_place(self, model: Model) -> Iterator[None]:
        """Puts the average into `model.params` inside a `with` statement, for an evaluation.

        Running statistics of batch norm stay those of the parameters themselves.
        """
        if self.mean is None:
            yield
            return
        trained = model.params.clone()
        with torch.no_grad():
            model.params.copy_(self.mean)
            model.publish()
        try:
            yield
        finally:
            with torch.no_grad():
                model.params.copy_(trained)
                model.publish()


@runtime_checkable
class Averaged(Protocol):
    """An average of the parameters, see `PolyakAverage`."""

    def in_place(self, model: Any) -> AbstractContextManager[None]:
        """Puts the average in the place of the parameters, inside a `with` statement."""
        ...


def average_of(optimizer: object) -> Averaged:
    """Returns the average of the parameters that an optimizer keeps.

    Raises:
        NewtritonError: it keeps none.
    """
    average = getattr(optimizer, "average", None)
    if not isinstance(average, Averaged):
        raise NewtritonError(
            f"{type(optimizer).__name__} keeps no average of the parameters: make it with one, as "
            "in KFRA(model, average=0.95), or leave average out"
        )
    return average

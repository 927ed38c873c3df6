"""Batches as they come, a tensor, an array or several of them, on the device of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.tensors import check_tensor
from ...compiler.language.trees import is_several, mapped, named, rebuilt


class Placed(Protocol):
    """What has to be known of a model; its `integers`, if any, are inputs that stay integers."""

    @property
    def device(self) -> torch.device:
        """The device to which batches are moved."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype to which inputs are converted."""
        ...


def moved(batch: Any, model: Placed) -> tuple[Any, Tensor]:
    """Returns a batch on the model's device, its numbers (not its classes) in the model's dtype.

    Inputs that the model takes as integers stay integers.

    Raises:
        NewtritonError: it is no pair (x, y).
    """
    try:
        x, y = batch
        x = mapped(_tensor, x) if is_several(x) else _tensor(x)
        y = _tensor(y)
    except Exception as error:  # whatever a user's data do
        raise NewtritonError(
            f"a batch is a {type(batch).__name__} that is no pair of tensors (x, y), x being a "
            f"tensor or a tuple or a dictionary of them: {' '.join(str(error).split())[:200]}"
        ) from error
    integers = getattr(model, "integers", frozenset())
    values = dict[str, Tensor]()
    for name, part in named(x).items():
        keeps = name in integers and part.is_floating_point()  # which the model refuses
        wanted = torch.int64 if name in integers else model.dtype
        values[name] = part.to(model.device, part.dtype if keeps else wanted)
    y_dtype = model.dtype if y.is_floating_point() else y.dtype
    return rebuilt(x, values), y.to(model.device, y_dtype)


def _tensor(values: Any) -> Tensor:
    """Returns what an array or a list holds as a tensor; a tensor stays where it is."""
    found = values if isinstance(values, Tensor) else torch.as_tensor(values, device="cpu")
    return check_tensor("the values", found)


class Moved:
    """Data whose batches come on the model's device; all else is as it is in the data.

    Args:
        data: the batches.
        model: the model.
    """

    def __init__(self, data: Iterable[Any], model: Placed) -> None:
        self.data, self.model = data, model

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        return (moved(batch, self.model) for batch in self.data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

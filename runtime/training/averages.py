"""The average of the parameters that an optimizer may keep."""

from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from ...compiler.graph.errors import NewtritonError


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

"""What a network takes: the shape and kind of each of its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

from ..graph.errors import NewtritonError, quoted
from ..graph.options import check_mapping, check_option
from ..graph.tensors import check_tensor

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("float", "int")


@dataclass(frozen=True)
class InputSpec:
    """What one input of a network is.

    Args:
        shape: the shape of one sample, (C, H, W) of an image, (D,) of features, (T,) of a sequence
            of token ids.
        kind: "float" for numbers of the model's dtype; "int" for int64, as token ids are, and for
            booleans.

    Raises:
        NewtritonError: the shape is none, or the kind is unknown.

    Examples:
        >>> import newtriton as nt
        >>> nt.InputSpec((64,), "int")
        InputSpec(shape=(64,), kind='int')
    """

    shape: tuple[int, ...]
    kind: str = "float"

    @classmethod
    def of(cls, x: Tensor) -> InputSpec:
        """Returns the specification of an input of which x is a batch: int64 and bool are ints."""
        x = check_tensor("the inputs", x)
        if x.ndim == 0:
            raise NewtritonError("the inputs are a number: give a tensor with the batch first")
        integers = str(x.dtype) in ("torch.int64", "torch.bool")
        return cls(tuple(x.shape[1:]), "int" if integers else "float")

    def __post_init__(self) -> None:
        given = self.shape
        shape = tuple(given) if isinstance(given, (tuple, list)) else (given,)
        if not all(isinstance(d, Integral) and 0 < int(d) < 1 << 31 for d in shape):
            raise NewtritonError(
                f"input_shape is {quoted(given)}: give the shape of one sample, "
                "e.g. (C, H, W) or (D,)"
            )
        object.__setattr__(self, "shape", tuple(map(int, shape)))
        check_option("kind", self.kind, KINDS)


def specifications(given: Any) -> Any:
    """Returns specifications from shapes or specifications: one, a tuple or a dictionary of them.

    Raises:
        NewtritonError: there is something else among them.
    """
    if isinstance(given, (tuple, list)) and not any(_is_one(part) for part in given):
        return InputSpec(tuple(given))
    if not isinstance(given, (Mapping, tuple, list)):
        return _specification(given)
    if isinstance(given, Mapping):
        shapes = check_mapping("input_shape", given)
        return {name: _specification(part) for name, part in shapes.items()}
    return tuple(_specification(part) for part in given)


def _is_one(part: object) -> bool:
    """Whether a part of a tuple specifies an input of its own, and is no size."""
    return isinstance(part, (InputSpec, tuple, list))


def _specification(given: Any) -> InputSpec:
    """Returns the specification that a shape stands for."""
    return given if isinstance(given, InputSpec) else InputSpec(given)

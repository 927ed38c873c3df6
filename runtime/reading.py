"""Numbers that come over from the device of the tensors together, in one transfer.

A transfer waits for all that was launched before it. So what the host decides on stays on the
device until a step needs it, and then `read` brings all of it. The largest element of a tensor,
which says whether all are finite, may come along and is remembered until the tensor changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.utils.weak import WeakIdKeyDictionary

Array = NDArray[np.float64]

SMALL = 1 << 16  # elements up to which a copy costs less than a call for each tensor
_REMEMBERED = WeakIdKeyDictionary()  # a tensor → its version and its largest element


def read(*numbers: Tensor, largest: Sequence[Tensor] = ()) -> list[Array]:
    """Returns tensors of one device as float64 arrays of their shapes, in one transfer.

    Args:
        numbers: small tensors.
        largest: tensors whose largest element comes along, for `largest_of`.

    Examples:
        >>> import torch
        >>> from newtriton.runtime.reading import read
        >>> count, pair = read(torch.tensor(3), torch.tensor([0.5, 2.0]))
        >>> float(count), pair.tolist()
        (3.0, [0.5, 2.0])
    """
    launched = [*numbers, *map(_largest, largest)]
    if not launched:
        return []
    flat = _numbers(torch.cat([x.reshape(-1).double() for x in launched]))
    found, start = list[Array](), 0
    for x in launched:
        stop = start + x.numel()
        found.append(flat[start:stop].reshape(x.shape))
        start = stop
    for tensor, value in zip(largest, found[len(numbers) :], strict=True):
        remember(tensor, float(value))
    return found[: len(numbers)]


def _numbers(flat: Tensor) -> Array:
    """Returns a vector's numbers; zeros where it has none, while memory is counted."""
    return np.zeros(len(flat)) if flat.is_meta else np.array(flat.tolist())


def remember(tensor: Tensor, bound: float) -> None:
    """Notes a number that no |xᵢ| exceeds, for `largest_of`, until the tensor changes."""
    if not tensor.is_inference():  # such tensors do not tell when they change
        _REMEMBERED[tensor] = (tensor._version, bound)


def largest_of(tensor: Tensor) -> float:
    """Returns max |xᵢ|, NaN where an element is, or the bound of it that is remembered.

    No transfer is made where `read` brought it along, or a bound is known.

    Examples:
        >>> import torch
        >>> from newtriton.runtime.reading import largest_of
        >>> largest_of(torch.tensor([1.0, -3.0]))
        3.0
    """
    if is_known(tensor):
        return _REMEMBERED[tensor][1]
    return float(read(_largest(tensor))[0])


def is_known(tensor: Tensor) -> bool:
    """Whether `largest_of` needs no transfer."""
    known = None if tensor.is_inference() else _REMEMBERED.get(tensor)
    return known is not None and known[0] == tensor._version


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Returns whether all elements of all tensors are finite, in one transfer."""
    tensors = list(tensors)
    if tensors[0].device.type == "cpu" and sum(x.numel() for x in tensors) < SMALL:
        return math.isfinite(read(_largest(torch.cat([x.reshape(-1) for x in tensors])))[0])
    if tensors[0].device.type == "cpu":
        return math.isfinite(read(torch.stack([*map(_largest, tensors)]).amax())[0])
    return math.isfinite(read(get_total_norm(tensors, math.inf))[0])


def finite(tensor: Tensor) -> Tensor:
    """Returns whether all elements are finite, a scalar on the tensor's device."""
    return _largest(tensor).isfinite()


def upload(values: Sequence[float], like: Tensor) -> Tensor:
    """Returns numbers as a vector of the dtype and on the device of `like`.

    They go as arguments of launches: nothing is copied from the host's memory.
    """
    result = torch.empty(len(values), dtype=like.dtype, device=like.device)
    for place, value in zip(result, values, strict=True):
        place.fill_(value)
    return result


def _largest(tensor: Tensor) -> Tensor:
    """Returns max |xᵢ| on the device, NaN where an element is."""
    if not tensor.numel():
        return tensor.new_zeros((), dtype=torch.float64)
    if tensor.device.type == "cpu":  # PyTorch's norm takes twenty times as long there
        low, high = torch.aminmax(tensor)
        return torch.maximum(high, -low)
    return torch.linalg.vector_norm(tensor, math.inf)

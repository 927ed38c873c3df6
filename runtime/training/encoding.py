"""A state as tensors by name and JSON: nested dictionaries, lists, numbers and text, and no code.

A dictionary whose keys are text is an object. Everything else that JSON does not have is an object
of one key: `$tensor`, `$parameters`, `$items`, `$tuple`, `$counter`, `$array`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError

Views = Callable[[Tensor], Mapping[str, Tensor]]  # of a flat vector, one for each parameter
MARK = "$"
PLAIN = "biufU"  # NumPy's kinds of booleans, integers, floats and text
ITEM = 1 << 16  # bytes of an element of an array, at most


class Encoder:
    """Makes JSON of a state, and keeps its tensors.

    Args:
        numel: the number of elements of the parameters: a vector of as many is saved by parameter.
        views: the views of such a vector, by the parameters' names.

    Attributes:
        tensors: the tensors found so far, contiguous and on the host, by their place in the state.
    """

    def __init__(self, numel: int = 0, views: Views | None = None) -> None:
        self.numel, self.views = numel, views
        self.tensors: dict[str, Tensor] = {}

    def __call__(self, value: Any, place: str) -> Any:
        """Returns a value as JSON has it.

        Raises:
            NewtritonError: it is none that a state may hold; the error names its place.
        """
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, (int, float)):
            return int(value) if isinstance(value, int) else float(value)
        if isinstance(value, Tensor):
            return self._tensor(value.detach(), place)
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.ndarray):
            return {"$array": [str(value.dtype), value.shape, value.ravel().tolist()]}
        if isinstance(value, (list, tuple)):
            parts = [self(part, f"{place}.{i}") for i, part in enumerate(value)]
            return parts if isinstance(value, list) else {"$tuple": parts}
        if isinstance(value, Mapping):
            return self._mapping(value, place)
        raise NewtritonError(
            f"{place} is a {type(value).__name__}, which a checkpoint cannot hold: give a state of "
            "tensors, numbers, text, lists and dictionaries"
        )

    def _mapping(self, value: Mapping[Any, Any], place: str) -> Any:
        """Returns a dictionary, in its order."""
        plain = all(isinstance(name, str) and not name.startswith(MARK) for name in value)
        if plain and not isinstance(value, Counter):
            return {str(name): self(part, f"{place}.{name}") for name, part in value.items()}
        kind = "$counter" if isinstance(value, Counter) else "$items"
        return {kind: [[self(n, place), self(p, f"{place}.{n}")] for n, p in value.items()]}

    def _tensor(self, tensor: Tensor, place: str) -> dict[str, Any]:
        """Keeps a tensor, and returns what stands for it."""
        where = {} if tensor.device.type == "cpu" else {"placed": True}
        if self.views is not None and tensor.shape == (self.numel,):
            parts = self.views(tensor)
            if sum(part.numel() for part in parts.values()) == self.numel:
                dtype = str(tensor.dtype).removeprefix("torch.")
                names = {name: self._keep(f"{place}.{name}", part) for name, part in parts.items()}
                return {"$parameters": names, "dtype": dtype, **where}
        order = sorted(range(tensor.dim()), key=lambda axis: -tensor.stride(axis))
        ordered = tensor.permute(order)
        if not ordered.is_contiguous():
            order, ordered = [*range(tensor.dim())], tensor
        turned = {} if order == sorted(order) else {"order": order}
        return {"$tensor": self._keep(place, ordered), **turned, **where}

    def _keep(self, place: str, tensor: Tensor) -> str:
        """Keeps a contiguous copy on the host, and returns the name that it has got."""
        name = place
        while name in self.tensors:
            name += "'"
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        self.tensors[name] = copy.copy_(tensor)
        return name


class Decoder:
    """Makes a state of JSON and tensors.

    Args:
        tensors: the tensors, by name.
        device: where those go that were not on the host.
        numel: the number of elements of the parameters.
        views: the views of such a vector, by the parameters' names.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        device: torch.device,
        numel: int = 0,
        views: Views | None = None,
    ) -> None:
        self.tensors, self.device, self.numel, self.views = tensors, device, numel, views

    def __call__(self, value: Any) -> Any:
        """Returns what a value stood for.

        Raises:
            NewtritonError: it is nothing that `Encoder` makes, or of another network.
        """
        if isinstance(value, list):
            return [self(part) for part in value]
        if not isinstance(value, dict):
            return value
        kind = next(iter(value), "")
        if not kind.startswith(MARK):
            return {name: self(part) for name, part in value.items()}
        try:
            return self._made(kind, value[kind], value)
        except Exception as error:  # whatever makes tensors, arrays and dictionaries stumbles over
            raise NewtritonError(f"{kind} is not what a checkpoint has: {error}") from error

    def _made(self, kind: str, content: Any, value: Mapping[str, Any]) -> Any:
        """Returns what an object of one key stands for."""
        if kind == "$tensor":
            tensor = self.tensors[content]
            order = value.get("order", [*range(tensor.dim())])
            if sorted(order) != [*range(tensor.dim())]:
                raise ValueError(f"{content} has no such order of axes")
            return self._placed(tensor.permute(_inverse(order)), value)
        if kind == "$parameters":
            return self._placed(self._flat(content, value["dtype"]), value)
        if kind == "$array":
            dtype, shape, items = content
            return np.array(items, _plain(dtype)).reshape(shape)
        if kind == "$tuple":
            return tuple(self(part) for part in content)
        pairs = {self(name): self(part) for name, part in content}
        return {"$items": dict, "$counter": Counter}[kind](pairs)

    def _flat(self, names: Mapping[str, str], dtype: str) -> Tensor:
        """Returns a flat vector of the parameters' tensors."""
        if self.views is None:
            raise ValueError("this model has no flat vector of parameters")
        flat = torch.empty(self.numel, dtype=getattr(torch, dtype), device="cpu")
        views = self.views(flat)
        shapes = {name: tuple(view.shape) for name, view in views.items()}
        found = {name: tuple(self.tensors[held].shape) for name, held in names.items()}
        if found != shapes:
            raise ValueError(f"it is of another network, of {_differing(found, shapes)}")
        for name, view in views.items():
            view.copy_(self.tensors[names[name]])
        return flat

    def _placed(self, tensor: Tensor, value: Mapping[str, Any]) -> Tensor:
        """Returns a tensor where it was."""
        return tensor.to(self.device) if value.get("placed") else tensor


def _plain(name: str) -> np.dtype[Any]:
    """Returns the dtype of an array of numbers or text."""
    dtype = np.dtype(name)
    if dtype.kind not in PLAIN or dtype.shape or dtype.itemsize > ITEM:
        raise ValueError(f"{name!r} is no dtype of numbers or text")
    return dtype


def _inverse(order: list[int]) -> list[int]:
    """Returns the order that undoes another."""
    return [order.index(axis) for axis in range(len(order))]


def _differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Returns the first parameter that only one of two networks has, with its shape."""
    return next(_named(found, wanted))


def _named(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """Yields the parameters that differ, with their shapes."""
    for name in {**found, **wanted}:
        if found.get(name) != wanted.get(name):
            yield f"{name} {found.get(name, 'missing')}, not {wanted.get(name, 'missing')}"

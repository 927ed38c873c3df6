"""A copy of tensors that can be put back, in memory that is allocated once."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

Path: TypeAlias = tuple[object, ...]  # the names and positions on the way to a nested value


class Snapshot:
    """Keeps what the state of an optimizer was, and restores it bit for bit.

    A state has tensors, numbers and None in dictionaries and lists, as torch.optim's has. Tensors
    are copied into buffers that later copies of tensors of the same shape use again, so that taking
    a snapshot allocates nothing while shapes stay the same.
    """

    def __init__(self) -> None:
        self._buffers: dict[Path, Tensor] = {}
        self._taken: dict[Any, object] = {}

    @torch.no_grad()
    def take(self, state: Mapping[Any, object]) -> None:
        """Copies a state; the last copy is given up."""
        self._taken = {name: self._copied((name,), part) for name, part in state.items()}

    @torch.no_grad()
    def restore(self) -> dict[Any, object]:
        """Returns the state as it was: new containers, with the same tensors, changed back."""
        return {name: self._restored((name,), part) for name, part in self._taken.items()}

    def _copied(self, path: Path, value: object) -> object:
        """Returns the value with containers of its own; its tensors' numbers go to buffers."""
        if isinstance(value, Tensor):
            self._buffer(path, value).copy_(value)
            return value
        if isinstance(value, Mapping):
            return {name: self._copied((*path, name), part) for name, part in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)([self._copied((*path, i), part) for i, part in enumerate(value)])
        return copy.deepcopy(value)

    def _buffer(self, path: Path, tensor: Tensor) -> Tensor:
        """Returns the buffer of a path, made anew where it does not fit the tensor."""
        buffer = self._buffers.get(path)
        if (
            buffer is None
            or (buffer.shape, buffer.dtype) != (tensor.shape, tensor.dtype)
            or buffer.device != tensor.device
        ):
            buffer = self._buffers[path] = torch.empty_like(tensor)
        return buffer

    def _restored(self, path: Path, value: object) -> object:
        if isinstance(value, Tensor):
            return value.copy_(self._buffers[path])
        if isinstance(value, Mapping):
            return {name: self._restored((*path, name), part) for name, part in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)([self._restored((*path, i), part) for i, part in enumerate(value)])
        return value

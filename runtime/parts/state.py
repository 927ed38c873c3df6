"""What a saved state must look like: checked before any of it is taken over.

A specification is a mapping of names to specifications, or one of the leaves below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_count


@dataclass(frozen=True)
class Shaped:
    """A tensor of a shape and dtype; None stands for any size."""

    shape: tuple[int | None, ...]
    dtype: torch.dtype

    def faults(self, path: str, value: object) -> list[str]:
        """What is wrong with `value`."""
        if not isinstance(value, Tensor):
            return [f"{path} is {type(value).__name__}, not a tensor"]
        fits = len(value.shape) == len(self.shape) and all(
            wanted in (None, size) for wanted, size in zip(self.shape, value.shape, strict=True)
        )
        if not fits or value.dtype != self.dtype:
            wanted = "×".join("any" if n is None else str(n) for n in self.shape) or "scalar"
            found = f"{value.dtype} of shape {tuple(value.shape)}"
            return [f"{path} is {found}, not {self.dtype} of {wanted}"]
        return []


@dataclass(frozen=True)
class Number:
    """A number of a type, at least `least`; an int is a float too, a bool is neither."""

    type: type = float
    least: float = -math.inf

    def faults(self, path: str, value: object) -> list[str]:
        """What is wrong with `value`."""
        types = (int, float) if self.type is float else (self.type,)
        right = isinstance(value, types) and not isinstance(value, bool)
        if not right or not value >= self.least:  # type: ignore[operator]
            limit = "" if self.least == -math.inf else f" of at least {self.least:g}"
            return [f"{path} is {value!r}, not {self.type.__name__}{limit}"]
        return []


@dataclass(frozen=True)
class Maybe:
    """None, or an empty mapping, or what `spec` describes."""

    spec: Any

    def faults(self, path: str, value: object) -> list[str]:
        """What is wrong with `value`."""
        empty = value is None or (isinstance(value, Mapping) and not value)
        return [] if empty else _faults(path, self.spec, value)


@dataclass(frozen=True)
class OneOf:
    """What any of several specifications describes."""

    specs: tuple[Any, ...]

    def faults(self, path: str, value: object) -> list[str]:
        """What is wrong with `value`, by the specification that comes closest."""
        return min((_faults(path, spec, value) for spec in self.specs), key=len)


class Anything:
    """What is checked elsewhere."""

    def faults(self, path: str, value: object) -> list[str]:
        """None."""
        return []


def seeded(model: Any, seed: int) -> torch.Generator:
    """A generator on the model's device."""
    return torch.Generator(device=model.device).manual_seed(check_count("seed", seed, 0))


class Random:
    """The state of a generator on a device."""

    def __init__(self, generator: torch.Generator) -> None:
        self.size = len(generator.get_state())

    def faults(self, path: str, value: object) -> list[str]:
        """What is wrong with `value`."""
        return Shaped((self.size,), torch.uint8).faults(path, value)


def _faults(path: str, spec: Any, value: object) -> list[str]:
    if not isinstance(spec, Mapping):
        return spec.faults(path, value)
    if not isinstance(value, Mapping):
        return [f"{path or 'the state'} is {type(value).__name__}, not a mapping"]
    dot = f"{path}." if path else ""
    found = [f"missing {dot}{name}" for name in spec if name not in value]
    found += [f"unexpected {dot}{name}" for name in value if name not in spec]
    for name, part in spec.items():
        if name in value:
            found += _faults(f"{dot}{name}", part, value[name])
    return found


def check_state(spec: Mapping[str, Any], state: object) -> None:
    """One error that lists every way in which `state` is not what `spec` describes."""
    if found := _faults("", spec, state):
        raise NewtritonError(
            f"load_state_dict: {'; '.join(found)}. Load the state of the same optimizer, made with "
            "the same options for the same network"
        )


def copied(value: Any) -> Any:
    """The value with every tensor in it cloned."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, Mapping):
        return {name: copied(part) for name, part in value.items()}
    return value


class Attributes:
    """State that is plain attributes: those that `STATE` names, `state_spec` describes them."""

    STATE: ClassVar[tuple[str, ...]] = ()

    def state_spec(self, model: Any) -> Mapping[str, Any]:
        """What each attribute holds."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Copies of the attributes."""
        return {name: copied(getattr(self, name)) for name in self.STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        for name in self.STATE:
            setattr(self, name, copied(state[name]))

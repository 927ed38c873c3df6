"""What a saved state must look like: checked before any of it is taken over.

A specification is a mapping of names to specifications, or one of the leaves below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.options import check_mapping, check_seed
from ..remaking import Remade

if TYPE_CHECKING:
    from ..inputs.dropout import DropoutNumbers
    from ..model.model import Model

T = TypeVar("T")

SHOWN = 100  # characters of a name that is shown as it is

# Tensors, numbers and None by name, nested. What it holds is data from a file: `check_state` looks
# at its types when it is read, a type checker cannot.
State: TypeAlias = dict[str, Any]
Undo: TypeAlias = Callable[[], object]  # puts something back to what it was


class Leaf(Protocol):
    """What is not a mapping in a specification."""

    def faults(self, path: str, value: object) -> list[str]:
        """Returns the ways in which a value is not what is described, each naming its path."""
        ...


Spec: TypeAlias = "Leaf | Mapping[str, Spec]"


@dataclass(frozen=True)
class Shaped:
    """A tensor of a shape and dtype.

    Attributes:
        shape: its sizes; None stands for any size.
        dtype: its dtype, exactly.
    """

    shape: tuple[int | None, ...]
    dtype: torch.dtype

    def faults(self, path: str, value: object) -> list[str]:
        """Returns one fault where the value is no such tensor."""
        if not isinstance(value, Tensor):
            return [f"{path} is {type(value).__name__}, not a tensor"]
        if value.is_nested or value.layout is not torch.strided or value.is_meta:
            return [f"{path} is a tensor without plain numbers"]
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
    """A finite number, NumPy's too; an int counts as a float, a bool is neither.

    Attributes:
        type: int or float.
        least: the lowest value that is allowed.
    """

    type: type = float
    least: float = -math.inf

    def faults(self, path: str, value: object) -> list[str]:
        """Returns one fault where the value is no such number."""
        types = (int, np.integer, float, np.floating) if self.type is float else (int, np.integer)
        right = isinstance(value, types) and not isinstance(value, bool)
        if not right or not self.least <= value < math.inf:  # type: ignore[operator]
            limit = "" if self.least == -math.inf else f" of at least {self.least:g}"
            return [f"{path} is {quoted(value)}, not {self.type.__name__}{limit}"]
        return []


@dataclass(frozen=True)
class Maybe:
    """None, or an empty mapping, or what a specification describes.

    Attributes:
        spec: that specification.
    """

    spec: Spec

    def faults(self, path: str, value: object) -> list[str]:
        """Returns the specification's faults where there is something to check."""
        empty = value is None or (isinstance(value, Mapping) and not value)
        return [] if empty else _faults(path, self.spec, value)


class Elsewhere:
    """What another rank holds: it may be there, is not looked at, and may be missing."""

    def faults(self, path: str, value: object) -> list[str]:
        """Returns no faults."""
        return []


class Anything:
    """A value that is checked elsewhere."""

    def faults(self, path: str, value: object) -> list[str]:
        """Returns no faults."""
        return []


class Random:
    """The state of a random generator.

    Args:
        generator: a generator whose states have the same size.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.size = len(generator.get_state())

    def faults(self, path: str, value: object) -> list[str]:
        """Returns one fault where the value is not the bytes of such a state."""
        return Shaped((self.size,), torch.uint8).faults(path, value)


def seeded(model: Model, seed: int) -> torch.Generator:
    """Returns a new generator on the model's device, started from a seed."""
    return torch.Generator(device=model.device).manual_seed(check_seed(seed))


def drawing(model: Model) -> dict[str, DropoutNumbers]:
    """Returns the random numbers of dropout, a part of an optimizer's state if there are any."""
    return {"dropout": model.dropout} if model.dropout.sites else {}


def drawing_spec(model: Model) -> dict[str, Spec]:
    """Returns the specification of the same."""
    return {name: {"seed": Number(int), "drawn": Number(int, 0)} for name in drawing(model)}


def _faults(path: str, spec: Spec, value: object) -> list[str]:
    if not isinstance(spec, Mapping):
        if not hasattr(spec, "faults"):
            raise NewtritonError(
                f"{path} is described by {quoted(spec)}: give what runtime.parts.state has to "
                "describe tensors, numbers, or what may be None"
            )
        return spec.faults(path, value)
    if not isinstance(value, Mapping):
        return [f"{path or 'the state'} is {type(value).__name__}, not a mapping"]
    value = check_mapping(path or "the state", value)
    dot = f"{path}." if path else ""
    wanted = [name for name, part in spec.items() if not isinstance(part, Elsewhere)]
    found = [f"missing {dot}{name}" for name in wanted if name not in value]
    found += [f"unexpected {dot}{_shown(name)}" for name in value if name not in spec]
    for name, part in spec.items():
        if name in value:
            found += _faults(f"{dot}{name}", part, value[name])
    return found


def _shown(name: str) -> str:
    """Returns a name as it is, or quoted where it could not be read."""
    return name if name.isprintable() and len(name) < SHOWN else quoted(name)


def as_described(spec: Mapping[str, Spec], state: State) -> State:
    """Returns a state that is about to be saved.

    Raises:
        NewtritonError: it is not what `spec` describes, and could not be loaded again.
    """
    if found := _faults("", spec, state):
        raise NewtritonError(f"state_dict is not what state_spec says: {'; '.join(found)}")
    return state


def check_state(spec: Mapping[str, Spec], state: Mapping[str, Any]) -> State:
    """Checks a state before anything of it is taken over.

    Returns:
        The state, NumPy's numbers in it as Python's.

    Raises:
        NewtritonError: the state is not what `spec` describes; the error lists every way.
    """
    if found := _faults("", spec, state):
        raise NewtritonError(
            f"load_state_dict: {'; '.join(found)}. Load the state of the same optimizer, made with "
            "the same options for the same network"
        )
    return _plain(state)


def _plain(value: Any) -> Any:
    """Returns the value with every number of NumPy's in it as Python's."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def copied(value: T) -> T:
    """Returns the value with every tensor in it cloned; mappings become dictionaries."""
    if isinstance(value, Tensor):
        return value.clone()  # type: ignore[return-value]
    if isinstance(value, Mapping):
        return {name: copied(part) for name, part in value.items()}  # type: ignore[return-value]
    return value


@runtime_checkable
class Holding(Protocol):
    """A part that replaces what it changes, so that what it was need not be copied."""

    def hold(self) -> Undo:
        """Returns what puts the part back to what it is now."""
        ...


def held(part: Any) -> Undo:
    """Returns what puts a part back to what it is now: as it says itself, or from its state."""
    if isinstance(part, Holding):
        return part.hold()
    return partial(part.load_state_dict, part.state_dict())


def held_attributes(owner: object, *names: str) -> Undo:
    """Returns what puts attributes back to the very values that they have now."""
    return partial(vars(owner).update, {name: getattr(owner, name) for name in names})


def held_generator(generator: torch.Generator) -> Undo:
    """Returns what puts a generator back to where it is now."""
    return partial(generator.set_state, generator.get_state())


def all_of(undone: Sequence[Undo]) -> Undo:
    """Returns what puts several things back."""

    def undo() -> None:
        for each in undone:
            each()

    return undo


class Attributes(Remade):
    """A base for parts whose state is plain attributes.

    A step that raises an error is undone: tensors among them are replaced, not changed in place.

    Attributes:
        STATE: the names of those attributes; the class's `state_spec` describes them.
    """

    STATE: ClassVar[tuple[str, ...]] = ()

    def state_dict(self) -> State:
        """Returns copies of the attributes by name."""
        return {name: copied(getattr(self, name)) for name in self.STATE}

    def hold(self) -> Undo:
        """Returns what puts the attributes back to what they are now."""
        return held_attributes(self, *self.STATE)

    def load_state_dict(self, state: State) -> None:
        """Restores what `state_dict` gave, bit for bit."""
        for name in self.STATE:
            setattr(self, name, copied(state[name]))

"""Objects that are copied and pickled by what they were made of, and made again where they arrive.

Graphs, executors and caches stay behind: they follow from an object's arguments, and a graph may be
deeper than Python's recursion.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..compiler.graph.calls import Checked
from ..compiler.graph.errors import NewtritonError

if TYPE_CHECKING:
    from typing_extensions import Self

PLAIN = (bool, int, float, str)

Recipe = tuple[Callable[..., Any], tuple[Any, ...]]


class Saved:
    """A value that is pickled as bytes, tensors too.

    Other processes get a tensor as a handle of its memory, which must live until they have it; what
    is made for a pickle alone does not.

    Args:
        value: the value.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Callable[[bytes], Saved], tuple[bytes]]:
        file = io.BytesIO()
        torch.save(self.value, file)
        return _loaded, (file.getvalue(),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Saved:
        return Saved(copy.deepcopy(self.value, memo))


def _loaded(saved: bytes) -> Saved:
    return Saved(torch.load(io.BytesIO(saved), weights_only=False))


class Remade(Checked):
    """A base for what is copied and pickled by the arguments that it was made of, and its state.

    A class says in `state_dict` and `load_state_dict` what its state is.
    """

    _made_of: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **options: Any) -> Self:  # noqa: D102
        new = super().__new__(cls, *args, **options)
        object.__setattr__(new, "_made_of", (args, options))
        return new

    def _recipe(self) -> Recipe:
        """Returns a function and the arguments with which it makes the object again."""
        return _made, (type(self), *self._made_of)

    def __repr__(self) -> str:
        """Returns the class with the arguments as they were given."""
        args, options = self._made_of
        given = [*map(repr, args), *(f"{name}={value!r}" for name, value in options.items())]
        return f"{type(self).__name__}({', '.join(given)})"

    def _became(self) -> dict[str, Any]:
        """Returns copies of what has become of the object since it was made."""
        return {"set": self._settings(), "state": self.state_dict()}  # type: ignore[attr-defined]

    def _become(self, state: dict[str, Any]) -> None:
        """Takes over what `_became` gave; nothing of it is shared."""
        self._set(state["set"])
        self.load_state_dict(state["state"])  # type: ignore[attr-defined]

    def _settings(self) -> dict[str, Any]:
        """Returns the plain public attributes, and those of the parts: a user may have set them."""
        public = ((name, value) for name, value in vars(self).items() if name[0] != "_")
        return {
            name: value._settings() if isinstance(value, Remade) else value
            for name, value in public
            if isinstance(value, (*PLAIN, Remade))
        }

    def _set(self, settings: Mapping[str, Any]) -> None:
        """Sets what `_settings` gave."""
        for name, value in settings.items():
            if isinstance(value, Mapping):
                getattr(self, name)._set(value)
            else:
                vars(self)[name] = value

    def __setstate__(self, state: Saved) -> None:
        """Takes over what was pickled."""
        self._become(state.value)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Returns what pickle keeps.

        Raises:
            NewtritonError: a part of it cannot be pickled, which the error names.
        """
        recipe = self._recipe()
        _check_picklable(type(self).__name__, recipe)
        return (*recipe, Saved(self._became()))

    def __copy__(self) -> Self:
        return self._again(lambda value: value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        new = self._again(lambda value: copy.deepcopy(value, memo))
        memo[id(self)] = new
        return new

    def _again(self, copied: Callable[[Any], Any]) -> Self:
        function, args = copied(self._recipe())
        new = function(*args)
        new._become(self._became())
        return new


@torch.inference_mode(False)
def _made(kind: type[Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return kind(*args, **options)


class _Trial(pickle.Pickler):
    """Pickles all but tensors and what is remade, and keeps in mind the last local function."""

    last: FunctionType | None = None

    def persistent_id(self, value: object) -> int | None:
        """Returns a number that stands for what need not be tried."""
        return id(value) if isinstance(value, (Tensor, Remade)) else None

    def reducer_override(self, value: object) -> Any:
        """Returns that the value is pickled as ever."""
        if isinstance(value, FunctionType) and "<" in value.__qualname__:
            self.last = value
        return NotImplemented


def _check_picklable(owner: str, parts: object) -> None:
    """Raises an error that names what keeps an object from being pickled."""
    trial = _Trial(io.BytesIO())
    try:
        trial.dump(parts)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        sentence = f"{error}: leave it out"
        if trial.last is not None:
            name, code = trial.last.__qualname__, trial.last.__code__
            sentence = (
                f"{name} of {code.co_filename}, line {code.co_firstlineno}, is no function that a "
                "module has by name: define it with def at the top of one"
            )
        raise NewtritonError(f"this {owner} cannot be pickled: {sentence}") from error

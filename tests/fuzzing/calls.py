"""A good call of a public callable, ready to be made or to be spoiled."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from types import ModuleType
from typing import Any

import newtriton as nt


def _itself(result: Any) -> Any:
    return result


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Call:
    """A good call.

    Attributes:
        function: what is called.
        args: its positional arguments.
        options: its arguments by name.
        use: makes use of the result, and returns what two equal calls must agree in: numbers,
            tensors, strings, and lists and dictionaries of them.
        state: returns what a refused call must leave as it is, bit for bit.
        pure: whether an accepted call, too, leaves the state as it is.
        taken: what this call takes although values of its kind are refused elsewhere, pairs of an
            argument, "" for any, and the beginning of a phrase of `values.py`.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    use: Callable[[Any], Any] = _itself
    state: Callable[[], Any] = _nothing
    pure: bool = True
    taken: frozenset[tuple[str, str]] = frozenset()

    def __call__(self) -> Any:
        """Makes the call and returns what came of it."""
        return self.use(self.function(*self.args, **self.options))


Maker = Callable[[Random], Call]

# By these methods parts, layers and losses speak to each other: their arguments are nodes, scopes
# and parts that newtriton makes.
BETWEEN = frozenset([
    "build", "check", "classes", "counts", "drawn", "ignored", "labels", "losses", "scores",
    "square_root", "weights", "prepare", "solve", "mv", "update", "programs", "state_spec", "seen",
    "adapt", "dampings", "energy", "judge", "propose", "shorten", "survey", "tighten", "watch",
    "update_statistics", "hides", "mean", "index", "chunks", "in_memory", "coming", "size", "hold",
    "in_place", "parsed", "text", "refused", "epochs_to", "times_inputs", "record", "footprint",
    "begin", "end", "bootstrap", "count", "forms", "measured", "publish", "samples", "span", "asks",
])  # fmt: skip
# What is raised, returned, or stands for a promise alone; and the languages of graphs.
PROMISES = frozenset([
    "Curvature", "LinearSolver", "Solver", "StepRule", "Status", "Tag", "Loss", "Solution",
    "StepReport", "NewtritonError", "ShapeError", "MissingRule",
])  # fmt: skip
RETURNED = frozenset([
    "DiagonalFactors", "KroneckerFactors", "MeanFactors", "Linearization", "Model", "Samples",
    "History", "LinearizedData",
])  # fmt: skip
LANGUAGES = frozenset({"ops", "scalar"})
FOLDERS = frozenset({"compiler", "kernels", "runtime", "bench", "command"})


def public() -> Iterator[tuple[str, Any]]:
    """Yields every public callable by its name, functions of modules and methods among them."""
    for name, value in vars(nt).items():
        if name.startswith("_") or name in FOLDERS | LANGUAGES:
            continue
        if isinstance(value, ModuleType):
            yield from (
                (f"{name}.{inner}", function)
                for inner, function in inspect.getmembers(value, inspect.isfunction)
                if not inner.startswith("_") and function.__module__ == value.__name__
            )
            continue
        if name not in PROMISES | RETURNED:
            yield name, value
        if inspect.isclass(value) and not issubclass(value, Exception):
            yield from _methods(name, value)


def _methods(name: str, kind: type) -> Iterator[tuple[str, Any]]:
    """Yields the methods that users call: those of public classes, where parts do not call them."""
    for inner, method in inspect.getmembers(kind, callable):
        owner = getattr(method, "__qualname__", "").partition(".")[0]
        if inner.startswith("_") or inner in BETWEEN or owner in PROMISES:
            continue
        if owner == "Described" or owner in vars(nt):
            yield f"{name if owner != 'Described' else owner}.{inner}", method


DESCRIBING_ROOMS = ("newtriton.compiler.", "newtriton.runtime.model.")


def describes(value: Any) -> bool:
    """Whether a public callable describes a network, or calls it, and does not train it."""
    return getattr(value, "__module__", "").startswith(DESCRIBING_ROOMS)

"""Which arguments a function or class takes; a name that is none of them gets one clear error.

`HINTS` says where things are that other libraries have as arguments by these names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from .errors import NewtritonError, meant, quoted

P = ParamSpec("P")
R = TypeVar("R")

PACKED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

_NO_LR = (
    "a step of second order has none, since its model of the loss says how long the step is; "
    "optimizers of torch.optim take lr in nt.TorchOptimizer, and step rules in nt.Fixed"
)
_BATCHES = "data come as batches: make them with nt.Batches, or take a DataLoader"
_PLACE = "the whole network has one: give it to nt.compile, or to nt.from_torch"
_BEST = "with checkpoint, nt.fit keeps the best weights in best/weights.safetensors of that folder"
HINTS = {
    "weight_decay": "it is a part of the loss, whose curvature is taken: give it to nt.compile, or "
    "to nt.from_torch",
    "lr": _NO_LR,
    "learning_rate": _NO_LR,
    "params": "give the model itself, not its parameters",
    "reduction": "a loss is the mean over samples, or over the labels that count: nt.Scaled makes "
    "another multiple of it",
    "inplace": "no value is changed in place: leave it out",
    "device": _PLACE,
    "dtype": _PLACE,
    "batch_size": _BATCHES,
    "shuffle": _BATCHES,
    "num_workers": "nt.Batches has its samples in memory: take a DataLoader, which has workers",
    "verbose": "progress=False leaves the progress bar out",
    "restore_best": _BEST,
    "restore_best_weights": _BEST,
}


def signature_of(called: Callable[..., Any]) -> inspect.Signature:
    """Returns what a function, or the constructor of a class, takes."""
    if not isinstance(called, type):
        return inspect.signature(called)
    if called.__init__ is object.__init__:
        return inspect.Signature()
    given = inspect.signature(called.__init__)
    return given.replace(parameters=list(given.parameters.values())[1:])


def names_of(called: Callable[..., Any]) -> list[str]:
    """Returns the arguments that a function or class takes by name."""
    return [n for n, p in signature_of(called).parameters.items() if p.kind not in PACKED]


def takes_any(called: Callable[..., Any]) -> bool:
    """Whether a function or class takes arguments of any name."""
    kinds = {p.kind for p in signature_of(called).parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds


def unknown(owner: str, name: str, known: Sequence[str]) -> NewtritonError:
    """Returns the error that says which arguments there are, or where else a thing is.

    Args:
        owner: the name of what is called.
        name: the name that is none of them.
        known: the names of all.
    """
    listed = f"its arguments are {', '.join(known) or 'none'}{meant(name, known)}"
    return NewtritonError(f"{owner}() has no option {quoted(name)}: {HINTS.get(name, listed)}")


def check_call(called: Callable[..., Any], args: Sequence[Any], options: Mapping[str, Any]) -> None:
    """Raises an error where a call gives a name that there is not, or too much."""
    taken = signature_of(called)
    for name in options:
        if name not in taken.parameters and (name == "self" or not takes_any(called)):
            raise unknown(called.__name__, name, names_of(called))
    try:
        taken.bind_partial(*args, **options)
    except TypeError as error:
        names = ", ".join(taken.parameters) or "none"
        raise NewtritonError(
            f"{called.__name__}() has {error}: its arguments are {names}"
        ) from None


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Returns a function whose calls are checked by `check_call`, and for what is missing.

    A constructor, whose class checks names, is checked for what is missing.
    """
    taken = signature_of(function)
    name = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        try:
            taken.bind(*args, **options)
        except TypeError as error:
            check_call(function, args, options)
            raise NewtritonError(
                f"{name}() is {error}: its arguments are "
                f"{', '.join(n for n in names_of(call) if n != 'self')}"
            ) from None
        return function(*args, **options)

    return call


class ConstructorSignature:
    """What `inspect.signature` finds at a class: `__init__` alone, whatever `__new__` takes."""

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        return signature_of(owner)


class Checked:
    """A base for classes whose constructors' calls are checked by `check_call`."""

    __signature__ = ConstructorSignature()

    def __new__(cls, *args: Any, **options: Any) -> Any:  # noqa: D102
        check_call(cls, args, options)
        return super().__new__(cls)

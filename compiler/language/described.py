"""What layers and losses have in common: they print as the call that made them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from ..graph.errors import NewtritonError, quoted

L = TypeVar("L", bound="Described")


def signature_of(kind: type) -> inspect.Signature:
    """Returns what the constructor of a class takes."""
    if kind.__init__ is object.__init__:
        return inspect.Signature()
    given = inspect.signature(kind.__init__)
    return given.replace(parameters=list(given.parameters.values())[1:])


def unknown(kind: type, name: str, sizes: Iterable[str] = ()) -> NewtritonError:
    """Returns the error that says which arguments a class has.

    Args:
        kind: the class.
        name: the name that is none of them.
        sizes: those that are taken by position, too.
    """
    packed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = [n for n, p in signature_of(kind).parameters.items() if p.kind not in packed]
    known = ", ".join([*sizes, *named]) or "none"
    return NewtritonError(
        f"{kind.__name__}() has no option {quoted(name)}: its arguments are {known}"
    )


def check_call(kind: type, args: Sequence[Any], options: Mapping[str, Any]) -> None:
    """Raises an error where a constructor is given a name that it does not have, or too much."""
    taken = signature_of(kind)
    known = taken.parameters
    for name in options:
        if name not in known and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            raise unknown(kind, name)
    try:
        taken.bind_partial(*args, **options)
    except TypeError as error:
        names = ", ".join(known) or "none"
        raise NewtritonError(f"{kind.__name__}() has {error}: its arguments are {names}") from None


class ConstructorSignature:
    """What `inspect.signature` finds at a class: `__init__` alone, whatever `__new__` takes."""

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        return signature_of(owner)


class Described:
    """An object that prints as the call that made it, without the options left at their defaults.

    The constructor's signature says which options there are, and each is kept in the attribute of
    the same name. Functions are left out, since their text is not known.

    Attributes:
        frozen: whether its parameters, and those of all layers in it, stay as they are.
        several: whether it takes several inputs at once.
    """

    frozen: ClassVar[bool] = False
    several: ClassVar[bool] = False
    __signature__ = ConstructorSignature()

    def __new__(cls, *args: Any, **options: Any) -> Any:  # noqa: D102
        check_call(cls, args, options)
        return super().__new__(cls)

    def freeze(self: L) -> L:
        """Freezes a layer: its parameters keep their values, whatever steps are made.

        Gradient and products are zero there, there is no curvature and no weight decay.

        Returns:
            the layer itself.

        Examples:
            >>> import newtriton as nt
            >>> nt.Sequential(nt.Linear(8).freeze(), nt.Tanh(), nt.Linear(3))
            Sequential(Linear(8).freeze(), Tanh(), Linear(3))
        """
        self.frozen = True  # type: ignore[misc]
        return self

    def __repr__(self) -> str:
        arguments: list[str] = []
        for name, option in signature_of(type(self)).parameters.items():
            value: Any = getattr(self, name, option.empty)
            if value is option.empty or inspect.isfunction(value):
                continue
            if option.kind is option.VAR_POSITIONAL:
                arguments += map(repr, value)
            elif option.default is option.empty:
                arguments.append(repr(value))
            elif value != option.default:
                arguments.append(f"{name}={value!r}")
        call = f"{type(self).__name__}({', '.join(arguments)})"
        return f"{call}.freeze()" if self.frozen else call

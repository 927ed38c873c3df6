"""What layers and losses have in common: they print as the call that made them."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, TypeVar

from ..graph.calls import Checked, signature_of

L = TypeVar("L", bound="Described")


class Described(Checked):
    """An object that prints as the call that made it, without the options left at their defaults.

    The constructor's signature says which options there are, and each is kept in the attribute of
    the same name. Functions are left out, since their text is not known.

    Attributes:
        frozen: whether its parameters, and those of all layers in it, stay as they are.
        several: whether it takes several inputs at once.
    """

    frozen: ClassVar[bool] = False
    several: ClassVar[bool] = False

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

"""What layers and losses have in common: they print as the call that made them."""

from __future__ import annotations

import inspect
from typing import Any


class Described:
    """An object that prints as the call that made it, without the options left at their defaults.

    The constructor's signature says which options there are, and each is kept in the attribute of
    the same name. Functions are left out, since their text is not known.
    """

    def __repr__(self) -> str:
        arguments: list[str] = []
        for name, option in inspect.signature(type(self)).parameters.items():
            value: Any = getattr(self, name, option.empty)
            if value is option.empty or inspect.isfunction(value):
                continue
            if option.kind is option.VAR_POSITIONAL:
                arguments += map(repr, value)
            elif option.default is option.empty:
                arguments.append(repr(value))
            elif value != option.default:
                arguments.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(arguments)})"

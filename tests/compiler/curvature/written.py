"""A layer that is written as a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from newtriton.compiler.graph.ir import Node
from newtriton.compiler.language.network import Scope


@dataclass(frozen=True)
class Written:
    """A layer that is written as a function."""

    function: Callable[[Node, Scope], Node]

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns what the function makes of x."""
        return self.function(x, scope)

"""Programs: graphs whose inputs and outputs are declared by typed keys.

A `Graph` names its outputs for people who print it. Whoever runs a program finds its tensors by
keys instead, small frozen objects that say what a value is: `Gradient("0.weight")`, `Form(0, 1)`,
`Noise()`. The classes of keys stand beside the functions that make the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from .ir import Graph, Node
from .simplify import simplify

T = TypeVar("T")
_interned: dict[tuple[Any, ...], Any] = {}


class Interned(type):
    """A class of which there is one object for all calls with the same arguments."""

    def __call__(cls: type[T], *args: Any) -> T:
        """Returns that object."""
        key = (cls, *args)
        found = _interned.get(key)
        return _interned.setdefault(key, type.__call__(cls, *args)) if found is None else found


@dataclass(frozen=True, eq=False)
class Key(metaclass=Interned):
    """What a value of a program is: interned as nodes are, so equal by identity.

    Every call looks tensors up by keys, and no comparison is faster. The text of a key is the name
    under which the graph prints the value: `gradient:0.weight`, `form:0,1`.

    Attributes:
        kind: the first part of the name, one for each class of keys.
    """

    kind: ClassVar[str]

    def __str__(self) -> str:
        which = [str(getattr(self, f.name)) for f in fields(self)]
        return f"{self.kind}:{','.join(which)}" if which else self.kind


class Input(Key):
    """What a leaf of a program is."""


class Output(Key):
    """What a result of a program is."""


@dataclass(frozen=True, eq=False)
class Program:
    """A graph, with what it reads and what it gives.

    Attributes:
        graph: what is computed, from its leaves and from the values of the tape that it is given.
        inputs: every leaf that the graph reads, constants excepted.
        outputs: every result; one that is identically zero is missing.
    """

    graph: Graph
    inputs: Mapping[Input, Node]
    outputs: Mapping[Output, Node]

    @property
    def name(self) -> str:
        """The name of the graph."""
        return self.graph.name

    def __str__(self) -> str:
        return str(self.graph)

    @cached_property
    def names(self) -> Mapping[Output, str]:
        """The names of the outputs in the graph."""
        return {key: str(key) for key in self.outputs}

    def feed(self, given: Mapping[Input, T]) -> dict[Node, T]:
        """Returns the value of every leaf, from a mapping that may hold more than is read."""
        return {node: given[key] for key, node in self.inputs.items()}

    def results(self, values: Mapping[Node, T]) -> dict[Output, T]:
        """Returns the value of every output, from the values of nodes."""
        return {key: values[node] for key, node in self.outputs.items()}


def simplified(outputs: Mapping[Output, Node]) -> dict[Output, Node]:
    """Returns the same values from fewer and simpler nodes."""
    nodes = simplify({str(key): node for key, node in outputs.items()})
    return {key: nodes[str(key)] for key in outputs}


def declared(
    name: str,
    outputs: Mapping[Output, Node],
    inputs: Mapping[Input, Node],
    given: frozenset[Node],
) -> Program:
    """Returns the program of simplified `outputs`.

    Args:
        name: the name of its graph.
        outputs: what it gives.
        inputs: leaves that it may read; those that it does not read are left out.
        given: the values that it starts from besides its leaves.
    """
    graph = Graph(name, {str(key): node for key, node in outputs.items()}, given)
    read = set(graph.nodes())
    return Program(graph, {key: n for key, n in inputs.items() if n in read}, dict(outputs))

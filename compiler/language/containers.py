"""Layers made of layers: one after the other, side by side, around a shortcut."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph import ops
from ..graph.errors import NewtritonError, ShapeError
from ..graph.ir import Node
from .described import Described
from .network import Layer, Scope, describe


class Sequential(Described):
    """One layer after the other, named by position as in PyTorch.

    Args:
        layers: the layers, first to last.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.Sequential(nt.Linear(8), nt.Tanh(), nt.Linear(3))
        >>> model = nt.compile(net, input_shape=(4,), loss=nt.CrossEntropyLoss())
        >>> [name for name, _ in model.named_parameters()]
        ['0.weight', '0.bias', '2.weight', '2.bias']
    """

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the last layer's output."""
        for i, layer in enumerate(self.layers):
            x = scope.build(str(i), layer, x)
        return x


class Add(Described):
    """The sum Σ_i branch_i(x) of branches that see the same input, named by position.

    Args:
        branches: at least one layer; all give outputs of one shape.

    Raises:
        NewtritonError: there are no branches.
        ShapeError: the branches' outputs differ in shape; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.Add(nt.Linear(3), nt.Sequential(nt.Linear(8), nt.Tanh(), nt.Linear(3)))
        >>> model = nt.compile(net, input_shape=(4,), loss=nt.MSELoss())
        >>> [name for name, _ in model.named_parameters() if name.endswith("weight")]
        ['0.weight', '1.0.weight', '1.2.weight']
    """

    def __init__(self, *branches: Layer) -> None:
        if not branches:
            raise NewtritonError("Add() has no branches: give at least one layer")
        self.branches = branches

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns Σ_i branch_i(x)."""
        return _sum([scope.build(str(i), branch, x) for i, branch in enumerate(self.branches)])


@dataclass(eq=False, repr=False)
class Residual(Described):
    """The sum body(x) + shortcut(x).

    Args:
        body: the layer to whose output the shortcut's is added.
        shortcut: the layer on the other path; the identity unless given.

    Raises:
        ShapeError: the two outputs differ in shape; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.Residual(nt.Conv2d(8, 3, padding=1), shortcut=nt.Conv2d(8, 1, bias=False))
        Residual(Conv2d(8, 3, padding=1), shortcut=Conv2d(8, 1, bias=False))
    """

    body: Layer
    shortcut: Layer | None = None

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns body(x) + shortcut(x)."""
        skip = x if self.shortcut is None else scope.build("shortcut", self.shortcut, x)
        return _sum([scope.build("body", self.body, x), skip])


def _sum(terms: list[Node]) -> Node:
    """Returns the sum of terms of one shape."""
    shapes = {t.shape for t in terms}
    if len(shapes) > 1:
        kinds = " and ".join(sorted(describe(s) for s in shapes))
        raise ShapeError(f"its branches give {kinds}: give them one shape, e.g. by a 1×1 Conv2d")
    return ops.total(terms)

"""Layers made of layers: one after the other, side by side, around a shortcut."""

from __future__ import annotations

from dataclasses import dataclass

from ..functions.shapes import joined
from ..graph import ops
from ..graph.errors import NewtritonError, ShapeError
from ..graph.ir import Node
from ..graph.options import check_integer
from ..language.described import Described
from ..language.network import Layer, Scope, describe
from .arguments import axis_of


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

    several = True

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

    several = True

    def __init__(self, *branches: Layer) -> None:
        if not branches:
            raise NewtritonError("Add() has no branches: give at least one layer")
        self.branches = branches

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns Σ_i branch_i(x)."""
        return _sum([scope.build(str(i), branch, x) for i, branch in enumerate(self.branches)])


class Concat(Described):
    """The outputs of branches that see the same input, one after the other along an axis.

    Args:
        branches: at least one layer; their outputs differ in that axis alone.
        dim: the axis in PyTorch's order, that of features or channels unless given.

    Raises:
        NewtritonError: there are no branches, or the axis is no integer.
        ShapeError: the branches' outputs differ elsewhere; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.Sequential(nt.Concat(nt.Identity(), nt.Linear(3)), nt.Linear(2))
        >>> model = nt.compile(net, input_shape=(4,), loss=nt.MSELoss())
        >>> {name: tuple(p.shape) for name, p in model.named_parameters() if "weight" in name}
        {'0.1.weight': (3, 4), '1.weight': (2, 7)}
    """

    def __init__(self, *branches: Layer, dim: int = 1) -> None:
        if not branches:
            raise NewtritonError("Concat() has no branches: give at least one layer")
        self.branches = branches
        self.dim = check_integer("dim", dim)

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the outputs side by side."""
        parts = [scope.build(str(i), branch, x) for i, branch in enumerate(self.branches)]
        axis = axis_of("dim", parts[0], self.dim)
        others = {(*part.shape[:axis], *part.shape[axis + 1 :]) for part in parts}
        if len(others) > 1:
            kinds = " and ".join(sorted({describe(part.shape) for part in parts}))
            raise ShapeError(f"its branches give {kinds}: they may differ in axis {self.dim} alone")
        return joined(parts, axis)


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

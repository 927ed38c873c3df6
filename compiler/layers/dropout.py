"""Layers that drop elements or whole channels in training, and are the identity in evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..graph import ops
from ..graph.errors import ShapeError
from ..graph.ir import Node
from ..graph.options import check_number
from ..language.described import Described
from ..language.network import Scope


@dataclass(eq=False, repr=False)
class Dropout(Described):
    """Sets a share p of all elements to 0 and divides the others by 1 − p, in training.

    Which ones is drawn anew for each linearization, from the seed of `compile`; all that evaluates
    the training loss near it sees the same ones. In evaluation mode, the identity.

    Args:
        p: the share, 0 ≤ p ≤ 1.

    Raises:
        NewtritonError: p is no such number.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> net = nt.Sequential(nt.Linear(8), nt.ReLU(), nt.Dropout(0.2), nt.Linear(3))
        >>> model = nt.compile(net, (4,), nt.CrossEntropyLoss(), device="cpu")
        >>> x = torch.ones(2, 4)
        >>> torch.equal(model(x), model(x))  # in evaluation mode
        True
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        check_number("p", self.p, 0.0, 1.0)

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns x with elements dropped."""
        return scope.dropout(x, self.p)


class _ChannelDropout(Dropout):
    """What layers share that drop whole channels: which axes a channel has."""

    axes: ClassVar[tuple[int, ...]]
    takes: ClassVar[str]

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns x with channels dropped."""
        if ops.rank(x) != 2 + len(self.axes):
            raise ShapeError(f"it needs {self.takes}")
        return scope.dropout(x, self.p, self.axes)


class Dropout1d(_ChannelDropout):
    """Sets a share p of the channels of C×L signals to 0; see `Dropout`.

    Args:
        p: the share, 0 ≤ p ≤ 1.

    Raises:
        NewtritonError: p is no such number.
        ShapeError: what reaches the layer is no signal; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.Dropout1d(0.2)
        Dropout1d(p=0.2)
    """

    axes = (2,)
    takes = "C×L signals"


class Dropout2d(_ChannelDropout):
    """Sets a share p of the channels of C×H×W images to 0; see `Dropout`.

    Args:
        p: the share, 0 ≤ p ≤ 1.

    Raises:
        NewtritonError: p is no such number.
        ShapeError: what reaches the layer is no image; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.Dropout2d(0.2)
        Dropout2d(p=0.2)
    """

    axes = (1, 2)
    takes = "a C×H×W image: move it before Flatten()"

"""From a tree of layers to the forward graph: what a layer sees while it is traced.

A layer's `build(x, scope)` returns its output node. The scope names its parameters and buffers as
PyTorch would, and says whether batch statistics or running ones are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..graph import ops
from ..graph.errors import NewtritonError, ShapeError
from ..graph.ir import N, Node, Shape, made_at, show
from ..graph.options import check_option
from .data_term import DataTerm, data_term
from .initial import INITIAL
from .loss import Loss


@dataclass(frozen=True)
class Parameter:
    """One parameter of a network.

    Attributes:
        name: its name as PyTorch would give it, "4.body.weight" for example.
        shape: its shape in the graph.
        init: the rule for its first values, a name in `INITIAL`.
        fan_in: how many inputs each output depends on.
        fan_out: how many outputs each input contributes to.
        order: the permutation of its axes into PyTorch's, (0, 3, 1, 2) for the weights of a
            convolution.
    """

    name: str
    shape: tuple[int, ...]
    init: str
    fan_in: int
    fan_out: int
    order: tuple[int, ...]


@dataclass(frozen=True)
class Running:
    """One running statistic of a network.

    Attributes:
        node: the graph's input that stands for it.
        start: its first value.
        now: the node of what a batch contributes to it.
        positions: how many values of each sample go into every element.
    """

    node: Node
    start: float
    now: Node
    positions: int


def layer_of(parameter: str) -> str:
    """Returns the name of the layer that a parameter belongs to: `0.body` for `0.body.weight`."""
    return parameter.rpartition(".")[0]


class Layer(Protocol):
    """Anything that turns one node into another."""

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the layer's output for the input x."""
        ...


@dataclass
class _Record:
    """What a trace collects, shared by all of its scopes.

    Attributes:
        training: whether batch statistics are used.
        parameters: the parameters by name.
        nodes: their nodes by the same names.
        running: the running statistics by name.
        momenta: the weight of a new batch in running statistics, by the place of their layer.
        seen: the layers traced so far, by identity, and where each stands. They are kept alive, so
            that no later layer gets the identity of one that is gone.
    """

    training: bool
    parameters: dict[str, Parameter] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    momenta: dict[str, float | None] = field(default_factory=dict)
    seen: dict[int, tuple[Layer, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scope:
    """Where a layer stands in the network that is traced.

    Attributes:
        record: what the trace collects.
        prefix: the beginning of the layer's names, "4.body." for example.
    """

    record: _Record
    prefix: str = ""

    @property
    def training(self) -> bool:
        """Whether batch statistics are used."""
        return self.record.training

    def child(self, name: str) -> Scope:
        """Returns the scope of a layer inside this one."""
        return Scope(self.record, f"{self.prefix}{name}.")

    def build(self, name: str, layer: Layer, x: Node) -> Node:
        """Traces `layer` as the child `name`; its errors say where it stands and what it got."""
        scope = self.child(name)
        place = scope.prefix[:-1]
        if not hasattr(layer, "build"):
            raise NewtritonError(f"layer {place} is {layer!r}: use newtriton's own layers")
        _, first = self.record.seen.setdefault(id(layer), (layer, place))
        if first != place:
            raise NewtritonError(
                f"{layer!r} stands at {first} and at {place}: make a second one for {place}"
            )
        with made_at(f"{place} ({type(layer).__name__})"):
            try:
                return layer.build(x, scope)
            except ShapeError as error:
                if error.placed:
                    raise
                placed = ShapeError(f"{layer!r} at layer {place} got {describe(x.shape)}: {error}")
                placed.placed = True
                raise placed from None

    def parameter(
        self,
        name: str,
        shape: tuple[int, ...],
        init: str,
        fans: tuple[int, int],
        order: tuple[int, ...] | None = None,
    ) -> Node:
        """Returns a parameter of this layer.

        Args:
            name: its name inside the layer.
            shape: its shape in the graph.
            init: the rule for its first values, a name in `INITIAL`: "default", "kaiming",
                "xavier", "sparse", "ones" or "zeros".
            fans: the numbers of inputs of an output and of outputs of an input.
            order: the permutation of its axes into PyTorch's; they are the same unless given.

        Raises:
            NewtritonError: there is no such rule.
        """
        full = self.prefix + name
        check_option(f"init of parameter {full}", init, tuple(INITIAL))
        order = tuple(range(len(shape))) if order is None else order
        self.record.parameters[full] = Parameter(full, shape, init, *fans, order)
        return self.record.nodes.setdefault(full, ops.param(full, shape))

    def running(self, name: str, start: float, now: Node, positions: int) -> Node:
        """Returns a running statistic as an input of the graph; see `Running`."""
        full = self.prefix + name
        node = ops.input_(full, now.shape)
        self.record.running[full] = Running(node, start, now, positions)
        return node

    def momentum(self, value: float | None) -> None:
        """Sets the weight of a new batch in this layer's running statistics; None averages all."""
        self.record.momenta[self.prefix[:-1]] = value


def describe(shape: Shape) -> str:
    """Says a shape in words, without the batch and in PyTorch's order."""
    if len(shape) == 4:
        _, h, w, c = shape
        return f"a {show((c, h, w))} image"
    return f"{show(shape[1:])} features"


@dataclass(frozen=True)
class Traced(DataTerm):
    """The forward graph of a network with its loss, in training or evaluation mode.

    Attributes:
        x: the input, N×C×H×W or N×D.
        criterion: the loss as it was given.
        parameters: the parameters by name, in PyTorch's order.
        nodes: their nodes by the same names.
        running: the running statistics by name, in PyTorch's order.
        momenta: the weight of a new batch in running statistics, by batch norm layer.
        training: whether batch statistics are used.
    """

    x: Node
    criterion: Loss
    parameters: Mapping[str, Parameter]
    nodes: Mapping[str, Node]
    running: Mapping[str, Running]
    momenta: Mapping[str, float | None]
    training: bool


def trace(
    net: Layer, input_shape: tuple[int, ...], criterion: Loss, training: bool = True
) -> Traced:
    """Builds the forward graph.

    Args:
        net: the network.
        input_shape: the shape of one sample, (C, H, W) or (D,).
        criterion: the loss.
        training: whether batch norm takes batch statistics instead of running ones.

    Raises:
        ShapeError: names the layer at which the shapes do not fit.
        NewtritonError: a layer stands at two places or is none of newtriton's, a parameter's `init`
            is unknown, or there are no parameters.
    """
    x = ops.input_("x", (N, *input_shape))
    image = ops.transpose(x, (0, 2, 3, 1)) if len(input_shape) == 3 else x
    record = _Record(training)
    scope = Scope(record)
    if not hasattr(net, "build"):
        raise NewtritonError(f"the network is {net!r}: use newtriton's own layers")
    try:
        value = net.build(image, scope)
    except ShapeError as error:
        if error.placed:
            raise
        raise ShapeError(f"{net!r} got {describe(image.shape)}: {error}") from None
    if not record.parameters:
        raise NewtritonError(f"{net!r} has no parameters: there is nothing to train")
    with made_at(type(criterion).__name__):
        image = ops.rank(value) == 4 and not getattr(net, "torch_order", False)
        term = data_term(criterion, value, image)
    return Traced(
        **vars(term), x=x, criterion=criterion, parameters=record.parameters, nodes=record.nodes,
        running=record.running, momenta=record.momenta, training=training,
    )  # fmt: skip

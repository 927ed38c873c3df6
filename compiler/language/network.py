"""From a tree of layers to the forward graph: what a layer sees while it is traced.

A layer's `build(x, scope)` returns its output node. The scope names its parameters and buffers as
PyTorch would, and says whether batch statistics or running ones are used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from ..graph import ops, scalar
from ..graph.errors import NewtritonError, ShapeError, quoted
from ..graph.ir import VIEWS, N, Node, Op, Shape, batch_axis, made_at, show, topological
from ..graph.options import check_number, check_option
from ..graph.scalar import var
from ..graph.simplify import simplify
from .constants import constants
from .data_term import DataTerm, data_term
from .initial import INITIAL, Distribution
from .inputs import InputSpec, specifications
from .loss import Loss
from .trees import ALONE, named, rebuilt
from .whole import of_whole

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Parameter:
    """One parameter of a network.

    Attributes:
        name: its name as PyTorch would give it, "4.body.weight" for example.
        shape: its shape in the graph.
        init: the distribution of its first values, or the name of a rule in `INITIAL`.
        fan_in: how many inputs each output depends on.
        fan_out: how many outputs each input contributes to.
        order: the permutation of its axes into PyTorch's, (0, 3, 1, 2) for the weights of a
            convolution.
        frozen: whether it stays as it is: no derivative is taken by it.
    """

    name: str
    shape: tuple[int, ...]
    init: str | Distribution
    fan_in: int
    fan_out: int
    order: tuple[int, ...]
    frozen: bool = False


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
    """Anything that turns one node into another.

    The first layer of a network with several inputs gets a tuple or a dictionary of nodes.
    """

    def build(self, x: Any, scope: Scope) -> Node:
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
        constants: the values of constant leaves by name.
        random: the leaves of random numbers by the name of their site.
        frozen: the names of the frozen parameters; None leaves it to the layers.
        seen: the layers traced so far, by identity, and where each stands. They are kept alive, so
            that no later layer gets the identity of one that is gone.
        owners: the identity of the layer that each parameter and statistic belongs to, by name.
    """

    training: bool
    frozen: Collection[str] | None = None
    parameters: dict[str, Parameter] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    momenta: dict[str, float | None] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    random: dict[str, Node] = field(default_factory=dict)
    seen: dict[int, tuple[Layer, str]] = field(default_factory=dict)
    owners: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Scope:
    """Where a layer stands in the network that is traced.

    Attributes:
        record: what the trace collects.
        prefix: the beginning of the layer's names, "4.body." for example.
        frozen: whether the layer, or one around it, is frozen.
        owner: the identity of the layer.
    """

    record: _Record
    prefix: str = ""
    frozen: bool = False
    owner: int = 0

    @property
    def training(self) -> bool:
        """Whether batch statistics are used."""
        return self.record.training

    def child(self, name: str) -> Scope:
        """Returns the scope of a layer inside this one."""
        return Scope(self.record, f"{self.prefix}{name}.", self.frozen)

    def of(self, layer: Layer) -> Scope:
        """Returns the scope of a layer that stands here, frozen where the layer says so."""
        frozen = self.frozen or getattr(layer, "frozen", False)
        return Scope(self.record, self.prefix, frozen, id(layer))

    def build(self, name: str, layer: Layer, x: Any) -> Node:
        """Traces `layer` as the child `name`; its errors say where it stands and what it got."""
        scope = self.child(name).of(layer)
        place = scope.prefix[:-1]
        if not hasattr(layer, "build"):
            raise NewtritonError(f"layer {place} is {quoted(layer)}: use newtriton's own layers")
        _, first = self.record.seen.setdefault(id(layer), (layer, place))
        if first != place:
            raise NewtritonError(
                f"{quoted(layer)} stands at {first} and at {place}: make a second one for {place}"
            )
        with made_at(f"{place} ({type(layer).__name__})"):
            try:
                check_one(layer, x)
                return layer.build(x, scope)
            except ShapeError as error:
                if error.placed:
                    raise
                placed = ShapeError(
                    f"{quoted(layer)} at layer {place} got {_described(x)}: {error}"
                )
                placed.placed = True
                raise placed from None

    def parameter(
        self,
        name: str,
        shape: tuple[int, ...],
        init: str | Distribution,
        fans: tuple[int, int],
        order: tuple[int, ...] | None = None,
        frozen: bool = False,
    ) -> Node:
        """Returns a parameter of this layer.

        One that is frozen is a leaf of the graph as data are: nothing is derived by it.

        Args:
            name: its name inside the layer.
            shape: its shape in the graph.
            init: the distribution of its first values, or the name of a rule in `INITIAL`:
                "default", "kaiming", "xavier", "sparse", "ones" or "zeros".
            fans: the numbers of inputs of an output and of outputs of an input.
            order: the permutation of its axes into PyTorch's; they are the same unless given.
            frozen: whether it stays as it is; so do all parameters of a frozen layer.

        Raises:
            NewtritonError: there is no such rule.
        """
        full = self._owned(name)
        if not isinstance(init, Distribution):
            check_option(f"init of parameter {full}", init, tuple(INITIAL))
        order = tuple(range(len(shape))) if order is None else order
        named = self.record.frozen
        stays = (frozen or self.frozen) if named is None else full in named
        self.record.parameters[full] = Parameter(full, shape, init, *fans, order, stays)
        leaf = ops.input_ if stays else ops.param
        return self.record.nodes.setdefault(full, leaf(full, shape))

    def _owned(self, name: str) -> str:
        """Returns the full name of what belongs to this layer, and to no other one."""
        full = self.prefix + name
        if self.record.owners.setdefault(full, self.owner) != self.owner:
            raise NewtritonError(
                f"two layers have a {quoted(full)}: build each of them under a name of its own"
            )
        return full

    def constant(self, values: Tensor) -> Node:
        """Returns a leaf for a tensor that does not change, such as a mask or positions.

        The model holds it in its dtype; integers and booleans are int64. Equal tensors are one
        leaf.
        """
        values = values.detach()
        values = values.double() if values.is_floating_point() else values.long()
        name = constant_name(values)
        self.record.constants.setdefault(name, values.clone())
        return constant_leaf(name, values)

    def dropout(self, x: Node, p: float, together: Sequence[int] = ()) -> Node:
        """Returns x with a share p of its elements 0, the others divided by 1 − p.

        Which ones follows from a leaf of random numbers, uniform in [0, 1), with the samples on its
        first axis. In evaluation mode, x itself.

        Args:
            x: what drops out.
            p: the share, 0 ≤ p ≤ 1.
            together: the axes along which elements drop out together.

        Raises:
            NewtritonError: p is no such number.
        """
        p = check_number("p", p, 0.0, 1.0)
        if not self.training or p == 0.0:
            return x
        if p == 1.0:
            return ops.scale(x, 0.0)
        site = f"{self.prefix}dropout{len(self.record.random)}"
        shape = tuple(d for axis, d in enumerate(x.shape) if axis not in together)
        leaf, numbers = _by_sample(f"random:{site}", shape)
        self.record.random[site] = leaf
        numbers = ops.broadcast(numbers, x.shape, together)
        return ops.map_(var(0) * scalar.where(p - var(1), 0.0, 1.0 / (1.0 - p)), x, numbers)

    def running(self, name: str, start: float, now: Node, positions: int) -> Node:
        """Returns a running statistic as an input of the graph; see `Running`."""
        full = self._owned(name)
        node = ops.input_(full, now.shape)
        self.record.running[full] = Running(node, start, now, positions)
        return node

    def momentum(self, value: float | None) -> None:
        """Sets the weight of a new batch in this layer's running statistics; None averages all."""
        self.record.momenta[self.prefix[:-1]] = value


def check_one(layer: Layer, x: Any) -> None:
    """Raises an error where several values reach a layer that takes one."""
    if not isinstance(x, Node) and not getattr(layer, "several", True):
        raise ShapeError(
            "it takes one input: put a layer of your own before it, which takes them all"
        )


def constant_name(values: Tensor) -> str:
    """Returns the name of a constant tensor, float64 or int64, which says what it holds."""
    content = hashlib.sha256(values.cpu().contiguous().numpy().tobytes())
    content.update(repr((values.dtype, tuple(values.shape))).encode())
    return content.hexdigest()[:16]


def constant_leaf(name: str, values: Tensor) -> Node:
    """Returns the leaf of a constant tensor."""
    kind = "float" if values.is_floating_point() else "int"
    return ops.input_(f"constant:{name}", tuple(values.shape), kind)


def _by_sample(name: str, shape: Shape) -> tuple[Node, Node]:
    """Returns a leaf with the samples on its first axis, and its numbers in a shape."""
    at = batch_axis(shape)
    if at is None or shape[0] is N:
        leaf = ops.input_(name, shape)
        return leaf, leaf
    before, times, after = shape[:at], shape[at].times, shape[at + 1 :]
    leaf = ops.input_(name, (N, times, *before, *after))
    rest = range(at + 2, len(shape) + 1)
    return leaf, ops.reshape(ops.transpose(leaf, (*range(2, at + 2), 0, 1, *rest)), shape)


def _described(x: Any) -> str:
    """Says what a layer got: one value, or several by name."""
    nodes = named(x)
    if nodes.keys() == {ALONE}:
        return describe(nodes[ALONE].shape)
    return ", ".join(f"{name}: {describe(node.shape)}" for name, node in nodes.items())


def describe(shape: Shape) -> str:
    """Says a shape in words, without the batch and in PyTorch's order."""
    if len(shape) == 4:
        _, h, w, c = shape
        return f"a {show((c, h, w))} image"
    return f"{show(shape[1:])} features"


@dataclass(frozen=True)
class Lookup:
    """A table whose rows are read at the numbers that an input holds.

    Attributes:
        index: the numbers, a view of the input without copies.
        rows: how many rows there are.
    """

    index: Node
    rows: int


@dataclass(frozen=True)
class Traced(DataTerm):
    """The forward graph of a network with its loss, in training or evaluation mode.

    Attributes:
        inputs: the inputs by name, "x" where there is one, each N×(the shape of a sample).
        criterion: the loss as it was given.
        parameters: the parameters by name, in PyTorch's order.
        nodes: their nodes by the same names.
        running: the running statistics by name, in PyTorch's order.
        momenta: the weight of a new batch in running statistics, by batch norm layer.
        constants: the constant tensors by name, float64 or int64.
        random: the leaves of random numbers by the name of their site.
        training: whether batch statistics are used.
        part: what sums over samples go over where the batch is a part of a whole one, see `trace`.
    """

    inputs: Mapping[str, Node]
    criterion: Loss
    parameters: Mapping[str, Parameter]
    nodes: Mapping[str, Node]
    running: Mapping[str, Running]
    momenta: Mapping[str, float | None]
    constants: Mapping[str, Tensor]
    random: Mapping[str, Node]
    training: bool
    part: str | None = None

    @cached_property
    def lookups(self) -> dict[str, list[Lookup]]:
        """The tables whose rows integer inputs are the numbers of, by the name of the input."""
        found: dict[str, list[Lookup]] = {name: [] for name in self.inputs}
        names = {leaf: name for name, leaf in self.inputs.items()}
        for node in topological([self.z]):
            if node.op is Op.GATHER_ROWS:
                table, index = node.inputs
                leaf = index
                while leaf.op in VIEWS:
                    copied = leaf.op is Op.BROADCAST
                    (leaf,) = leaf.inputs
                    index = leaf if copied else index
                if leaf in names:
                    found[names[leaf]].append(Lookup(index, table.shape[-2]))
        return found

    @property
    def mixes_samples(self) -> bool:
        """Whether the outputs of a sample depend on the others of its batch."""
        return self.training and bool(self.running)

    @property
    def trained(self) -> dict[str, Node]:
        """The nodes of the parameters that are not frozen, by name."""
        return {name: node for name, node in self.nodes.items() if node.op is Op.PARAM}


def _leaf(name: str, spec: InputSpec) -> Node:
    """Returns the leaf of an input."""
    return ops.input_(name if name == ALONE else f"x:{name}", (N, *spec.shape), spec.kind)


def _image(x: Node) -> Node:
    """Returns an input as layers take it: an image with its channels last."""
    return ops.transpose(x, (0, 2, 3, 1)) if ops.rank(x) == 4 else x


def trace(
    net: Layer,
    inputs: Any,
    criterion: Loss,
    training: bool = True,
    frozen: Collection[str] | None = None,
    part: str | None = None,
) -> Traced:
    """Builds the forward graph.

    Args:
        net: the network. It gives images channels last; one whose `torch_order` is set gives them
            in PyTorch's order.
        inputs: the shape of one sample, or an `InputSpec`; a tuple or a dictionary of them for
            several inputs.
        criterion: the loss.
        training: whether batch norm takes batch statistics instead of running ones.
        frozen: the names of the frozen parameters; None leaves it to the layers.
        part: where a batch is a part of a larger one, see `data_term`: what sums over samples in
            the network go over, the part's "own" samples or those of the "whole" batch. None for a
            batch by itself.

    Raises:
        ShapeError: names the layer at which the shapes do not fit.
        NewtritonError: a layer stands at two places or is none of newtriton's, a parameter's `init`
            is unknown, or there are no parameters.
    """
    specs = specifications(inputs)
    leaves = {name: _leaf(name, spec) for name, spec in named(specs).items()}
    x = rebuilt(specs, {name: _image(leaf) for name, leaf in leaves.items()})
    record = _Record(training, frozen)
    if not hasattr(net, "build"):
        raise NewtritonError(f"the network is {quoted(net)}: use newtriton's own layers")
    try:
        check_one(net, x)
        value = net.build(x, Scope(record).of(net))
    except ShapeError as error:
        if error.placed:
            raise
        raise ShapeError(f"{quoted(net)} got {_described(x)}: {error}") from None
    if not record.parameters:
        raise NewtritonError(f"{quoted(net)} has no parameters: there is nothing to train")
    simple = simplify({"z": value, **{name: r.now for name, r in record.running.items()}})
    if part == "whole":
        whole = of_whole(simple.values(), summed=True)
        simple = {name: whole[node] for name, node in simple.items()}
    value = simple.pop("z")
    running = {name: replace(record.running[name], now=now) for name, now in simple.items()}
    with made_at(type(criterion).__name__):
        image = ops.rank(value) == 4 and not getattr(net, "torch_order", False)
        term = data_term(criterion, value, image, part is not None)
    return Traced(
        **vars(term), inputs=leaves, criterion=criterion, parameters=record.parameters,
        nodes=record.nodes, running=running, momenta=record.momenta,
        constants=record.constants | constants(topological([term.loss])),
        random=record.random, training=training, part=part,
    )  # fmt: skip

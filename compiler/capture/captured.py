"""A captured module as a layer: its exported graph, built node by node in either mode."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..graph import ops
from ..graph.errors import NewtritonError
from ..graph.ir import Node, made_at
from ..language.network import Scope
from ..language.trees import named
from .calls import (
    Call,
    advice_on,
    described,
    given,
    is_call,
    is_function,
    name_of,
    place_of,
    source_of,
)
from .choosing import chosen_output
from .exporting import Exported, exported, runs_with
from .folding import Folded, folded, folds, symbol
from .site import Site, permuted
from .table import RULES, known

CONVOLUTIONS = ("conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "convolution")
COUNTER = "num_batches_tracked"
CHECKS = ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size")


@dataclass(frozen=True)
class Refused:
    """What cannot be taken, in the place of a value."""


@dataclass(frozen=True)
class Changing:
    """A buffer that training changes, in the place of a value.

    Attributes:
        name: its name.
    """

    name: str


@dataclass(eq=False, repr=False)
class Captured:
    """A module as a layer of the language.

    Attributes:
        title: the name of the module's class.
        modes: the module in training and in evaluation mode.
        shapes: the shapes of its parameters as PyTorch has them, by name.
        orders: the permutation of a parameter's axes, as they are stored, into PyTorch's.
        held: the names of the parameters that are not trained.
        used: the names of the parameters that the output depends on.
        torch_order: whether an image comes in PyTorch's order of axes, see `network.trace`.
    """

    torch_order: ClassVar[bool] = True
    title: str
    modes: Mapping[bool, Exported]
    shapes: Mapping[str, tuple[int, ...]]
    orders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    used: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return self.title

    @property
    def changing(self) -> set[str]:
        """The names of the buffers that training changes."""
        return set(self.modes[True].mutated.values())

    def build(self, x: Any, scope: Scope) -> Node:
        """Returns the module's output, in PyTorch's order of axes.

        Raises:
            NewtritonError: lists everything that cannot be taken.
        """
        return _Reading(self, self.modes[scope.training], scope).output(named(x))


def capture(module: nn.Module, example: Any, output: str | int | None = None) -> Captured:
    """Returns a module as a layer.

    Args:
        module: the module; it is left as it is.
        example: a batch of at least two samples: a tensor, a tuple of tensors or a dict of them.
        output: which tensor counts, see `chosen_output`.

    Raises:
        NewtritonError: PyTorch cannot trace it, or something in it changes gradients.
    """
    for name, part in (*module.named_modules(), *module.named_parameters()):
        if part._backward_hooks:
            raise NewtritonError(
                f"{name or type(module).__name__} has a backward hook, which is never called here: "
                "remove it"
            )

    def choose(returned: Any) -> Tensor:
        return chosen_output(returned, output)

    modes = {
        training: exported(module, example, training, choose, unknown) for training in (True, False)
    }
    parameters = dict(module.named_parameters())
    found = [m.parameters.get(n.name) for m in modes.values() for n in _ancestors(m.output)]
    used = frozenset(filter(None, found))
    return Captured(
        type(module).__name__,
        modes,
        {name: tuple(p.shape) for name, p in parameters.items()},
        _orders(modes[True], module, example),
        frozenset(n for n, p in parameters.items() if not p.requires_grad or n not in used),
        used,
    )


def _orders(mode: Exported, module: nn.Module, example: Any) -> dict[str, tuple[int, ...]]:
    """Weights of convolutions are stored with their channels last, all else as in PyTorch.

    What such weights make has its channels last in memory too. A module that takes views of it
    which cannot be had so keeps its weights as they are.
    """
    found: dict[str, tuple[int, ...]] = {}
    for call in mode.nodes:
        if is_function(call) and name_of(call) in CONVOLUTIONS:
            weight = call.args[1]
            if is_call(weight) and weight.name in mode.parameters:
                rank = weight.meta["val"].ndim
                found[mode.parameters[weight.name]] = (0, rank - 1, *range(1, rank - 1))
    stored = {
        name: torch.moveaxis(torch.moveaxis(module.get_parameter(name), 1, -1).contiguous(), -1, 1)
        for name in found
    }
    return found if not found or runs_with(module, example, stored) else {}


def unknown(nodes: Sequence[Call], constants: Collection[str]) -> set[Any]:
    """Returns the ops of calls that have no rule and give no constant."""
    fixed = constant_nodes(nodes, constants)
    return {
        node.target
        for node in nodes
        if is_function(node)
        and node not in fixed
        and not known(node)
        and name_of(node) not in CHECKS
    }


def constant_nodes(nodes: Sequence[Call], inputs: Collection[str]) -> set[Call]:
    """Returns the nodes whose values depend on neither parameters nor inputs.

    Args:
        nodes: those of an exported graph, operands first.
        inputs: the names of those that stand for constants.
    """
    found: set[Call] = set()
    for node in nodes:
        if node.op == "placeholder":
            constant = node.name in inputs
        else:
            constant = symbol(node) is not None or (
                is_function(node) and folds(node, found.__contains__)
            )
        if constant:
            found.add(node)
    return found


def _ancestors(output: Call) -> set[Call]:
    """Returns the nodes that an output needs."""
    found, stack = {output}, [output]
    while stack:
        for node in stack.pop().all_input_nodes:
            if node not in found:
                found.add(node)
                stack.append(node)
    return found


class _Reading:
    """One pass over an exported graph, from the inputs to the output."""

    def __init__(self, captured: Captured, mode: Exported, scope: Scope) -> None:
        self.captured, self.mode, self.scope = captured, mode, scope
        changing = captured.changing
        self.buffers = {node: name for node, name in mode.buffers.items() if name in changing}
        constants = mode.constants.keys() - self.buffers.keys()
        self.constants = constant_nodes(mode.nodes, constants)
        self.values: dict[Call, Any] = {}
        self.faults: dict[str, None] = {}

    def output(self, inputs: Mapping[str, Node]) -> Node:
        """Returns the node of the output; raises one error for all that cannot be taken."""
        leaves = self._parameters()
        leaves |= {self.mode.inputs[name]: _in_order(x) for name, x in inputs.items()}
        leaves |= {node: Changing(name) for node, name in self.buffers.items()}
        for fault in self._changes():
            self.faults[fault] = None
        needed = _ancestors(self.mode.output)
        for call in self.mode.nodes:
            if call in needed:
                self.values[call] = leaves[call.name] if call.name in leaves else self._value(call)
        if self.faults:
            listed = "".join(f"\n  {fault}" for fault in self.faults)
            raise NewtritonError(f"{self.captured.title} cannot be taken:{listed}")
        return self._site(self.mode.output).node(self.values[self.mode.output])

    def _parameters(self) -> dict[str, Node]:
        """The parameters in PyTorch's order of axes, by the nodes that stand for them."""
        found: dict[str, Node] = {}
        for name, shape in self.captured.shapes.items():
            order = self.captured.orders.get(name, tuple(range(len(shape))))
            stored = tuple(shape[order.index(axis)] for axis in range(len(shape)))
            frozen = name in self.captured.held
            leaf = self.scope.parameter(name, stored, "zeros", (1, 1), order, frozen)
            found[name] = permuted(leaf, order)
        return {node: found[name] for node, name in self.mode.parameters.items()}

    def _changes(self) -> list[str]:
        """What training changes besides the running statistics of batch norms."""
        calls = {node.name: node for node in self.mode.nodes}
        statistics = {
            call.name
            for call in self.mode.nodes
            if name_of(call) == "getitem"
            and name_of(call.args[0]) == "_native_batch_norm_legit_functional"
        }
        faults = []
        for node, name in self.mode.mutated.items():
            counter = name.endswith(COUNTER) and name_of(calls[node]) == "add"
            if not counter and node not in statistics:
                faults.append(
                    f"buffer {name} is changed by forward, {source_of(calls[node])}: only running "
                    "statistics of batch norm may change; keep it out of forward"
                )
        return faults

    def _site(self, call: Call) -> Site:
        return Site(call, self.scope, self.buffers, self.mode.momenta)

    def _value(self, call: Call) -> Any:
        """The value of a call or of a constant."""
        if (known_size := symbol(call)) is not None:
            return known_size
        if call.op == "placeholder":
            tensor = self.mode.constants[call.name]
            return Folded((tensor, tensor), call.meta["val"])
        operands = pytree.tree_leaves(pytree.tree_map(self._operand, (call.args, call.kwargs)))
        below = any(isinstance(v, Refused) for v in operands)
        if below and known(call):
            return Refused()
        try:
            if below:
                raise NewtritonError(advice_on(call))
            if call in self.constants:
                return folded(call, self._constant)
            with made_at(place_of(call)):
                return self._built(call)
        except Exception as error:  # a fault of a rule is a refusal too, with its place
            reason = str(error) if isinstance(error, NewtritonError) else repr(error)
            self.faults[f"{described(call)}: {reason}"] = None
            return Refused()

    def _operand(self, value: Any) -> Any:
        return self.values[value] if is_call(value) else value

    def _constant(self, call: Call) -> Folded | None:
        value = self.values.get(call)
        return value if isinstance(value, Folded) else None

    def _built(self, call: Call) -> Any:
        """Applies the rule of a call."""
        if name_of(call) == "getitem":
            several, i = call.args
            return self.values[several][i]
        if name_of(call) not in RULES:
            raise NewtritonError(advice_on(call))
        values = [_plain(pytree.tree_map(self._operand, v)) for v in given(call)]
        rule = RULES[name_of(call)]
        if "batch_norm" not in name_of(call):
            for value in pytree.tree_leaves(values):
                if isinstance(value, Changing):
                    raise NewtritonError(f"it reads {value.name}, which training changes")
        return rule(self._site(call), *values)


def _in_order(x: Node) -> Node:
    """Returns an input in PyTorch's order of axes; networks are given images channels last."""
    return ops.transpose(x, (0, 3, 1, 2)) if ops.rank(x) == 4 else x


def _plain(value: Any) -> Any:
    """Returns options without symbols where the batch size has no part in them."""
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Folded) and not isinstance(value.values[0], Tensor):
        first, second = value.values
        return first if first == second else value
    return value

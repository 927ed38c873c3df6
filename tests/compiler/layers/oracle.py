"""A layer against PyTorch's module in float64, with the same parameters under the same names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N, Node
from newtriton.compiler.graph.transposes import inverse
from newtriton.compiler.language.network import Layer, Parameter, Scope, _Record, constant_leaf
from newtriton.compiler.layers.arguments import graph_order, torch_order
from tests.compiler.functions.oracle import assert_agrees, random


def traced(layer: Layer, x: Node, nodes: dict[str, Node] | None = None) -> tuple[Node, _Record]:
    """Returns the output of a layer in PyTorch's order, and what the trace has collected.

    Args:
        layer: the layer.
        x: its input in PyTorch's order.
        nodes: what stands for its parameters, by name.
    """
    record = _Record(training=True)
    record.nodes.update(nodes or {})
    return torch_order(layer.build(graph_order(x), Scope(record))), record


def parameters_of(layer: Layer, shape: tuple[int, ...], kind: str = "float") -> list[Parameter]:
    """Returns the parameters that a layer has for inputs of a shape, without the batch."""
    _, record = traced(layer, ops.input_("x", (N, *shape), kind))
    return list(record.parameters.values())


def torch_shape(parameter: Parameter) -> tuple[int, ...]:
    """Returns the shape of a parameter in PyTorch."""
    return tuple(parameter.shape[axis] for axis in parameter.order)


def same_layer(layer: Layer, module: nn.Module, *inputs: Tensor, derivatives: bool = True) -> None:
    """Fails where a layer's outputs, derivatives, or names and shapes of parameters are not those.

    Args:
        layer: the layer.
        module: PyTorch's module.
        inputs: batches of inputs.
        derivatives: whether to compare derivatives too.
    """
    module = module.double().train()
    for x in inputs:
        kind = "float" if x.is_floating_point() else "int"
        parameters = parameters_of(layer, tuple(x.shape[1:]), kind)
        values = [random(*torch_shape(p), seed=40 + i) for i, p in enumerate(parameters)]
        names = [p.name for p in parameters]
        assert names == [name for name, _ in module.named_parameters()]
        for value, own in zip(values, module.parameters(), strict=True):
            assert value.shape == own.shape

        def ours(x: Node, *rest: Any, parameters=tuple(parameters)) -> Node:
            *leaves, constants = rest
            nodes = {
                p.name: ops.transpose(leaf, inverse(p.order))
                for p, leaf in zip(parameters, leaves, strict=True)
            }
            y, record = traced(layer, x, nodes)
            for name, held in record.constants.items():
                constants.feed[constant_leaf(name, held)] = held
            return y

        def theirs(x: Tensor, *values: Tensor, names=tuple(names)) -> Tensor:
            state = dict(zip(names, values, strict=True))
            return torch.func.functional_call(module, state, (x,))

        assert_agrees(ours, theirs, x, *values, derivatives=derivatives)

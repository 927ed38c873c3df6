"""Functions of the graph against PyTorch's in float64: values and derivatives of two orders."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from newtriton.compiler.derivatives.jvp import jvp
from newtriton.compiler.derivatives.quadratic import quadratic_forms
from newtriton.compiler.derivatives.transpose import vjp
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Graph, N, Node
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.graph.simplify import simplify
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context
from tests.tolerances import assert_close

F64 = torch.float64


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Returns normal numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64) * scale


def channels_last(x: Node) -> Node:
    """Returns a value in PyTorch's order, N×C×…, with its channels last."""
    return ops.transpose(x, (0, *range(2, ops.rank(x)), 1))


def channels_first(x: Node) -> Node:
    """Returns a value with its channels last in PyTorch's order."""
    rank = ops.rank(x)
    return ops.transpose(x, (0, rank - 1, *range(1, rank - 1)))


def weights_last(w: Node) -> Node:
    """Returns the weights of a convolution in PyTorch's order with their inputs last."""
    return ops.transpose(w, (0, *range(2, ops.rank(w)), 1))


class Leaves:
    """Inputs of a graph with their values; called with one it makes a leaf.

    Attributes:
        feed: the values by node.
    """

    def __init__(self) -> None:
        self.feed: dict[Node, Tensor] = {}

    def __call__(self, value: Tensor, batched: bool = False) -> Node:
        """Returns a new input that has this value."""
        shape = (N, *value.shape[1:]) if batched else tuple(value.shape)
        kind = "float" if value.is_floating_point() else "int"
        node = ops.input_(f"leaf {len(self.feed)}", shape, kind)
        self.feed[node] = value.detach()
        return node


def assert_agrees(
    ours: Callable[..., Node],
    theirs: Callable[..., Tensor],
    *operands: Tensor,
    batched: int = 1,
    derivatives: bool = True,
) -> None:
    """Fails where a function of the graph is not PyTorch's, or where derivatives of Σ c·y² are not.

    Args:
        ours: takes nodes and what makes constants to a node in PyTorch's order.
        theirs: takes tensors to a tensor.
        operands: the values of the operands.
        batched: how many operands, the first ones, have the batch as their first axis.
        derivatives: whether to compare derivatives too, in all operands that are not integers.
    """
    leaves = Leaves()
    nodes = [leaves(value, i < batched) for i, value in enumerate(operands)]
    y = ours(*nodes, leaves)
    tensors = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in operands]
    expected = theirs(*tensors)
    values, samples = {"value": y}, len(operands[0])
    wanted = {"value": expected}
    if derivatives:
        moving = [i for i, t in enumerate(operands) if t.is_floating_point()]
        found, right = second_order(y, expected, moving, nodes, tensors, leaves)
        values |= found
        wanted |= right
    graph = Graph("test", simplify(values))
    context = Context(samples, F64, torch.device("cpu"))
    got = AtenExecutor(graph)(context, leaves.feed)
    for name, node in graph.outputs.items():
        assert_close(got[node], wanted[name].detach(), name)


def second_order(
    y: Node,
    expected: Tensor,
    moving: list[int],
    nodes: list[Node],
    tensors: list[Tensor],
    leaves: Leaves,
) -> tuple[dict[str, Node], dict[str, Tensor]]:
    """Returns gradients, Hessian products and a form of Σ c·y², as nodes and by autograd."""
    weights = random(*expected.shape, seed=9)
    squares = ops.map_(var(0) * var(0) * var(1), y, leaves(weights, batched=True))
    loss, one = ops.reduce_sum(squares), ops.const(1.0)
    directions = [random(*tensors[i].shape, seed=20 + i) for i in moving]
    wrt = [nodes[i] for i in moving]
    tangents = {
        node: leaves(v, bool(node.shape) and node.shape[0] is N)
        for node, v in zip(wrt, directions, strict=True)
    }
    adjoints = vjp({loss: one}, wrt)
    products = jvp([adjoints[x] for x in wrt], tangents)
    (form,) = quadratic_forms(loss, adjoints, [tangents], two_products=False).values()
    inputs = [tensors[i] for i in moving]
    gradients = torch.autograd.grad((expected**2 * weights).sum(), inputs, create_graph=True)
    inner = sum((g * v).sum() for g, v in zip(gradients, directions, strict=True))
    assert isinstance(inner, Tensor)
    hessian = torch.autograd.grad(inner, inputs)
    found, right = {"form": form}, {}
    right["form"] = sum(
        ((h * v).sum() for h, v in zip(hessian, directions, strict=True)), inner * 0
    )
    for i, x, g, h in zip(moving, wrt, gradients, hessian, strict=True):
        found |= {f"gradient {i}": adjoints[x]}
        right |= {f"gradient {i}": g}
        product = products[adjoints[x]]
        if product is not None:
            found |= {f"product {i}": product}
            right |= {f"product {i}": h}
    return found, right

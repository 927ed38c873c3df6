"""Softmax along an axis, and attention of a sequence to itself."""

from __future__ import annotations

import torch

from ..functions import attention
from ..functions.linear import linear
from ..functions.shapes import cut
from ..graph import ops
from ..graph.errors import ShapeError
from ..graph.ir import Node
from ..graph.options import check_flag, check_integer, check_number
from ..language.described import Described
from ..language.network import Scope
from .arguments import (
    arranged,
    axis_of,
    check_divides,
    check_inferred,
    check_size,
    stated,
)


class Softmax(Described):
    """The softmax e^x_i / Σ_j e^x_j along an axis.

    Args:
        dim: the axis in PyTorch's order: 1 is that of features or channels, −1 the last one.

    Raises:
        NewtritonError: the axis is no integer.
        ShapeError: there is no such axis; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.Softmax(-1)
        Softmax(-1)
    """

    def __init__(self, dim: int) -> None:
        self.dim = check_integer("dim", dim)

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the softmax, in the shape of the input."""
        return attention.softmax(x, axis_of("dim", x, self.dim))


class LogSoftmax(Softmax):
    """The logarithm x_i − log Σ_j e^x_j of the softmax along an axis.

    Args:
        dim: the axis in PyTorch's order: 1 is that of features or channels, −1 the last one.

    Raises:
        NewtritonError: the axis is no integer.
        ShapeError: there is no such axis; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.LogSoftmax(1)
        LogSoftmax(1)
    """

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the logarithms, in the shape of the input."""
        return attention.log_softmax(x, axis_of("dim", x, self.dim))


class SelfAttention(Described):
    """Attention of a sequence to itself, T×D → T×D, with several heads (Vaswani et al. 2017).

    It is `torch.nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)` with one sequence
    as query, key and value, and has its parameters. `SelfAttention(num_heads)` or
    `SelfAttention(embed_dim, num_heads)`.

    Args:
        embed_dim (int): D, the number of features; it is inferred unless given.
        num_heads (int): into how many heads the features divide.
        dropout: the share of attention weights that drop out in training.
        bias: whether the projections have biases.
        causal: whether an element sees only itself and those before it.

    Raises:
        NewtritonError: an option is none that there can be.
        ShapeError: it is no sequence, or its features do not divide; raised when the network is
            compiled.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.Sequential(nt.SelfAttention(2, causal=True), nt.Flatten(), nt.Linear(3))
        >>> model = nt.compile(net, input_shape=(5, 8), loss=nt.CrossEntropyLoss())
        >>> {name: tuple(p.shape) for name, p in model.named_parameters() if "weight" in name}
        {'0.in_proj_weight': (24, 8), '0.out_proj.weight': (8, 8), '2.weight': (3, 40)}
    """

    def __init__(
        self,
        *sizes: int,
        dropout: float = 0.0,
        bias: bool = True,
        causal: bool = False,
        **named: int,
    ) -> None:
        names = {"embed_dim": check_size, "num_heads": check_size}
        found = arranged(self, names, "embed_dim", sizes, named)
        self.embed_dim: int | None = found["embed_dim"]
        self.num_heads: int = found["num_heads"]
        self.sizes = stated(found)
        self.dropout = check_number("dropout", dropout, 0.0, below=1.0)
        self.bias = check_flag("bias", bias)
        self.causal = check_flag("causal", causal)

    def build(self, x: Node, scope: Scope) -> Node:
        """Maps N×T×D to N×T×D."""
        if ops.rank(x) != 3:
            raise ShapeError("it needs a T×D sequence")
        _, length, width = x.shape
        check_inferred("embed_dim", self.embed_dim, width, f"SelfAttention({self.num_heads})")
        check_divides("features", width, self.num_heads)
        fans, out = (width, 3 * width), scope.child("out_proj")
        weight = scope.parameter("in_proj_weight", (3 * width, width), "xavier", fans)
        bias = out_bias = None
        if self.bias:
            bias = scope.parameter("in_proj_bias", (3 * width,), "zeros", fans)
        out_weight = out.parameter("weight", (width, width), "default", (width, width))
        if self.bias:
            out_bias = out.parameter("bias", (width,), "zeros", (width, width))
        packed = linear(x, weight, bias)
        q, k, v = (self._heads(cut(packed, 2, i * width, (i + 1) * width)) for i in range(3))
        indices = scope.constant(torch.arange(length).double())
        y = attention.attention(
            q,
            k,
            v,
            blind=False,
            thinned=lambda weights: scope.dropout(weights, self.dropout),
            order=(indices, indices) if self.causal else None,
        )
        together = ops.reshape(ops.transpose(y, (0, 2, 1, 3)), x.shape)
        return linear(together, out_weight, out_bias)

    def _heads(self, x: Node) -> Node:
        """Returns the features of each head, (N, heads, T, d)."""
        n, length, width = x.shape
        split = ops.reshape(x, (n, length, self.num_heads, width // self.num_heads))
        return ops.transpose(split, (0, 2, 1, 3))

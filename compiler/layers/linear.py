"""Layers whose weights are a matrix: the affine map, and the table of an embedding."""

from __future__ import annotations

from ..functions.embedding import embedding
from ..functions.linear import linear
from ..graph import ops
from ..graph.errors import NewtritonError, ShapeError, quoted
from ..graph.ir import Node
from ..graph.options import check_flag
from ..language.described import Described
from ..language.initial import NormalRows, bias_rule
from ..language.network import Scope
from .arguments import (
    arranged,
    by_name,
    check_inferred,
    check_init,
    check_numbers,
    check_size,
    stated,
)


class Linear(Described):
    """The affine map x Wᵀ + b of I features to O, of features or of each element of a sequence.

    `Linear(out_features)` or `Linear(in_features, out_features)`.

    Args:
        in_features (int): I, the number of inputs; it is inferred unless given.
        out_features (int): O, the number of outputs.
        bias: whether there is a b.
        init: the rule for the first weights, as in `Conv2d`.

    Raises:
        NewtritonError: an option is unknown or none that there can be.
        ShapeError: an image reaches the layer, or not I features; raised when the network is
            compiled.

    Examples:
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), input_shape=(4,), loss=nt.CrossEntropyLoss())
        >>> {name: tuple(p.shape) for name, p in model.named_parameters()}
        {'weight': (3, 4), 'bias': (3,)}
        >>> nt.Linear(4, 3)
        Linear(4, 3)
    """

    def __init__(self, *sizes: int, bias: bool = True, init: str = "default", **named: int) -> None:
        names = {"in_features": check_size, "out_features": check_size}
        found = arranged(self, names, "in_features", sizes, named)
        self.in_features: int | None = found["in_features"]
        self.out_features: int = found["out_features"]
        self.sizes = stated(found)
        self.bias = check_flag("bias", bias)
        check_init(init)
        self.init = init

    def build(self, x: Node, scope: Scope) -> Node:
        """Maps (N, …, I) to (N, …, O)."""
        check_numbers(x)
        if ops.rank(x) == 4:
            raise ShapeError("add Flatten() before it")
        if ops.rank(x) < 2:
            raise ShapeError("it needs features")
        width, o = x.shape[-1], self.out_features
        check_inferred("in_features", self.in_features, width, f"Linear({o})")
        fans = (width, o)
        weight = scope.parameter("weight", fans[::-1], self.init, fans)
        bias = scope.parameter("bias", (o,), bias_rule(self.init), fans) if self.bias else None
        return linear(x, weight, bias)


class Embedding(Described):
    """A row of a table for each integer, (N, …) → (N, …, D), as PyTorch's.

    Args:
        num_embeddings: V, the number of rows.
        embedding_dim: D, the length of a row.
        padding_idx: a row that starts at 0 and has no gradient; counted from the end below 0.

    Raises:
        NewtritonError: an option is none that there can be.
        ShapeError: no integers reach the layer; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.Sequential(nt.Embedding(100, 8), nt.Flatten(), nt.Linear(2))
        >>> model = nt.compile(net, nt.InputSpec((5,), "int"), nt.CrossEntropyLoss())
        >>> {name: tuple(p.shape) for name, p in model.named_parameters() if "weight" in name}
        {'0.weight': (100, 8), '2.weight': (2, 40)}
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *options: object,
        padding_idx: int | None = None,
    ) -> None:
        by_name("Embedding", options, "padding_idx=0")
        self.num_embeddings = check_size("num_embeddings", num_embeddings)
        self.embedding_dim = check_size("embedding_dim", embedding_dim)
        self.padding_idx = padding_idx
        if padding_idx is not None:
            self.padding_idx = check_size("padding_idx", padding_idx, -self.num_embeddings)
            if self.padding_idx >= self.num_embeddings:
                raise NewtritonError(
                    f"padding_idx is {quoted(padding_idx)}: there are {self.num_embeddings} rows"
                )

    def build(self, x: Node, scope: Scope) -> Node:
        """Maps (N, …) integers to (N, …, D)."""
        if x.type.kind != "int":
            raise ShapeError(
                'it needs integers: say input_shape=InputSpec(shape, "int") of the network\'s input'
            )
        shape, padding = (self.num_embeddings, self.embedding_dim), self.padding_idx
        first = NormalRows(None if padding is None else padding % shape[0])
        return embedding(scope.parameter("weight", shape, first, shape), x, padding)

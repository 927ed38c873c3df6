"""The curvature blocks of a network: which parameters each has, and of what form it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..graph.errors import MissingRule
from ..graph.ir import Node, Op
from ..language.network import Traced, layer_of
from .uses import Pair, Product, Taken, Uses, View, owner, uses_of

SHARINGS = ("expand", "reduce")
MAX_FACTOR = 8192  # rows of a factor above which its diagonal is kept


@dataclass(frozen=True)
class KroneckerLayer:
    """Parameters whose curvature block is A ⊗ G.

    They are the matrix M (O×D) of a product, laid out from the weights, and its bias as a last
    column.

    Attributes:
        layer: the layer's name; that of the weights where the layer has several such blocks.
        weight: the name of its weights.
        bias: the name of its bias, if it has one.
        groups: how many groups its channels form, each with a pair of its own.
        kernel: the size of a convolution's kernel, (1, 1) where inputs are no patches.
        stride: the steps of a convolution's window along each axis.
        padding: the zeros on either side of each axis.
        dilation: the steps between the window's taps along each axis.
        views: what is done to the weights before they are laid out as a matrix.
        rows: the rows of that matrix; None for the weights' first axis.
        transposed: whether M is the transposed matrix.
        looks_up: whether M's columns are looked up, so that A is a diagonal.
        plain: whether a sample's gradient is Σ g aᵀ over positions, so that it can be squared and
            a has a mean.
        size: the rows of the larger factor, where it is known.
    """

    layer: str
    weight: str
    bias: str | None
    groups: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    views: tuple[View, ...] = ()
    rows: int | None = None
    transposed: bool = False
    looks_up: bool = False
    plain: bool = True
    size: int = field(default=0, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its parameters."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    @property
    def owner(self) -> str:
        """The layer that its weights belong to."""
        return layer_of(self.weight)

    def is_diagonal(self, axes: int) -> bool:
        """Whether a factor with so many axes is a diagonal: one of a group without a second."""
        return axes == (2 if self.groups > 1 else 1)


@dataclass(frozen=True)
class DiagonalLayer:
    """Parameters whose curvature block is diagonal.

    Attributes:
        layer: the layer's name; that of the first parameter where the layer has other blocks.
        names: the names of its parameters.
    """

    layer: str
    names: tuple[str, ...]

    @property
    def owner(self) -> str:
        """The layer that its parameters belong to."""
        return layer_of(self.names[0])


@dataclass(frozen=True)
class Planned:
    """A block with what its statistics are made from.

    Attributes:
        block: the block.
        product: the uses of a Kronecker product; None of a diagonal one.
        spreads: by parameter of a diagonal one, where it is copied to all samples.
    """

    block: KroneckerLayer | DiagonalLayer
    product: Product | None
    spreads: dict[Node, list[Taken]]


def faults(traced: Traced) -> dict[str, str]:
    """Returns the layers of which a parameter has no curvature block, with a sentence on why."""
    found: dict[str, str] = {}
    for parameter, sentence in uses_of(traced).faults.items():
        found.setdefault(owner(parameter), sentence)
    return found


def blocks(
    traced: Traced, layers: Collection[str] | None = None
) -> list[KroneckerLayer | DiagonalLayer]:
    """Returns the curvature blocks of layers, in the network's order; diagonal ones come last.

    Args:
        traced: the network.
        layers: the layers of which blocks are wanted; None for all.

    Raises:
        MissingRule: one of them has no block, see `faults`.
    """
    return [planned.block for planned in plan(traced, uses_of(traced), layers)]


def plan(traced: Traced, uses: Uses, layers: Collection[str] | None = None) -> list[Planned]:
    """Returns the blocks as `blocks` does, each with what its statistics are made from."""
    for parameter, sentence in uses.faults.items():
        if layers is None or owner(parameter) in layers:
            raise MissingRule(sentence)
    wanted = [p for p in uses.products if layers is None or owner(p.parameter) in layers]
    spreads: dict[str, dict[Node, list[Taken]]] = {}
    for parameter, where in uses.spreads.items():
        if layers is None or owner(parameter) in layers:
            spreads.setdefault(owner(parameter), {})[parameter] = where
    counts = Counter(owner(product.parameter) for product in uses.products)
    return [*_products(wanted, counts), *_spreads(spreads, counts)]


def _products(products: list[Product], counts: Counter[str]) -> Iterator[Planned]:
    """Yields Kronecker products, named after their layer where it has no other."""
    for product in products:
        layer = owner(product.parameter)
        name = layer if counts[layer] == 1 else product.name
        yield Planned(_described(name, product), product, {})


def _spreads(
    spreads: dict[str, dict[Node, list[Taken]]], counts: Counter[str]
) -> Iterator[Planned]:
    """Yields diagonal blocks, a layer's parameters in one."""
    for layer, parameters in spreads.items():
        names = tuple(p["name"] for p in parameters)
        name = names[0] if counts[layer] else layer
        yield Planned(DiagonalLayer(name, names), None, parameters)


def _described(name: str, product: Product) -> KroneckerLayer:
    """Returns the description of a Kronecker product."""
    use, bias = product.first, product.bias
    arrangement = use.arrangement
    kernel: Pair = (1, 1)
    window: dict[str, Any] = {}
    if use.node.op is Op.CONV:
        kernel = use.taken.operand.shape[1:3]
        window = {k: use.node[k] for k in ("stride", "padding", "dilation")}
    rows = arrangement.shape[0]
    return KroneckerLayer(
        name,
        product.name,
        None if bias is None else bias["name"],
        arrangement.groups,
        kernel,
        **window,
        views=arrangement.views,
        rows=None if not arrangement.views and rows == product.parameter.shape[0] else rows,
        transposed=use.transposed,
        looks_up=product.looks_up,
        plain=product.is_plain,
        size=max(product.sides),
    )

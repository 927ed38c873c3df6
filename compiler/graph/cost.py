"""What a graph costs: units of work, floating-point operations, bytes. Counted, never timed."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

from . import memory, scalar
from .ir import CONTRACTIONS, LEAVES, VIEWS, Graph, Node, Op, concrete
from .memory import Lifetime


def _numel(node: Node, batch: int) -> int:
    """Returns the number of elements of a node's value."""
    return node.type.numel(batch)


def _contraction(position: int) -> Callable[[Node, int], int]:
    """Returns a rule that counts two operations per weight and position of the output.

    The output of the forward convolution is operand `position`, or the node itself at −1.
    """

    def rule(node: Node, batch: int) -> int:
        image = node if position < 0 else node.inputs[position]
        weights = node if node.op is Op.CONV_WEIGHT_GRAD else node.inputs[1]
        positions = math.prod(concrete(image.shape[:-1], batch))
        return 2 * positions * _numel(weights, batch)

    return rule


def _matmul(node: Node, batch: int) -> int:
    """Counts two operations per element of the product and of the axis that is contracted."""
    x = node.inputs[0]
    inner = concrete(x.shape, batch)[-2 if node["transpose_a"] else -1]
    return 2 * inner * _numel(node, batch)


def _gram(node: Node, batch: int) -> int:
    """Counts two operations per row of the input and element of the result."""
    rows = math.prod(concrete(node.inputs[0].shape[:-1], batch))
    return 2 * rows * _numel(node, batch)


def _patch_gram(node: Node, batch: int) -> int:
    """Counts the products over rectangles, not the larger one over patches.

    On PyTorch's operators few numbers are taken in fewer and longer products (`patch_gram`).
    """
    image = node.inputs[0]
    window = (node[k] for k in ("kernel", "stride", "padding", "dilation"))
    ys, xs = (_lags(*axis) for axis in zip(image.shape[-3:-1], *window, strict=True))
    pixels = sum(
        ys[y] * xs[x] for y, x in product(ys, xs) if (y, x) >= (0, 0)
    )  # the block of −lag is the transpose of that of lag
    return 2 * batch * pixels * node["groups"] * (image.shape[-1] // node["groups"]) ** 2


def _lags(size: int, kernel: int, stride: int, padding: int, dilation: int) -> dict[int, int]:
    """Counts, by the distance of two taps, at how many positions both lie in the image."""
    count = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    found: dict[int, set[int]] = {}
    for tap, other in product(range(kernel), repeat=2):
        first, lag = dilation * tap - padding, dilation * (other - tap)
        visited = range(first, first + stride * count, stride)
        inside = [q for q in visited if 0 <= q < size and 0 <= q + lag < size]
        found.setdefault(lag, set()).update(inside)
    return {lag: len(positions) for lag, positions in found.items()}


def _map(node: Node, batch: int) -> int:
    """Counts the arithmetic of the expression, shared parts once, for each element."""
    arithmetic = sum(
        max(1, len(e.args) - 1) for e in scalar.subexpressions([node["expr"]]) if e.args
    )
    return arithmetic * _numel(node, batch)


def _window(node: Node, batch: int) -> int:
    """Counts one operation per tap and window."""
    return math.prod(node["kernel"]) * _numel(
        node if node.op is not Op.AVG_UNPOOL else node.inputs[0], batch
    )


def _read(node: Node, batch: int) -> int:
    """Counts one operation per element of the first operand."""
    return _numel(node.inputs[0], batch)


def _log_sum_exp(node: Node, batch: int) -> int:
    """Counts a maximum, a difference, an exponential and a sum for each element of the operand."""
    return 4 * _read(node, batch)


def _nothing(node: Node, batch: int) -> int:
    """Counts nothing for an op that only moves values."""
    return 0


def _spectral(node: Node, batch: int) -> int:
    """Counts about 9K³ for the eigenvectors of a K×K matrix, and 2K³ to put it together."""
    return 11 * node.shape[-1] * _numel(node, batch)


FLOPS: dict[Op, Callable[[Node, int], int]] = {
    **dict.fromkeys(LEAVES | VIEWS, _nothing),
    Op.MAP: _map,
    Op.MATMUL: _matmul,
    Op.CONV: _contraction(-1),
    Op.CONV_INPUT_GRAD: _contraction(0),
    Op.CONV_WEIGHT_GRAD: _contraction(0),
    Op.REDUCE_SUM: _read,
    Op.PAD: _nothing,
    Op.CONCAT: _nothing,
    Op.AVG_POOL: _window,
    Op.AVG_UNPOOL: _window,
    Op.ARGMAX_POOL: _window,
    Op.GATHER_MAX: _nothing,
    Op.SCATTER_MAX: _read,
    Op.GATHER_ROWS: _nothing,
    Op.SCATTER_ROWS: _read,
    Op.ONE_HOT: _nothing,
    Op.SAMPLE: _read,
    Op.ROW_MAX: _read,
    Op.LOG_SUM_EXP: _log_sum_exp,
    Op.GRAM: _gram,
    Op.PATCH_GRAM: _patch_gram,
    Op.SPECTRAL: _spectral,
    Op.ALL_SUM: _read,
}


def flops(graph: Graph, batch: int) -> int:
    """Counts the floating-point operations at a batch size."""
    return sum(FLOPS[node.op](node, batch) for node in graph.computed())


def _loaded(node: Node, batch: int) -> int:
    """Counts the elements that an op reads: of a table the rows that are looked up."""
    sizes = [_numel(x, batch) for x in node.inputs if x.op is not Op.CONST]
    if node.op is Op.GATHER_ROWS:
        sizes[0] = min(sizes[0], _numel(node, batch))
    return sum(sizes)


def traffic(graph: Graph, batch: int, itemsize: int) -> int:
    """Counts the bytes read and written if every op ran alone; views are free."""
    return itemsize * sum(
        _numel(node, batch) + _loaded(node, batch)
        for node in graph.computed()
        if node.op not in VIEWS
    )


def communicated(graph: Graph, itemsize: int) -> tuple[int, int]:
    """Counts the sums over ranks, and the bytes of what each rank gives to them."""
    sums = [node for node in graph.computed() if node.op is Op.ALL_SUM]
    return len(sums), itemsize * sum(_numel(node, 1) for node in sums)


def peak(graph: Graph, batch: int, itemsize: int) -> int:
    """Returns the most bytes alive at a time if every op ran alone, results not counted.

    Views are free.
    """
    first: dict[Node, int] = {}
    last: dict[Node, int] = {}
    results = {owner(n) for n in graph.outputs.values()}
    for i, node in enumerate(n for n in graph.computed() if n.op not in VIEWS):
        first[node] = i
        last |= {owner(x): i for x in (node, *node.inputs)}
    return memory.peak(
        {n: Lifetime(itemsize * _numel(n, batch), first[n], last[n]) for n in {*first} - results}
    )


def owner(node: Node) -> Node:
    """Returns the node whose memory a view looks at."""
    while node.op in VIEWS:
        (node,) = node.inputs
    return node


def units(graph: Graph) -> int:
    """Counts the units of work: convolutions and matrix products of a layer over the batch."""
    return sum(node.op in CONTRACTIONS for node in graph.computed())

"""Error bounds of every op: what float32 arithmetic may do to a value, element by element.

A value is computed in float64, and beside it a first-order bound of the error that the same graph
has in arithmetic of unit τ (a running error analysis; Higham, Accuracy and Stability of Numerical
Algorithms, chapter 3). Values that come from memory are exact. An op that sums products, f(x, y),
has positive coefficients, so that f itself gives the sum of its terms' absolute values:

    f(|x| + eₓ, |y| + e_y) − f(|x|, |y|) + τ (f(|x|, |y|) + √n/8 |f(x, y)|)

for n terms. The last part is for long sums of one sign: their partial sums grow, and rounding
errors add up like a random walk (Higham and Mary 2019). A sum that cancels is judged
by Σ|terms| therefore, and not by what is left of it. Ops that only move values move bounds.

An index is as good as another where the values at both are equal up to their bounds, and what is
chosen by it has the other choice in its bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...compiler.graph import ops, scalar
from ...compiler.graph.cost import FLOPS
from ...compiler.graph.ir import LEAVES, Node, Op, concrete, topological
from ...compiler.lowering.space import GRAMS
from ..aten.rules import ATEN, max_pool
from ..backend import Context
from .bounded import Bounded
from .expressions import bound_expression

WALK = 1 / 8  # of the error of a sum of n terms of one sign, in units of √n τ


class Arithmetic(NamedTuple):
    """The arithmetic that is analysed.

    Attributes:
        context: the batch size and the device, in float64.
        unit: the relative error τ of one operation.
    """

    context: Context
    unit: float

    def of(self, node: Node, *operands: Tensor) -> Tensor:
        """Returns an op of operands, by PyTorch's operator."""
        return ATEN[node.op](node)(self.context, *operands)


Rule = Callable[[Arithmetic, Node, Sequence[Bounded]], Bounded]


def bounded(
    nodes: Iterable[Node], known: Mapping[Node, Tensor], arithmetic: Arithmetic
) -> dict[Node, Bounded]:
    """Returns the values of nodes, and of all that they need, with their error bounds.

    Args:
        nodes: what to compute.
        known: exact values, from which the others follow.
        arithmetic: the arithmetic that is analysed.
    """
    found: dict[Node, Bounded] = {}
    for node in topological(nodes, stop=known.__contains__):
        if node in known:
            shape = concrete(node.shape, arithmetic.context.batch)
            found[node] = Bounded(_wide(known[node]).reshape(shape))
        else:
            rule = ops.rule_of(BOUNDS, node, "error bound")
            found[node] = rule(arithmetic, node, [found[x] for x in node.inputs])
    return found


def _wide(x: Tensor) -> Tensor:
    """Returns numbers in float64, indices in int64."""
    return x.double() if x.is_floating_point() else x.long()


def _leaf(arithmetic: Arithmetic, node: Node, operands: Sequence[Bounded]) -> Bounded:
    """Returns a number; data and parameters come from memory."""
    context = arithmetic.context
    assert node.op is Op.CONST, f"{node!r} is not known"
    number = scalar.evaluate(node["value"], context.batch)
    value = torch.tensor(number, dtype=context.dtype, device=context.device)
    return Bounded(value, arithmetic.unit * value.abs())


def _moved(arithmetic: Arithmetic, node: Node, operands: Sequence[Bounded]) -> Bounded:
    value = arithmetic.of(node, *(x.value for x in operands))
    if all(x.exact for x in operands):
        return Bounded(value)
    return Bounded(value, arithmetic.of(node, *(x.spread for x in operands)))


def _summed(arithmetic: Arithmetic, node: Node, operands: Sequence[Bounded]) -> Bounded:
    batch, unit = arithmetic.context.batch, arithmetic.unit
    value = arithmetic.of(node, *(x.value for x in operands))
    terms = arithmetic.of(node, *(x.value.abs() for x in operands))
    walk = WALK * math.sqrt(_count(node, batch)) * value.abs()
    error = unit * (terms + walk)
    if not all(x.exact for x in operands):
        error = error + arithmetic.of(node, *(x.magnitude for x in operands)) - terms
    return Bounded(value, error)


def _count(node: Node, batch: int) -> float:
    """Returns how many terms an element sums."""
    (x, *_) = node.inputs
    if node.op in GRAMS:
        return x.type.numel(batch) / x.shape[-1]
    return FLOPS[node.op](node, batch) / max(1, node.type.numel(batch))


def _map(arithmetic: Arithmetic, node: Node, operands: Sequence[Bounded]) -> Bounded:
    value, error = bound_expression(node["expr"], operands, *arithmetic)
    return Bounded(value.expand(concrete(node.shape, arithmetic.context.batch)), error)


def taps(node: Node, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields for every tap of a pool the place h·W + w that each window sees, and what is there.

    Outside the image that is −∞.
    """
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = (
        node[k] for k in ("kernel", "stride", "padding", "dilation")
    )
    (oh, ow), width = node.shape[-3:-1], x.shape[-2]
    padded = torch.nn.functional.pad(x, (0, 0, pw, pw, ph, ph), value=-math.inf)
    h = torch.arange(oh, device=x.device)[:, None, None] * sh - ph
    w = torch.arange(ow, device=x.device)[:, None] * sw - pw
    for i in range(0, kh * dh, dh):
        for j in range(0, kw * dw, dw):
            rows, columns = slice(i, i + (oh - 1) * sh + 1, sh), slice(j, j + (ow - 1) * sw + 1, sw)
            yield (h + i) * width + w + j, padded[..., rows, columns, :]


def _argmax_pool(arithmetic: Arithmetic, node: Node, operands: Sequence[Bounded]) -> Bounded:
    (x,) = operands
    index = arithmetic.of(node, x.value)
    if x.exact:
        return Bounded(index)
    least = least_maximum(x, index)
    others = [(place != index) & (best >= least) for place, best in taps(node, x.value + x.error)]
    return Bounded(index, torch.stack(others).any(0).double())


def least_maximum(x: Bounded, index: Tensor) -> Tensor:
    """Returns the least that the maximum of each window, which lies at an index, may be."""
    low = (x.value - x.error).flatten(-3, -2)
    return low.gather(-2, index.flatten(-3, -2)).view(index.shape)


def _gather_max(arithmetic: Arithmetic, node: Node, operands: Sequence[Bounded]) -> Bounded:
    """Adds the range of a window where its index may be another."""
    x, index = operands
    value = arithmetic.of(node, x.value, index.value)
    error = 0.0 if x.exact else arithmetic.of(node, x.spread, index.value)
    if not index.exact:
        pool, context = max_pool(node), arithmetic.context
        span = pool(context, x.value)[0] + pool(context, -x.value)[0]
        error = error + index.error * span
    return Bounded(value, error)


def _scatter_max(arithmetic: Arithmetic, node: Node, operands: Sequence[Bounded]) -> Bounded:
    """Adds to a whole channel what may go elsewhere in it."""
    ct, index = operands
    value = arithmetic.of(node, ct.value, index.value)
    terms = arithmetic.of(node, ct.value.abs(), index.value)
    error = arithmetic.unit * terms
    if not ct.exact:
        error = error + arithmetic.of(node, ct.spread, index.value)
    if not index.exact:
        error = error + (index.error * ct.magnitude).sum((-3, -2), keepdim=True)
    return Bounded(value, error)


def _scatter_rows(arithmetic: Arithmetic, node: Node, operands: Sequence[Bounded]) -> Bounded:
    """Bounds sums of rows: each adds the errors of its terms and of as many additions."""
    ct, index = operands
    value = arithmetic.of(node, ct.value, index.value)
    terms = arithmetic.of(node, ct.value.abs(), index.value)
    count = arithmetic.of(node, torch.ones_like(ct.value), index.value)
    error = arithmetic.unit * (terms + WALK * count.sqrt() * value.abs())
    if not ct.exact:
        error = error + arithmetic.of(node, ct.spread, index.value)
    return Bounded(value, error)


def _gather_rows(arithmetic: Arithmetic, node: Node, operands: Sequence[Bounded]) -> Bounded:
    table, index = operands
    value = arithmetic.of(node, table.value, index.value)
    return Bounded(value, 0.0 if table.exact else arithmetic.of(node, table.spread, index.value))


def _one_hot(arithmetic: Arithmetic, node: Node, operands: Sequence[Bounded]) -> Bounded:
    (y,) = operands
    hot = arithmetic.of(node, y.value)
    return Bounded(hot, 0.0 if y.exact else y.spread.unsqueeze(-1).expand_as(hot))


def classes(arithmetic: Arithmetic, z: Bounded, u: Bounded) -> tuple[Tensor, Tensor]:
    """Returns the first and the last class that may be drawn from logits z by uniforms u."""
    cumulative = z.value.softmax(-1).cumsum(-1)[..., :-1]
    reach = arithmetic.unit + 2 * z.spread.amax(-1, keepdim=True) + u.spread.unsqueeze(-1)
    uniform = u.value.unsqueeze(-1)
    first, last = ((uniform >= cumulative + side).sum(-1) for side in (reach, -reach))
    return first, last


def _sample(arithmetic: Arithmetic, node: Node, operands: Sequence[Bounded]) -> Bounded:
    first, last = classes(arithmetic, *operands)
    drawn = arithmetic.of(node, *(x.value for x in operands))
    return Bounded(drawn, (first != last).double())


def _row_max(arithmetic: Arithmetic, node: Node, operands: Sequence[Bounded]) -> Bounded:
    (x,) = operands
    return Bounded(arithmetic.of(node, x.value), 0.0 if x.exact else x.spread.amax(-1))


def _log_sum_exp(arithmetic: Arithmetic, node: Node, operands: Sequence[Bounded]) -> Bounded:
    """Bounds max x + log Σ e^(x − max x): what moves x, and τ of each function and sum."""
    (x,), unit = operands, arithmetic.unit
    value, largest = arithmetic.of(node, x.value), x.value.amax(-1)
    reach = x.spread + unit * (x.value - largest.unsqueeze(-1)).abs()
    below, above = (arithmetic.of(node, x.value + side) for side in (-reach, reach))
    own = 2.0 + WALK * math.sqrt(x.value.shape[-1]) + (value - largest).abs() + value.abs()
    return Bounded(value, torch.maximum(value - below, above - value) + unit * own)


def _spectral(arithmetic: Arithmetic, node: Node, operands: Sequence[Bounded]) -> Bounded:
    """Bounds the change of f over eigenvalues that move by √n τ ‖A‖, as those of float32 do."""
    (x,) = operands
    size = math.sqrt(node.shape[-1])
    eigenvalues = torch.linalg.eigvalsh(x.value)
    moved = size * arithmetic.unit * eigenvalues.abs().amax(-1, keepdim=True)
    reach = moved + x.spread.norm(dim=(-2, -1)).unsqueeze(-1)
    function = bound_expression(
        node["expr"], [Bounded(eigenvalues, reach.expand_as(eigenvalues))], *arithmetic
    )
    error = size * function.spread.amax(-1)[..., None, None]
    return Bounded(arithmetic.of(node, x.value), error.expand(x.value.shape))


BOUNDS: dict[Op, Rule] = {
    **dict.fromkeys(LEAVES, _leaf),
    Op.MAP: _map,
    Op.MATMUL: _summed,
    Op.CONV: _summed,
    Op.CONV_INPUT_GRAD: _summed,
    Op.CONV_WEIGHT_GRAD: _summed,
    Op.REDUCE_SUM: _summed,
    Op.BROADCAST: _moved,
    Op.RESHAPE: _moved,
    Op.TRANSPOSE: _moved,
    Op.SLICE: _moved,
    Op.PAD: _moved,
    Op.CONCAT: _moved,
    Op.AVG_POOL: _summed,
    Op.AVG_UNPOOL: _summed,
    Op.ARGMAX_POOL: _argmax_pool,
    Op.GATHER_MAX: _gather_max,
    Op.SCATTER_MAX: _scatter_max,
    Op.GATHER_ROWS: _gather_rows,
    Op.SCATTER_ROWS: _scatter_rows,
    Op.ONE_HOT: _one_hot,
    Op.SAMPLE: _sample,
    Op.ROW_MAX: _row_max,
    Op.LOG_SUM_EXP: _log_sum_exp,
    Op.GRAM: _summed,
    Op.PATCH_GRAM: _summed,
    Op.SPECTRAL: _spectral,
    Op.ALL_SUM: _summed,
}

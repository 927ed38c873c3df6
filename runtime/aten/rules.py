"""What each op is in PyTorch: the table of the ATen executor.

A rule takes a node, once, to a function of the context and the tensors of its operands.
Images lie N×H×W×C in memory, which PyTorch calls channels-last: permuted views reach its
convolutions and pools without a copy. Leading axes of copies are merged into the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ...compiler.graph import ops, scalar
from ...compiler.graph.ir import Node, Op, concrete
from ...kernels.gram import gram
from ...kernels.memory import empty
from ...kernels.patch_gram import patch_gram
from ...kernels.products import times_transposed
from ..backend import Context
from .pointwise import Pointwise
from .small_maps import input_grad, is_small, weight_grad

aten = torch.ops.aten
LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined]
Call = Callable[..., Tensor]
Rule = Callable[[Node], Call]


def nchw(x: Tensor) -> Tensor:
    """Returns (*lead, H, W, C) as N×C×H×W in channels-last order, without a copy."""
    return x.reshape(-1, *x.shape[-3:]).permute(0, 3, 1, 2)


def nhwc(x: Tensor, lead: torch.Size) -> Tensor:
    """Returns N×C×H×W as (*lead, H, W, C)."""
    x = x.permute(0, 2, 3, 1).contiguous()
    return x.view(*lead, *x.shape[1:])


def _like(x: Tensor, *size: int) -> Tensor:
    """Returns an image that only lends its size: PyTorch's backward operators ask for one."""
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _window(node: Node) -> tuple[Any, ...]:
    return (
        *(list(node[k]) for k in ("stride", "padding", "dilation")), False, [0, 0], node["groups"],
    )  # fmt: skip


def _conv(node: Node) -> Call:
    window = _window(node)

    def call(context: Context, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
        return nhwc(aten.convolution(nchw(x), nchw(w), bias, *window), x.shape[:-3])

    return call


def _conv_input_grad(node: Node) -> Call:
    window, (height, width) = _window(node), node["size"]

    def call(context: Context, ct: Tensor, w: Tensor) -> Tensor:
        if is_small(node, ct):
            return input_grad(node, ct, w)
        g, weight = nchw(ct), nchw(w)
        x = _like(ct, g.shape[0], weight.shape[1] * node["groups"], height, width)
        grad, _, _ = aten.convolution_backward(g, x, weight, None, *window, [True, False, False])
        return nhwc(grad, ct.shape[:-3])

    return call


def conv_weight_grad(node: Node, with_bias: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    """Returns what computes s̄⊛a, and Σ s̄ where asked: one PyTorch operator gives both."""
    window = _window(node)

    def call(context: Context, ct: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        if is_small(node, ct):
            return weight_grad(node, ct, x), ct.flatten(0, -2).sum(0)
        g, image = nchw(ct), nchw(x)
        o, kh, kw, c = concrete(node.shape, context.batch)
        weight = _like(ct, o, c, kh, kw)
        mask = [False, True, with_bias]
        _, grad, bias = aten.convolution_backward(g, image, weight, [o], *window, mask)
        return nhwc(grad, grad.shape[:1]), bias

    return call


def _conv_weight_grad(node: Node) -> Call:
    call = conv_weight_grad(node, with_bias=False)
    return lambda context, ct, x: call(context, ct, x)[0]


def _matmul(node: Node) -> Call:
    ta, tb = node["transpose_a"], node["transpose_b"]

    def call(context: Context, x: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
        x, y = (x.mT if ta else x), (y if tb else y.mT)
        if y.ndim > 2:
            return times_transposed(x, y, bias)
        rows = x.reshape(-1, x.shape[-1])
        return times_transposed(rows, y, bias).view(*x.shape[:-1], len(y))

    return call


def _reduce_sum(node: Node) -> Call:
    if node.inputs[0].type.kind == "int":  # integers count as numbers
        return lambda context, x: x.to(context.dtype).sum(node["axes"])
    return lambda context, x: x.sum(node["axes"])


def _broadcast(node: Node) -> Call:
    def call(context: Context, x: Tensor) -> Tensor:
        for axis in node["axes"]:
            x = x.unsqueeze(axis)
        return x.expand(concrete(node.shape, context.batch))

    return call


def _slice(node: Node) -> Call:
    return lambda context, x: x.narrow(node["axis"], node["start"], node["stop"] - node["start"])


def _pad(node: Node) -> Call:
    def call(context: Context, x: Tensor) -> Tensor:
        trailing = x.ndim - 1 - node["axis"]
        return torch.nn.functional.pad(x, [0, 0] * trailing + [node["low"], node["high"]])

    return call


def _average(node: Node) -> tuple[list[int], list[int], list[int], bool, bool]:
    return (
        list(node["kernel"]),
        list(node["stride"]),
        list(node["padding"]),
        False,
        node["count_include_pad"],
    )


def _avg_pool(node: Node) -> Call:
    window = _average(node)
    return lambda context, x: nhwc(aten.avg_pool2d(nchw(x), *window), x.shape[:-3])


def _avg_unpool(node: Node) -> Call:
    window, (height, width) = _average(node), node["size"]

    def call(context: Context, ct: Tensor) -> Tensor:
        g = nchw(ct)
        x = _like(ct, *g.shape[:2], height, width)
        return nhwc(aten.avg_pool2d_backward(g, x, *window, None), ct.shape[:-3])

    return call


def _maximum(node: Node) -> tuple[Any, ...]:
    return (
        *(list(node[k]) for k in ("kernel", "stride", "padding", "dilation")), False,
    )  # fmt: skip


def max_pool(node: Node) -> Callable[[Context, Tensor], tuple[Tensor, Tensor]]:
    """Returns what computes maxima and their places h·W + w, by one PyTorch operator."""
    window = _maximum(node)

    def call(context: Context, x: Tensor) -> tuple[Tensor, Tensor]:
        value, index = aten.max_pool2d_with_indices(nchw(x), *window)
        return nhwc(value, x.shape[:-3]), nhwc(index, x.shape[:-3])

    return call


def _argmax_pool(node: Node) -> Call:
    call = max_pool(node)
    return lambda context, x: call(context, x)[1]


def _gather_max(node: Node) -> Call:
    def call(context: Context, x: Tensor, index: Tensor) -> Tensor:
        shape = (*x.shape[:-3], *index.shape[-3:])
        places = index.expand(shape).flatten(-3, -2)
        return x.flatten(-3, -2).gather(-2, places).view(shape)

    return call


def _scatter_max(node: Node) -> Call:
    window, (height, width) = _maximum(node), node["size"]

    def call(context: Context, ct: Tensor, index: Tensor) -> Tensor:
        g, places = nchw(ct), nchw(index.expand(ct.shape))
        x = _like(ct, *g.shape[:2], height, width)
        grad = aten.max_pool2d_with_indices_backward(g, x, *window, places)
        return nhwc(grad, ct.shape[:-3])

    return call


def _sample(node: Node) -> Call:
    def call(context: Context, z: Tensor, u: Tensor) -> Tensor:
        """Returns the first class whose cumulative probability exceeds u, by binary search."""
        last = z.shape[-1] - 1
        cumulative = z.double().softmax(-1).cumsum(-1).reshape(-1, last + 1)
        draws = u.double().reshape(-1, len(cumulative)).T.contiguous()
        found = torch.searchsorted(cumulative, draws, right=True).clamp_(max=last)
        return found.T.reshape(u.shape)

    return call


def _gram(node: Node) -> Call:
    groups, homogeneous = node["groups"], node["homogeneous"]
    scale_at = cache(lambda batch: scalar.evaluate(node["scale"], batch))

    def call(context: Context, x: Tensor, out: Tensor | None = None) -> Tensor:
        if groups == 1:
            return gram(x.reshape(-1, x.shape[-1]), homogeneous, scale_at(context.batch), out)
        rows = x.reshape(-1, groups, x.shape[-1] // groups).transpose(0, 1)
        return gram(rows, homogeneous, scale_at(context.batch), out)

    return call


def _patch_gram(node: Node) -> Call:
    window = {
        k: node[k] for k in ("kernel", "stride", "padding", "dilation", "groups", "homogeneous")
    }
    scale_at = cache(lambda batch: scalar.evaluate(node["scale"], batch))
    return lambda context, x, out=None: patch_gram(
        x, **window, scale=scale_at(context.batch), out=out
    )


def _spectral(node: Node) -> Call:
    """Returns what computes Q f(Λ) Qᵀ from Q Λ Qᵀ; NaN where there are no finite eigenvalues."""
    one = ops.map_(node["expr"], ops.input_("eigenvalues", node.shape[:-1]))
    function = Pointwise([one], [one]).single

    def call(context: Context, x: Tensor) -> Tensor:
        finite = torch.isfinite(x).all(-1, keepdim=True).all(-2, keepdim=True)
        try:
            values, vectors = torch.linalg.eigh(x.where(finite, 0.0))  # it would raise
        except LinAlgError:  # numbers so large that it does not converge
            return torch.full_like(x, torch.nan)
        result = (vectors * function(context, values).unsqueeze(-2)) @ vectors.mT
        return result.where(finite, torch.nan)

    return call


def _one_hot(node: Node) -> Call:
    def call(context: Context, y: Tensor) -> Tensor:
        """Returns rows of zeros with a one at the class; zeros alone where that is below 0."""
        hot = torch.zeros(*y.shape, node["classes"], dtype=context.dtype, device=y.device)
        y = y.unsqueeze(-1)
        return hot.scatter_(-1, y.clamp(min=0), (y >= 0).to(context.dtype))

    return call


def rows_softmax(context: Context, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns max x − log max p of rows, which is log Σ eˣ, and their softmax p."""
    p, largest = torch.softmax(x, -1), x.amax(-1)
    return torch.where(largest.isfinite(), largest - p.amax(-1).log_(), largest), p


def shifted_softmax(context: Context, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns log Σ e^(x − max x) of rows, which is −log max p, and their softmax p."""
    p = torch.softmax(x, -1)
    return p.amax(-1).log_().neg_(), p


def chosen(context: Context, y: Tensor, x: Tensor, less: Tensor | float = 0.0) -> tuple[Tensor]:
    """Returns the element of each row at its class less a number, 0 where the class is below 0."""
    found = x.gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1) - less
    return (torch.where(y >= 0, found, 0.0),)


def _scatter_rows(node: Node) -> Call:
    size = node["size"]

    def call(context: Context, ct: Tensor, index: Tensor) -> Tensor:
        """Adds rows up in a fixed order, so that two runs are equal."""
        lead = ct.shape[: ct.ndim - 1 - index.ndim]
        rows, places = ct.reshape(*lead, -1, ct.shape[-1]), index.reshape(-1)
        result = empty((*lead, size, ct.shape[-1]), ct.dtype, ct.device).zero_()
        if ct.is_cuda:  # there `index_add_` adds by atomics; this sorts the places first
            return aten.index_put_(result, [*[None] * len(lead), places.long()], rows, True)
        return result.index_add_(-2, places, rows)

    return call


def _gather_rows(node: Node) -> Call:
    def call(context: Context, table: Tensor, index: Tensor) -> Tensor:
        lead, places = table.shape[:-2], index.reshape(-1)
        rows = empty((*lead, len(places), table.shape[-1]), table.dtype, table.device)
        torch.index_select(table, -2, places, out=rows)
        return rows.view(*lead, *index.shape, table.shape[-1])

    return call


TAKE_OUT = frozenset({Op.GRAM, Op.PATCH_GRAM})  # ops whose rules can write to memory they are given

ATEN: dict[Op, Rule] = {
    Op.MAP: lambda node: Pointwise([node], [node]).single,
    Op.MATMUL: _matmul,
    Op.CONV: _conv,
    Op.CONV_INPUT_GRAD: _conv_input_grad,
    Op.CONV_WEIGHT_GRAD: _conv_weight_grad,
    Op.REDUCE_SUM: _reduce_sum,
    Op.BROADCAST: _broadcast,
    Op.RESHAPE: lambda node: lambda context, x: x.reshape(concrete(node.shape, context.batch)),
    Op.TRANSPOSE: lambda node: lambda context, x: x.permute(node["order"]),
    Op.SLICE: _slice,
    Op.PAD: _pad,
    Op.CONCAT: lambda node: lambda context, *xs: torch.cat(xs, node["axis"]),
    Op.AVG_POOL: _avg_pool,
    Op.AVG_UNPOOL: _avg_unpool,
    Op.ARGMAX_POOL: _argmax_pool,
    Op.GATHER_MAX: _gather_max,
    Op.SCATTER_MAX: _scatter_max,
    Op.GATHER_ROWS: _gather_rows,
    Op.SCATTER_ROWS: _scatter_rows,
    Op.ONE_HOT: _one_hot,
    Op.SAMPLE: _sample,
    Op.ROW_MAX: lambda node: lambda context, x: x.amax(-1),
    Op.LOG_SUM_EXP: lambda node: lambda context, x: rows_softmax(context, x)[0],
    Op.GRAM: _gram,
    Op.PATCH_GRAM: _patch_gram,
    Op.SPECTRAL: _spectral,
    Op.ALL_SUM: lambda node: lambda context, x: context.over_ranks(x),
}

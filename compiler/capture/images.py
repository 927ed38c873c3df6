"""Convolutions, pools, norms and resampling: an ATen name → functions of channels-last values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..functions import normalisation, windows
from ..functions.resampling import interpolate
from ..graph import ops
from ..graph.errors import NewtritonError
from ..graph.ir import Node, per_sample
from .site import Rule, Site, Value, permuted, reshaped

Sizes = Any  # a number for each spatial axis, or one for all


def channels_last(x: Node) -> Node:
    """Returns N×C×(spatial) with the channels last."""
    return permuted(x, (0, *range(2, ops.rank(x)), 1))


def channels_first(x: Node) -> Node:
    """Returns N×(spatial)×C with the channels second."""
    rank = ops.rank(x)
    return permuted(x, (0, rank - 1, *range(1, rank - 1)))


def _sizes(value: Sizes, spatial: int) -> list[int]:
    """Returns a number for each spatial axis; one number stands for all."""
    found = list(value) if isinstance(value, (list, tuple)) else [value]
    return [int(v) for v in (found * spatial if len(found) == 1 else found)]


def _spatial(x: Node) -> int:
    """Returns the number of spatial axes.

    Raises:
        NewtritonError: there are none, or more than two.
    """
    spatial = ops.rank(x) - 2
    if spatial not in (1, 2):
        raise NewtritonError(f"{spatial} spatial axes of a batch: one or two are taken")
    return spatial


def _convolution(
    site: Site,
    x: Value,
    weight: Value,
    bias: Value,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> Node:
    node, w = site.node(x), channels_last(site.node(weight))
    spatial = _spatial(node)
    far = _sizes(dilation, spatial)
    if padding == "same":
        widths = windows.same(w.shape[1:-1], far)
    else:
        sides = [0] * spatial if padding == "valid" else _sizes(padding, spatial)
        widths = [(p, p) for p in sides]
    b = None if bias is None else site.node(bias)
    step = _sizes(stride, spatial)
    return channels_first(windows.convolution(channels_last(node), w, b, step, widths, far, groups))


def _transposed(
    site: Site,
    x: Value,
    weight: Value,
    bias: Value,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    groups: int,
    dilation: Sizes,
) -> Node:
    node, w = site.node(x), channels_last(site.node(weight))
    spatial = _spatial(node)
    step, sides, more, far = (
        _sizes(v, spatial) for v in (stride, padding, output_padding, dilation)
    )
    b = None if bias is None else site.node(bias)
    return channels_first(
        windows.transposed_convolution(channels_last(node), w, b, step, sides, more, far, groups)
    )


def _any_convolution(
    site: Site, x: Value, weight: Value, bias: Value, stride: Sizes, padding: Sizes,
    dilation: Sizes, transposed: bool, output_padding: Sizes, groups: int,
) -> Node:  # fmt: skip
    if transposed:
        return _transposed(site, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return _convolution(site, x, weight, bias, stride, padding, dilation, groups)


# --- pools ------------------------------------------------------------------------------------


def _max_pool(
    site: Site, x: Value, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil: bool
) -> Node:
    node = site.node(x)
    spatial = _spatial(node)
    window, step, sides, far = (
        _sizes(v, spatial) for v in (kernel, stride or kernel, padding, dilation)
    )
    return channels_first(windows.max_pool(channels_last(node), window, step, sides, far, ceil))


def _avg_pool(
    site: Site, x: Value, kernel: Sizes, stride: Sizes, padding: Sizes, ceil: bool,
    count_include_pad: bool, divisor: int | None = None,
) -> Node:  # fmt: skip
    node = site.node(x)
    spatial = _spatial(node)
    window, step, sides = (_sizes(v, spatial) for v in (kernel, stride or kernel, padding))
    return channels_first(
        windows.avg_pool(
            channels_last(node),
            window,
            step,
            sides,
            site.scope.constant,
            ceil=ceil,
            count_include_pad=count_include_pad,
            divisor=divisor,
        )
    )


def _adaptive_avg_pool(site: Site, x: Value, *_: object) -> Node:
    node = site.node(x)
    _spatial(node)
    out = site.shape[2:]
    return channels_first(windows.adaptive_avg_pool(channels_last(node), out, site.scope.constant))


def _adaptive_max_pool(site: Site, x: Value, *_: object) -> list[Node | None]:
    node = site.node(x)
    _spatial(node)
    return [channels_first(windows.adaptive_max_pool(channels_last(node), site.shape[2:])), None]


# --- norms ------------------------------------------------------------------------------------


def _given(site: Site, *values: Value) -> list[Node | None]:
    return [None if v is None else site.node(v) for v in values]


def _batch_norm(
    site: Site,
    x: Value,
    weight: Value,
    bias: Value,
    mean: Value,
    variance: Value,
    training: bool,
    momentum: float,
    eps: float,
    *_: object,
) -> list[Node | None]:
    """Batch statistics in training, with the running ones that they go into; those otherwise."""
    node = channels_last(site.node(x))
    gamma, beta = _given(site, weight, bias)
    axes = tuple(range(ops.rank(node) - 1))
    found = normalisation.moments(node, axes)
    means, variances = _running(site, found, momentum) or (mean, variance)
    if training:
        centred, variances = found.centred, found.variance
    else:
        centred = normalisation.shifted(node, site.node(means), axes)
    scaled = normalisation.scaled(centred, site.node(variances), axes, eps, gamma, beta)
    return [channels_first(scaled), None, None, None, None]


def _running(site: Site, found: normalisation.Moments, momentum: float) -> tuple[Node, Node] | None:
    """The running statistics of a batch norm, where its calls in training change them."""
    names = [site.changing(i) for i in (3, 4)]
    path, _, kind = (names[0] or "").rpartition(".")
    if kind == "" and names[1] is None:
        return None
    prefix = f"{path}." if path else ""
    if names != [f"{prefix}running_mean", f"{prefix}running_var"]:
        raise NewtritonError(
            f"its running statistics are {names[0]} and {names[1]}: name the buffers running_mean "
            "and running_var of one module"
        )
    scope = site.scope.child(path) if path else site.scope
    if names[0] in scope.record.running:
        raise NewtritonError(
            f"{path} is called twice, which mixes the statistics of both calls: make it two modules"
        )
    positions = per_sample(found.x.shape[:-1])
    scope.momentum(site.momenta.get(path, momentum))
    return (
        scope.running("running_mean", 0.0, found.mean, positions),
        scope.running("running_var", 1.0, found.unbiased, positions),
    )


def _layer_norm(
    site: Site, x: Value, shape: Sequence[int], weight: Value, bias: Value, eps: float, *_: object
) -> Node:
    gamma, beta = _given(site, weight, bias)
    return normalisation.layer_norm(site.node(x), len(shape), eps, gamma, beta)


def _rms_norm(site: Site, x: Value, shape: Sequence[int], weight: Value, eps: float | None) -> Node:
    (gamma,) = _given(site, weight)
    eps = torch.finfo(site.meta.dtype).eps if eps is None else eps
    return normalisation.rms_norm(site.node(x), len(shape), eps, gamma)


def _group_norm(
    site: Site, x: Value, groups: int, weight: Value, bias: Value, eps: float, *_: object
) -> Node:
    gamma, beta = _given(site, weight, bias)
    node = channels_last(site.node(x))
    return channels_first(normalisation.group_norm(node, groups, eps, gamma, beta))


def _instance_norm(
    site: Site, x: Value, weight: Value, bias: Value, mean: Value, variance: Value,
    use_input_stats: bool, momentum: float, eps: float, *_: object,
) -> Node:  # fmt: skip
    gamma, beta = _given(site, weight, bias)
    node = channels_last(site.node(x))
    if use_input_stats:
        return channels_first(normalisation.instance_norm(node, eps, gamma, beta))
    axes = tuple(range(ops.rank(node) - 1))
    centred = normalisation.shifted(node, site.node(mean), axes)
    return channels_first(
        normalisation.scaled(centred, site.node(variance), axes, eps, gamma, beta)
    )


# --- resampling -------------------------------------------------------------------------------


def _upsample(mode: str, corners: bool) -> Callable[..., Node]:
    """Interpolation, by factors where those were asked for."""

    def rule(site: Site, x: Value, _: Value, *options: Value) -> Node:
        node = channels_last(site.node(x))
        aligned = bool(options[0]) if corners else False
        rest = options[1:] if corners else options
        if site.overload == "vec":
            rest = rest[0] or ()
        scales = [float(s) for s in rest if s is not None]
        sizes = site.shape[2:]
        by_scale = scales if len(scales) == len(sizes) and not aligned else None
        return channels_first(
            interpolate(
                node,
                site.scope.constant,
                sizes=None if by_scale else sizes,
                scales=by_scale,
                mode=mode,
                align_corners=aligned,
            )
        )

    return rule


def first_of_rows(rows: Node) -> Node:
    """Returns the maxima of rows; of equal elements the first has the derivative."""
    *lead, length = rows.shape
    image = reshaped(rows, (*lead, length, 1))
    image = image if lead else reshaped(image, (1, length, 1))
    return reshaped(windows.max_pool(image, [length], [length], [0], [1]), tuple(lead))


IMAGES: dict[str, Rule] = {
    "conv1d": _convolution,
    "conv2d": _convolution,
    "conv_transpose1d": _transposed,
    "conv_transpose2d": _transposed,
    "convolution": _any_convolution,
    "max_pool1d": _max_pool,
    "max_pool2d": _max_pool,
    "max_pool2d_with_indices": lambda site, *given: [_max_pool(site, *given), None],
    "avg_pool1d": _avg_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool1d": _adaptive_avg_pool,
    "adaptive_avg_pool2d": _adaptive_avg_pool,
    "_adaptive_avg_pool2d": _adaptive_avg_pool,
    "adaptive_max_pool1d": _adaptive_max_pool,
    "adaptive_max_pool2d": _adaptive_max_pool,
    "_native_batch_norm_legit_functional": _batch_norm,
    "_native_batch_norm_legit_no_training": lambda site, x, w, b, mean, variance, *rest: (
        _batch_norm(site, x, w, b, mean, variance, False, *rest)
    ),
    "_native_batch_norm_legit": lambda site, x, w, b, *rest: _batch_norm(
        site, x, w, b, None, None, *rest[-3:]
    ),
    "layer_norm": _layer_norm,
    "native_layer_norm": lambda site, *given: [_layer_norm(site, *given), None, None],
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "upsample_nearest1d": _upsample("nearest", corners=False),
    "upsample_nearest2d": _upsample("nearest", corners=False),
    "_upsample_nearest_exact1d": _upsample("nearest-exact", corners=False),
    "_upsample_nearest_exact2d": _upsample("nearest-exact", corners=False),
    "upsample_linear1d": _upsample("linear", corners=True),
    "upsample_bilinear2d": _upsample("bilinear", corners=True),
    "upsample_bicubic2d": _upsample("bicubic", corners=True),
}

"""The layers with weights or windows, named and parametrised as PyTorch's; in-sizes are inferred.

Each is built from the op set alone, so its derivatives of every order come from the op rules.
Images are C×H×W in a network's description, as in PyTorch, and N×H×W×C in the graph.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any

from ..graph import ops, scalar
from ..graph.errors import NewtritonError, ShapeError
from ..graph.ir import N, Node, Op
from ..graph.options import check_count, check_number
from ..graph.scalar import BATCH, var
from .described import Described
from .initial import WEIGHTS, bias_rule
from .network import Scope

Pair = tuple[int, int]


def _pair(what: str, value: int | Pair, least: int) -> Pair:
    """Returns the two sizes that an option means: one integer stands for both."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, Integral) and int(v) >= least for v in pair):
        raise NewtritonError(f"{what} is {value!r}: give an integer ≥ {least} or a pair of them")
    return int(pair[0]), int(pair[1])


def _check_init(value: str) -> None:
    """Raises an error where there is no such rule for weights."""
    if value not in WEIGHTS:
        raise NewtritonError(f"init is {value!r}: one of {', '.join(WEIGHTS)}")


def _image(x: Node) -> tuple[int, int, int]:
    """Returns the height, width and channels of an image."""
    if ops.rank(x) != 4:
        raise ShapeError("it needs a C×H×W image: move it before Flatten()")
    return x.shape[1:]


@dataclass(eq=False, repr=False)
class Conv2d(Described):
    """The convolution W ⋆ x + b, as PyTorch's: C×H×W → O×H'×W'.

    H' = ⌊(H + 2·padding − dilation·(kernel_size − 1) − 1)/stride⌋ + 1, and W' likewise. Integers
    stand for both axes.

    Args:
        out_channels: O, the number of channels that are written.
        kernel_size: the window's size.
        stride: the distance of two windows.
        padding: zeros around the image, or "same" at stride 1, which keeps its size.
        dilation: the distance of two taps of the window.
        groups: into how many groups of channels input and output are divided.
        bias: whether there is a b.
        init: the rule for the first weights: "default" (PyTorch's), "kaiming" (He normal, by the
            inputs), "xavier" (Glorot uniform) or "sparse" (fifteen normal weights to an output).
            Biases start at 0 under the last three.

    Raises:
        NewtritonError: an option is unknown or none that there can be.
        ShapeError: the image does not fit; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.Conv2d(32, 3, padding=1, bias=False)
        Conv2d(32, 3, padding=1, bias=False)
        >>> net = nt.Sequential(nt.Conv2d(4, 3, stride=2), nt.Flatten(), nt.Linear(2))
        >>> model = nt.compile(net, input_shape=(1, 9, 9), loss=nt.MSELoss())
        >>> {name: tuple(p.shape) for name, p in model.named_parameters() if "weight" in name}
        {'0.weight': (4, 1, 3, 3), '2.weight': (2, 64)}
    """

    out_channels: int
    kernel_size: int | Pair
    stride: int | Pair = 1
    padding: int | Pair | str = 0
    dilation: int | Pair = 1
    groups: int = 1
    bias: bool = True
    _: KW_ONLY
    init: str = "default"

    def __post_init__(self) -> None:
        check_count("out_channels", self.out_channels)
        check_count("groups", self.groups)
        _check_init(self.init)
        self._window()

    def _window(self) -> dict[str, Any]:
        """Returns the attributes of the graph's convolution."""
        kernel = _pair("kernel_size", self.kernel_size, 1)
        stride = _pair("stride", self.stride, 1)
        dilation = _pair("dilation", self.dilation, 1)
        padding = self.padding
        if isinstance(padding, str):
            reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            if padding != "same" or stride != (1, 1) or any(r % 2 for r in reach):
                raise NewtritonError(
                    f"padding is {padding!r}: give integers, or 'same' at stride 1 with odd kernels"
                )
            padding = (reach[0] // 2, reach[1] // 2)
        padding = _pair("padding", padding, 0)
        return {"stride": stride, "padding": padding, "dilation": dilation, "groups": self.groups}

    def build(self, x: Node, scope: Scope) -> Node:
        """Maps N×H×W×C to N×H'×W'×O."""
        *_, c = _image(x)
        for what, channels in (("input", c), ("output", self.out_channels)):
            if channels % self.groups:
                raise ShapeError(
                    f"{channels} {what} channels do not divide into {self.groups} groups"
                )
        kernel = _pair("kernel_size", self.kernel_size, 1)
        fans = (c // self.groups * math.prod(kernel), self.out_channels * math.prod(kernel))
        shape = (self.out_channels, *kernel, c // self.groups)
        operands = [x, scope.parameter("weight", shape, self.init, fans, (0, 3, 1, 2))]
        if self.bias:
            operands.append(scope.parameter("bias", shape[:1], bias_rule(self.init), fans))
        return ops.make(Op.CONV, *operands, **self._window())


@dataclass(eq=False, repr=False)
class Linear(Described):
    """The affine map x Wᵀ + b of I features to O.

    Args:
        out_features: O, the number of outputs.
        bias: whether there is a b.
        init: the rule for the first weights, as in `Conv2d`.

    Raises:
        NewtritonError: an option is unknown or none that there can be.
        ShapeError: an image reaches the layer; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), input_shape=(4,), loss=nt.CrossEntropyLoss())
        >>> {name: tuple(p.shape) for name, p in model.named_parameters()}
        {'weight': (3, 4), 'bias': (3,)}
    """

    out_features: int
    bias: bool = True
    _: KW_ONLY
    init: str = "default"

    def __post_init__(self) -> None:
        check_count("out_features", self.out_features)
        _check_init(self.init)

    def build(self, x: Node, scope: Scope) -> Node:
        """Maps N×I to N×O."""
        if ops.rank(x) != 2:
            raise ShapeError("add Flatten() before it")
        fans = (x.shape[1], self.out_features)
        weight = scope.parameter("weight", fans[::-1], self.init, fans)
        bias = None
        if self.bias:
            bias = scope.parameter("bias", (self.out_features,), bias_rule(self.init), fans)
        return ops.matmul(x, weight, bias, tb=True)


@dataclass(eq=False, repr=False)
class _Pool(Described):
    """What the pools share: the size of the window, the distance of two, and padding."""

    kernel_size: int | Pair
    stride: int | Pair | None = None
    padding: int | Pair = 0

    def __post_init__(self) -> None:
        self._window()

    def _window(self) -> dict[str, Any]:
        """Returns the attributes of the graph's pool."""
        kernel = _pair("kernel_size", self.kernel_size, 1)
        stride = kernel if self.stride is None else _pair("stride", self.stride, 1)
        padding = _pair("padding", self.padding, 0)
        return {"kernel": kernel, "stride": stride, "padding": padding}


@dataclass(eq=False, repr=False)
class MaxPool2d(_Pool):
    """The maximum over windows, C×H×W → C×H'×W', with sizes as in `Conv2d`.

    The first maximum in row-major order takes the derivative.

    Args:
        kernel_size: the window's size.
        stride: the distance of two windows; the window's size unless given.
        padding: at most half of the window; it never is the maximum.
        dilation: the distance of two taps of the window.

    Raises:
        NewtritonError: an option is none that there can be.
        ShapeError: the image does not fit; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.MaxPool2d(3, stride=2, padding=1)
        MaxPool2d(3, stride=2, padding=1)
    """

    dilation: int | Pair = 1

    def _window(self) -> dict[str, Any]:
        """Returns the attributes of the graph's pool."""
        return {**super()._window(), "dilation": _pair("dilation", self.dilation, 1)}

    def build(self, x: Node, scope: Scope) -> Node:
        """Maps N×H×W×C to N×H'×W'×C."""
        _image(x)
        window = self._window()
        return ops.make(Op.GATHER_MAX, x, ops.make(Op.ARGMAX_POOL, x, **window), **window)


@dataclass(eq=False, repr=False)
class AvgPool2d(_Pool):
    """The mean over windows, C×H×W → C×H'×W', with sizes as in `Conv2d`.

    Args:
        kernel_size: the window's size.
        stride: the distance of two windows; the window's size unless given.
        padding: at most half of the window.
        count_include_pad: whether padding counts as zeros, or not at all.

    Raises:
        NewtritonError: an option is none that there can be.
        ShapeError: the image does not fit; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.AvgPool2d(2, count_include_pad=False)
        AvgPool2d(2, count_include_pad=False)
    """

    count_include_pad: bool = True

    def build(self, x: Node, scope: Scope) -> Node:
        """Maps N×H×W×C to N×H'×W'×C."""
        _image(x)
        count_include_pad = bool(self.count_include_pad)
        return ops.make(Op.AVG_POOL, x, **self._window(), count_include_pad=count_include_pad)


@dataclass(eq=False, repr=False)
class BatchNorm2d(Described):
    """The batch norm (x − mean)/√(var + eps)·γ + β of each channel of an image.

    Mean and variance are those of the batch in training, and derivatives of every order go through
    them (Ioffe & Szegedy 2015); in evaluation mode the running statistics serve. The running
    variance takes the unbiased one, as in PyTorch.

    Args:
        eps: what is added to the variance, above 0.
        momentum: the weight of a new batch in the running statistics; None averages all batches.
        affine: whether there are γ and β.

    Raises:
        NewtritonError: eps is not a positive number.
        ShapeError: what reaches the layer is no image; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.BatchNorm2d(momentum=None)
        BatchNorm2d(momentum=None)
        >>> net = nt.Sequential(nt.BatchNorm2d(), nt.Flatten(), nt.Linear(2))
        >>> model = nt.compile(net, input_shape=(3, 4, 4), loss=nt.MSELoss())
        >>> [name for name in model.state_dict() if name.startswith("0.")][:4]
        ['0.weight', '0.bias', '0.running_mean', '0.running_var']
    """

    eps: float = 1e-5
    momentum: float | None = 0.1
    affine: bool = True

    def __post_init__(self) -> None:
        check_number("eps", self.eps, above=0.0)

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the normalised image, N×H×W×C as the input."""
        h, w, c = _image(x)
        count = BATCH * float(h * w)
        axes = (0, 1, 2)

        def everywhere(per_channel: Node) -> Node:
            return ops.broadcast(per_channel, x.shape)

        mean = ops.scale(ops.reduce_sum(x, axes), scalar.reciprocal(count))
        centred = ops.map_(var(0) - var(1), x, everywhere(mean))
        squares = ops.reduce_sum(ops.map_(var(0) * var(0), centred), axes)
        variance = ops.scale(squares, scalar.reciprocal(count))
        unbiased = ops.scale(squares, scalar.reciprocal(count - 1.0))
        running_mean = scope.running("running_mean", 0.0, mean, h * w)
        running_var = scope.running("running_var", 1.0, unbiased, h * w)
        scope.momentum(self.momentum)
        if not scope.training:
            centred = ops.map_(var(0) - var(1), x, everywhere(running_mean))
            variance = running_var
        inverse = ops.map_(scalar.reciprocal(scalar.sqrt(var(0) + float(self.eps))), variance)
        if not self.affine:
            return ops.multiply(centred, everywhere(inverse))
        gamma = scope.parameter("weight", (c,), "ones", (c, c))
        beta = scope.parameter("bias", (c,), "zeros", (c, c))
        operands = (centred, *map(everywhere, (inverse, gamma, beta)))
        return ops.map_(var(0) * var(1) * var(2) + var(3), *operands)


class Flatten(Described):
    """Images to features in PyTorch's order, C×H×W → CHW; features stay what they are.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.Sequential(nt.Flatten(), nt.Linear(2))
        >>> model = nt.compile(net, input_shape=(3, 4, 4), loss=nt.MSELoss())
        >>> tuple(model.state_dict()["1.weight"].shape)
        (2, 48)
    """

    def build(self, x: Node, scope: Scope) -> Node:
        """Maps N×H×W×C to N×CHW."""
        if ops.rank(x) != 4:
            return x
        return ops.reshape(ops.transpose(x, (0, 3, 1, 2)), (N, math.prod(x.shape[1:])))

"""The layers of the DSL, named and parametrised as PyTorch's; in-sizes are inferred.

Each is built from the op set alone, so its derivatives of every order come from the op rules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..graph import ops, scalar
from ..graph.errors import NewtritonError, ShapeError
from ..graph.ir import N, Node, Op, show
from ..graph.scalar import BATCH, Expr, var
from .network import Layer, Scope, describe

INITS = ("default", "kaiming", "xavier", "sparse")


def _pair(value: int | tuple[int, int], what: str, least: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, int) and v >= least for v in pair):
        raise NewtritonError(f"{what} is {value!r}: give an integer ≥ {least} or a pair of them")
    return pair


def _positive(value: int, what: str) -> int:
    if not isinstance(value, int) or value < 1:
        raise NewtritonError(f"{what} is {value!r}: give a positive integer")
    return value


def _init(value: str) -> str:
    if value not in INITS:
        raise NewtritonError(f"init is {value!r}: one of {', '.join(INITS)}")
    return value


def _image(x: Node) -> tuple[int, int, int]:
    if ops.rank(x) != 4:
        raise ShapeError("it needs a C×H×W image: move it before Flatten()")
    return x.shape[1:]


class Conv2d:
    """Convolution; `padding` may be "same" at stride 1.

    `init` is "default" (PyTorch's), "kaiming" (He normal, fan in), "xavier" (uniform) or "sparse"
    (fifteen normal weights to an output); biases start at 0 under the last three.
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        init: str = "default",
    ) -> None:
        self.out_channels = _positive(out_channels, "out_channels")
        self.kernel = _pair(kernel_size, "kernel_size", 1)
        self.stride = _pair(stride, "stride", 1)
        self.dilation = _pair(dilation, "dilation", 1)
        self.groups = _positive(groups, "groups")
        self.bias, self.init = bias, _init(init)
        if isinstance(padding, str):
            reach = [d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True)]
            if padding != "same" or self.stride != (1, 1) or any(r % 2 for r in reach):
                raise NewtritonError(
                    f"padding is {padding!r}: give integers, or 'same' at stride 1 with odd kernels"
                )
            padding = (reach[0] // 2, reach[1] // 2)
        self.padding = _pair(padding, "padding", 0)

    def __repr__(self) -> str:
        return f"Conv2d({self.out_channels}, {show(self.kernel)})"

    def build(self, x: Node, scope: Scope) -> Node:
        """N×H×W×C → N×H'×W'×O."""
        *_, c = _image(x)
        for what, channels in (("input", c), ("output", self.out_channels)):
            if channels % self.groups:
                raise ShapeError(
                    f"{channels} {what} channels do not divide into {self.groups} groups"
                )
        taps = math.prod(self.kernel)
        fans = (c // self.groups * taps, self.out_channels * taps)
        shape = (self.out_channels, *self.kernel, c // self.groups)
        operands = [x, scope.parameter("weight", shape, self.init, fans, (0, 3, 1, 2))]
        if self.bias:
            operands.append(scope.parameter("bias", shape[:1], f"{self.init} bias", fans))
        return ops.make(
            Op.CONV,
            *operands,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class Linear:
    """x Wᵀ + b on features; `init` as in `Conv2d`."""

    def __init__(self, out_features: int, bias: bool = True, *, init: str = "default") -> None:
        self.out_features = _positive(out_features, "out_features")
        self.bias, self.init = bias, _init(init)

    def __repr__(self) -> str:
        return f"Linear({self.out_features})"

    def build(self, x: Node, scope: Scope) -> Node:
        """N×I → N×O."""
        if ops.rank(x) != 2:
            raise ShapeError("add Flatten() before it")
        fans = (x.shape[1], self.out_features)
        weight = scope.parameter("weight", fans[::-1], self.init, fans)
        bias = None
        if self.bias:
            bias = scope.parameter("bias", (self.out_features,), f"{self.init} bias", fans)
        return ops.matmul(x, weight, bias, tb=True)


class _Pool:
    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        self.kernel = _pair(kernel_size, "kernel_size", 1)
        self.stride = self.kernel if stride is None else _pair(stride, "stride", 1)
        self.padding = _pair(padding, "padding", 0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({show(self.kernel)})"


class MaxPool2d(_Pool):
    """Maximum over windows; the first maximum in row-major order takes the derivative."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
    ) -> None:
        super().__init__(kernel_size, stride, padding)
        self.dilation = _pair(dilation, "dilation", 1)

    def build(self, x: Node, scope: Scope) -> Node:
        """N×H×W×C → N×H'×W'×C."""
        _image(x)
        window = {
            "kernel": self.kernel,
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
        }
        return ops.make(Op.GATHER_MAX, x, ops.make(Op.ARGMAX_POOL, x, **window), **window)


class AvgPool2d(_Pool):
    """Mean over windows; padding counts as zeros unless `count_include_pad` is False."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding)
        self.count_include_pad = bool(count_include_pad)

    def build(self, x: Node, scope: Scope) -> Node:
        """N×H×W×C → N×H'×W'×C."""
        _image(x)
        return ops.make(
            Op.AVG_POOL,
            x,
            kernel=self.kernel,
            stride=self.stride,
            padding=self.padding,
            count_include_pad=self.count_include_pad,
        )


class BatchNorm2d:
    """(x − mean)/√(var + eps)·γ + β per channel; derivatives go through mean and variance.

    In evaluation mode the running statistics serve; `momentum` None averages all batches, as in
    PyTorch.
    """

    def __init__(
        self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True
    ) -> None:
        if eps <= 0:
            raise NewtritonError(f"eps is {eps!r}: give a positive number")
        self.eps, self.momentum, self.affine = float(eps), momentum, affine

    def __repr__(self) -> str:
        return "BatchNorm2d()"

    def build(self, x: Node, scope: Scope) -> Node:
        """N×H×W×C → the same."""
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
        inverse = ops.map_(scalar.reciprocal(scalar.sqrt(var(0) + self.eps)), variance)
        if not self.affine:
            return ops.multiply(centred, everywhere(inverse))
        gamma = scope.parameter("weight", (c,), "ones", (c, c))
        beta = scope.parameter("bias", (c,), "zeros", (c, c))
        operands = (centred, *map(everywhere, (inverse, gamma, beta)))
        return ops.map_(var(0) * var(1) * var(2) + var(3), *operands)


@dataclass(frozen=True, eq=False)
class Activation:
    """An elementwise function φ, given as a scalar expression of x0."""

    expr: Expr
    name: str

    def __repr__(self) -> str:
        return f"{self.name}()"

    def build(self, x: Node, scope: Scope) -> Node:
        """φ of each element."""
        return ops.map_(self.expr, x)


def ReLU() -> Activation:
    """max(x, 0); derivative 0 at 0."""
    return Activation(scalar.where(var(0), var(0), 0.0), "ReLU")


def LeakyReLU(negative_slope: float = 0.01) -> Activation:
    """X where x > 0, negative_slope·x elsewhere."""
    return Activation(scalar.where(var(0), var(0), negative_slope * var(0)), "LeakyReLU")


def Sigmoid() -> Activation:
    """1/(1 + e^−x)."""
    return Activation(scalar.sigmoid(var(0)), "Sigmoid")


def Tanh() -> Activation:
    """Hyperbolic tangent."""
    return Activation(scalar.tanh(var(0)), "Tanh")


def SiLU() -> Activation:
    """x·σ(x), also called swish."""
    return Activation(var(0) * scalar.sigmoid(var(0)), "SiLU")


def Softplus(beta: float = 1.0) -> Activation:
    """log(1 + e^βx)/β."""
    if beta <= 0:
        raise NewtritonError(f"beta is {beta!r}: give a positive number")
    return Activation(scalar.softplus(var(0) * beta) / beta, "Softplus")


def GELU(approximate: str = "none") -> Activation:
    """x·Φ(x), Φ the normal distribution function; `approximate="tanh"` as in PyTorch."""
    x = var(0)
    if approximate == "none":
        gate = 0.5 * (1.0 + scalar.erf(x * math.sqrt(0.5)))
    elif approximate == "tanh":
        gate = 0.5 * (1.0 + scalar.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    else:
        raise NewtritonError(f"approximate is {approximate!r}: one of none, tanh")
    return Activation(x * gate, "GELU")


class Flatten:
    """C×H×W images to features, in PyTorch's order."""

    def __repr__(self) -> str:
        return "Flatten()"

    def build(self, x: Node, scope: Scope) -> Node:
        """N×H×W×C → N×CHW."""
        if ops.rank(x) != 4:
            return x
        return ops.reshape(ops.transpose(x, (0, 3, 1, 2)), (N, math.prod(x.shape[1:])))


class Sequential:
    """One layer after the other; named by position, as in PyTorch."""

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    def build(self, x: Node, scope: Scope) -> Node:
        """The last layer's output."""
        for i, layer in enumerate(self.layers):
            x = scope.build(str(i), layer, x)
        return x


class Add:
    """The sum of branches that see the same input; named by position."""

    def __init__(self, *branches: Layer) -> None:
        if not branches:
            raise NewtritonError("Add() has no branches: give at least one layer")
        self.branches = branches

    def __repr__(self) -> str:
        return f"Add({', '.join(map(repr, self.branches))})"

    def build(self, x: Node, scope: Scope) -> Node:
        """Σ branch(x)."""
        return _sum([scope.build(str(i), branch, x) for i, branch in enumerate(self.branches)])


class Residual:
    """body(x) + shortcut(x); the shortcut is the identity unless given."""

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        self.body, self.shortcut = body, shortcut

    def __repr__(self) -> str:
        return f"Residual({self.body!r})"

    def build(self, x: Node, scope: Scope) -> Node:
        """body(x) + shortcut(x)."""
        skip = x if self.shortcut is None else scope.build("shortcut", self.shortcut, x)
        return _sum([scope.build("body", self.body, x), skip])


def _sum(terms: list[Node]) -> Node:
    shapes = {t.shape for t in terms}
    if len(shapes) > 1:
        kinds = " and ".join(sorted(describe(s) for s in shapes))
        raise ShapeError(f"its branches give {kinds}: give them one shape, e.g. by a 1×1 Conv2d")
    return ops.total(terms)

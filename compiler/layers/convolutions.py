"""Convolutions of sequences and images, and their transposes.

A sequence is C×L in a network's description, an image C×H×W, as in PyTorch.
"""

from __future__ import annotations

import math
from typing import ClassVar

from ..functions.windows import Widths, convolution, same, transposed_convolution
from ..graph.errors import NewtritonError, quoted
from ..graph.ir import Node
from ..graph.options import check_flag, check_option
from ..language.described import Described
from ..language.initial import bias_rule
from ..language.network import Scope
from .arguments import (
    Size,
    arranged,
    axes,
    check_divides,
    check_inferred,
    check_init,
    check_size,
    each,
    restored,
    spatial,
    stated,
)

MODES = ("zeros", "reflect", "replicate", "circular")


class _Windowed(Described):
    """What convolutions and their transposes share: sizes and options.

    Attributes:
        spatial: how many axes a window has.
    """

    spatial: ClassVar[int]

    def _set(
        self,
        given: tuple[Size, ...],
        named: dict[str, Size],
        stride: Size,
        dilation: Size,
        groups: int,
        bias: bool,
        init: str,
    ) -> None:
        """Checks and keeps what both have."""
        check = axes(self.spatial)
        names = {"in_channels": check_size, "out_channels": check_size, "kernel_size": check}
        found = arranged(self, names, "in_channels", given, named)
        self.in_channels: int | None = found["in_channels"]
        self.out_channels: int = found["out_channels"]
        self.kernel_size: Size = found["kernel_size"]
        self.sizes = stated(found)
        self.stride = check("stride", stride)
        self.dilation = check("dilation", dilation)
        self.groups = check_size("groups", groups)
        self.bias = check_flag("bias", bias)
        check_init(init)
        self.init = init

    def _each(self, value: Size) -> tuple[int, ...]:
        """Returns an option along each axis."""
        return each(value, self.spatial)

    def _check_channels(self, c: int) -> None:
        """Raises an error where the channels that arrive are not those that were said."""
        call = f"{type(self).__name__}({self.out_channels}, {self.kernel_size}), options by name"
        check_inferred("in_channels", self.in_channels, c, call)
        check_divides("input channels", c, self.groups)
        check_divides("output channels", self.out_channels, self.groups)

    def _parameters(
        self, scope: Scope, shape: tuple[int, ...], fan_out: int
    ) -> tuple[Node, Node | None]:
        """Returns the weights, (first channels, *kernel, second channels), and the bias."""
        fans = (math.prod(shape[1:]), fan_out)
        order = (0, len(shape) - 1, *range(1, len(shape) - 1))
        weight = scope.parameter("weight", shape, self.init, fans, order)
        if not self.bias:
            return weight, None
        return weight, scope.parameter("bias", (self.out_channels,), bias_rule(self.init), fans)


class _Convolution(_Windowed):
    """The convolution W ⋆ x + b along one or two axes."""

    def __init__(
        self,
        *sizes: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        init: str = "default",
        **named: Size,
    ) -> None:
        self._set(sizes, named, stride, dilation, groups, bias, init)
        check_option("padding_mode", padding_mode, MODES)
        self.padding_mode = padding_mode
        self.padding = self._checked(padding)

    def _checked(self, padding: Size | str) -> Size | str:
        """Returns padding that is a size, or a word where it can be."""
        if not isinstance(padding, str):
            try:
                return axes(self.spatial, 0)("padding", padding)
            except NewtritonError as error:
                raise NewtritonError(f"{error}, or 'same' or 'valid'") from None
        if padding not in ("same", "valid"):
            raise NewtritonError(f"padding is {quoted(padding)}: give integers, 'same' or 'valid'")
        if padding == "same" and any(s != 1 for s in self._each(self.stride)):
            raise NewtritonError(
                f"padding is 'same' and stride {self.stride}: 'same' needs stride 1, give integers"
            )
        return padding

    def _widths(self) -> Widths:
        """Returns how much is added before and after each axis."""
        if isinstance(self.padding, str):
            if self.padding == "valid":
                return [(0, 0)] * self.spatial
            return same(self._each(self.kernel_size), self._each(self.dilation))
        return [(p, p) for p in self._each(self.padding)]

    def build(self, x: Node, scope: Scope) -> Node:
        """Maps C channels to O."""
        x = spatial(x, self.spatial)
        c, kernel = x.shape[-1], self._each(self.kernel_size)
        self._check_channels(c)
        shape = (self.out_channels, *kernel, c // self.groups)
        weight, bias = self._parameters(scope, shape, self.out_channels * math.prod(kernel))
        strides, dilations = self._each(self.stride), self._each(self.dilation)
        y = convolution(
            x, weight, bias, strides, self._widths(), dilations, self.groups, self.padding_mode
        )
        return restored(y, self.spatial)


class Conv1d(_Convolution):
    """The convolution W ⋆ x + b of sequences, as PyTorch's: C×L → O×L'.

    `Conv1d(out_channels, kernel_size)` or `Conv1d(in_channels, out_channels, kernel_size)`, with
    options as in `Conv2d`.

    Raises:
        NewtritonError: an option is unknown or none that there can be.
        ShapeError: the sequence does not fit; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.Sequential(nt.Conv1d(4, 3, padding="same"), nt.Flatten(), nt.Linear(2))
        >>> model = nt.compile(net, input_shape=(2, 9), loss=nt.MSELoss())
        >>> {name: tuple(p.shape) for name, p in model.named_parameters() if "weight" in name}
        {'0.weight': (4, 2, 3), '2.weight': (2, 36)}
    """

    spatial = 1


class Conv2d(_Convolution):
    """The convolution W ⋆ x + b, as PyTorch's: C×H×W → O×H'×W'.

    H' = ⌊(H + 2·padding − dilation·(kernel_size − 1) − 1)/stride⌋ + 1, and W' likewise. Integers
    stand for both axes. `Conv2d(out_channels, kernel_size)` or
    `Conv2d(in_channels, out_channels, kernel_size)`.

    Args:
        in_channels (int): C, the number of channels that are read; it is inferred unless given.
        out_channels (int): O, the number of channels that are written.
        kernel_size (int | tuple[int, int]): the window's size.
        stride: the distance of two windows.
        padding: what is added around the image; "same" keeps its size at stride 1, "valid" is 0.
        dilation: the distance of two taps of the window.
        groups: into how many groups of channels input and output are divided.
        bias: whether there is a b.
        padding_mode: what is added: "zeros", or the image itself, which "reflect" mirrors,
            "replicate" stretches at its border, and "circular" repeats.
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

    spatial = 2


class _TransposedConvolution(_Windowed):
    """The transpose Wᵀ ⋆ x + b of a convolution along one or two axes."""

    def __init__(
        self,
        *sizes: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        init: str = "default",
        **named: Size,
    ) -> None:
        self._set(sizes, named, stride, dilation, groups, bias, init)
        least = axes(self.spatial, 0)
        self.padding = least("padding", padding)
        self.output_padding = least("output_padding", output_padding)
        limits = zip(self._each(self.stride), self._each(self.dilation), strict=True)
        for added, limit in zip(self._each(self.output_padding), map(max, limits), strict=True):
            if added >= limit:
                raise NewtritonError(
                    f"output_padding is {quoted(output_padding)}: give less than stride or dilation"
                )

    def build(self, x: Node, scope: Scope) -> Node:
        """Maps C channels to O."""
        x = spatial(x, self.spatial)
        c, kernel = x.shape[-1], self._each(self.kernel_size)
        self._check_channels(c)
        shape = (c, *kernel, self.out_channels // self.groups)
        weight, bias = self._parameters(scope, shape, c * math.prod(kernel))
        stride, padding, added, dilation = map(
            self._each, (self.stride, self.padding, self.output_padding, self.dilation)
        )
        y = transposed_convolution(x, weight, bias, stride, padding, added, dilation, self.groups)
        return restored(y, self.spatial)


class ConvTranspose1d(_TransposedConvolution):
    """The transpose of a convolution of sequences, as PyTorch's: C×L → O×L'.

    `ConvTranspose1d(out_channels, kernel_size)` or
    `ConvTranspose1d(in_channels, out_channels, kernel_size)`, with options as in `ConvTranspose2d`.

    Raises:
        NewtritonError: an option is unknown or none that there can be.
        ShapeError: the sequence does not fit; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.ConvTranspose1d(8, 4, stride=2, padding=1)
        ConvTranspose1d(8, 4, stride=2, padding=1)
    """

    spatial = 1


class ConvTranspose2d(_TransposedConvolution):
    """The transpose of a convolution in its image, as PyTorch's: C×H×W → O×H'×W'.

    H' = (H − 1)·stride − 2·padding + dilation·(kernel_size − 1) + output_padding + 1, and W'
    likewise. `ConvTranspose2d(out_channels, kernel_size)` or
    `ConvTranspose2d(in_channels, out_channels, kernel_size)`.

    Args:
        in_channels (int): C, the number of channels that are read; it is inferred unless given.
        out_channels (int): O, the number of channels that are written.
        kernel_size (int | tuple[int, int]): the window's size.
        stride: the distance of two windows.
        padding: what the convolution adds around its image, and this takes away.
        output_padding: how much there is more at the end, less than stride or dilation.
        groups: into how many groups of channels input and output are divided.
        bias: whether there is a b.
        dilation: the distance of two taps of the window.
        init: the rule for the first weights, as in `Conv2d`.

    Raises:
        NewtritonError: an option is unknown or none that there can be.
        ShapeError: the image does not fit; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.Sequential(nt.ConvTranspose2d(2, 3, stride=2), nt.Flatten(), nt.Linear(2))
        >>> model = nt.compile(net, input_shape=(1, 4, 4), loss=nt.MSELoss())
        >>> {name: tuple(p.shape) for name, p in model.named_parameters() if "weight" in name}
        {'0.weight': (1, 2, 3, 3), '2.weight': (2, 162)}
    """

    spatial = 2

"""Pools of sequences and images: maxima and means of windows, of given or of adapted sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from ..functions import windows
from ..graph.errors import ShapeError
from ..graph.ir import Node
from ..graph.options import check_count, check_flag
from ..language.described import Described
from ..language.network import Scope
from .arguments import Size, axes, by_name, each, restored, spatial

MOST_WINDOWS = 4096  # of an adaptive pool that has more of them than elements


class _Pool(Described):
    """What pools share: the window's size, the distance of two, padding, and where they end.

    Attributes:
        spatial: how many axes a window has.
    """

    spatial: ClassVar[int]

    def _set(
        self,
        kernel_size: Size,
        stride: Size | None,
        padding: Size,
        options: Sequence[object],
        ceil_mode: bool,
    ) -> None:
        """Checks and keeps what all pools have."""
        by_name(f"{type(self).__name__}", options, "ceil_mode=True")
        check = axes(self.spatial)
        self.kernel_size: Size = check("kernel_size", kernel_size)
        self.stride: Size | None = None if stride is None else check("stride", stride)
        self.padding: Size = axes(self.spatial, 0)("padding", padding)
        self.ceil_mode = check_flag("ceil_mode", ceil_mode)

    def _window(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Returns the window's size, the distance of two, and padding along each axis."""
        stride = self.kernel_size if self.stride is None else self.stride
        kernel, steps, padding = (
            each(option, self.spatial) for option in (self.kernel_size, stride, self.padding)
        )
        return kernel, steps, padding


class _MaxPool(_Pool):
    """The maximum over windows."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        *options: object,
        dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> None:
        self._set(kernel_size, stride, padding, options, ceil_mode)
        self.dilation: Size = axes(self.spatial)("dilation", dilation)

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the maxima, with as many channels."""
        dilation = each(self.dilation, self.spatial)
        y = spatial(x, self.spatial)
        y = windows.max_pool(y, *self._window(), dilation, self.ceil_mode)
        return restored(y, self.spatial)


class MaxPool1d(_MaxPool):
    """The maximum over windows of a sequence, C×L → C×L', with options as in `MaxPool2d`.

    Raises:
        NewtritonError: an option is none that there can be.
        ShapeError: the sequence does not fit; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.MaxPool1d(3, stride=2)
        MaxPool1d(3, stride=2)
    """

    spatial = 1


class MaxPool2d(_MaxPool):
    """The maximum over windows, C×H×W → C×H'×W', with sizes as in `Conv2d`.

    The first maximum in row-major order takes the derivative.

    Args:
        kernel_size: the window's size.
        stride: the distance of two windows; the window's size unless given.
        padding: at most half of the window; it never is the maximum.
        dilation: the distance of two taps of the window.
        ceil_mode: whether windows may go beyond the end.

    Raises:
        NewtritonError: an option is none that there can be.
        ShapeError: the image does not fit; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.MaxPool2d(3, stride=2, padding=1)
        MaxPool2d(3, stride=2, padding=1)
    """

    spatial = 2


class _AvgPool(_Pool):
    """The mean over windows."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        *options: object,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self._set(kernel_size, stride, padding, options, ceil_mode)
        self.count_include_pad = check_flag("count_include_pad", count_include_pad)
        self.divisor_override: int | None = None

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the means, with as many channels."""

        def constant(values: Tensor) -> Node:
            return scope.constant(values)

        y = windows.avg_pool(
            spatial(x, self.spatial),
            *self._window(),
            constant,
            ceil=self.ceil_mode,
            count_include_pad=self.count_include_pad,
            divisor=self.divisor_override,
        )
        return restored(y, self.spatial)


class AvgPool1d(_AvgPool):
    """The mean over windows of a sequence, C×L → C×L', with options as in `AvgPool2d`.

    Raises:
        NewtritonError: an option is none that there can be.
        ShapeError: the sequence does not fit; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.AvgPool1d(3, stride=2, ceil_mode=True)
        AvgPool1d(3, stride=2, ceil_mode=True)
    """

    spatial = 1


class AvgPool2d(_AvgPool):
    """The mean over windows, C×H×W → C×H'×W', with sizes as in `Conv2d`.

    Args:
        kernel_size: the window's size.
        stride: the distance of two windows; the window's size unless given.
        padding: at most half of the window.
        ceil_mode: whether windows may go beyond the end; what is there does not count.
        count_include_pad: whether padding counts as zeros, or not at all.
        divisor_override: by what sums are divided; unless given, by how many elements count.

    Raises:
        NewtritonError: an option is none that there can be.
        ShapeError: the image does not fit; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.AvgPool2d(2, count_include_pad=False)
        AvgPool2d(2, count_include_pad=False)
    """

    spatial = 2

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        *options: object,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(
            kernel_size,
            stride,
            padding,
            *options,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
        )
        if divisor_override is not None:
            self.divisor_override = check_count("divisor_override", divisor_override)


class _AdaptivePool(Described):
    """A pool with as many windows as are wanted.

    Attributes:
        spatial: how many axes a window has.
    """

    spatial: ClassVar[int]

    def __init__(self, output_size: Any) -> None:
        several = isinstance(output_size, (tuple, list))
        check, kept = axes(self.spatial), output_size if several else (output_size,) * self.spatial
        wanted = check("output_size", tuple(1 if size is None else size for size in kept))
        wanted = tuple(None if k is None else n for k, n in zip(kept, wanted, strict=True))
        self.output_size = wanted if several else wanted[0]

    def _sizes(self) -> tuple[int | None, ...]:
        """Returns how many windows are wanted along each axis."""
        size = self.output_size
        return size if isinstance(size, tuple) else (size,) * self.spatial


class _AdaptiveAvgPool(_AdaptivePool):
    """The means of as many windows as are wanted."""

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the means, with as many channels."""
        y = spatial(x, self.spatial)
        return restored(windows.adaptive_avg_pool(y, self._sizes(), scope.constant), self.spatial)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The means of L' windows of a sequence, C×L → C×L'.

    Args:
        output_size: L', the number of windows.

    Raises:
        NewtritonError: the number is none.
        ShapeError: it is no sequence; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.AdaptiveAvgPool1d(1)
        AdaptiveAvgPool1d(1)
    """

    spatial = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The means of H'×W' windows, C×H×W → C×H'×W'; of the whole image for 1.

    Window i of n rows begins at ⌊i·n/H'⌋ and ends before ⌈(i + 1)·n/H'⌉, as in PyTorch.

    Args:
        output_size: H' and W', one number for both; None keeps the image's.

    Raises:
        NewtritonError: a number is none.
        ShapeError: it is no image; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.AdaptiveAvgPool2d((1, None))
        AdaptiveAvgPool2d((1, None))
    """

    spatial = 2


class _AdaptiveMaxPool(_AdaptivePool):
    """The maxima of as many windows as are wanted."""

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the maxima, with as many channels."""
        y = spatial(x, self.spatial)
        for size, wanted in zip(y.shape[1:-1], self._sizes(), strict=True):
            if wanted is not None and wanted > max(size, MOST_WINDOWS):
                raise ShapeError(f"it makes {wanted} windows of {size} elements: make fewer")
        return restored(windows.adaptive_max_pool(y, self._sizes()), self.spatial)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The maxima of L' windows of a sequence, C×L → C×L'.

    Args:
        output_size: L', the number of windows.

    Raises:
        NewtritonError: the number is none.
        ShapeError: it is no sequence; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.AdaptiveMaxPool1d(4)
        AdaptiveMaxPool1d(4)
    """

    spatial = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The maxima of H'×W' windows, C×H×W → C×H'×W', as those of `AdaptiveAvgPool2d`.

    Args:
        output_size: H' and W', one number for both; None keeps the image's.

    Raises:
        NewtritonError: a number is none.
        ShapeError: it is no image; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.AdaptiveMaxPool2d(2)
        AdaptiveMaxPool2d(2)
    """

    spatial = 2

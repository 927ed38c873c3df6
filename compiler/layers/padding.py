"""Padding of sequences and images, by a number or by their own elements."""

from __future__ import annotations

from typing import ClassVar

from ..functions.padding import pad
from ..graph.errors import NewtritonError, quoted
from ..graph.ir import Node
from ..graph.options import check_integer, check_number
from ..language.described import Described
from ..language.network import Scope
from .arguments import LARGEST, Size, restored, spatial


class _Padding(Described):
    """Elements added before and after the axes of a sequence or an image.

    Attributes:
        spatial: how many axes there are.
        mode: what is added, a mode of `functions.padding.pad`.
    """

    spatial: ClassVar[int]
    mode: ClassVar[str]

    def __init__(self, padding: Size) -> None:
        count = 2 * self.spatial
        given = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,) * count
        if len(given) != count:
            raise NewtritonError(
                f"padding is {quoted(padding)}: give an integer or {count} of them"
            )
        self.widths = tuple(check_integer("padding", width, LARGEST) for width in given)
        self.padding = self.widths if isinstance(padding, (tuple, list)) else self.widths[0]

    def _value(self) -> float:
        """Returns the number that is added, where it is one."""
        return 0.0

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the larger sequence or image."""
        y, widths = spatial(x, self.spatial), self.widths
        # PyTorch counts from the last axis: left, right, top, bottom.
        sides = {self.spatial - i: (widths[2 * i], widths[2 * i + 1]) for i in range(self.spatial)}
        return restored(pad(y, sides, self.mode, self._value()), self.spatial)


class ZeroPad1d(_Padding):
    """Padding of a C×L sequence by zeros.

    Args:
        padding: how many elements are added on each side, or (left, right); less than 0 cuts off.

    Raises:
        NewtritonError: the numbers are none.
        ShapeError: it is no such sequence, or too small; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.ZeroPad1d((1, 2))
        ZeroPad1d((1, 2))
    """

    spatial = 1
    mode = "zeros"


class ZeroPad2d(_Padding):
    """Padding of a C×H×W image by zeros.

    Args:
        padding: how many elements are added on each side, or (left, right, top, bottom); less than
            0 cuts off.

    Raises:
        NewtritonError: the numbers are none.
        ShapeError: it is no such image, or too small; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.ZeroPad2d((1, 1, 0, 2))
        ZeroPad2d((1, 1, 0, 2))
    """

    spatial = 2
    mode = "zeros"


class ReflectionPad1d(_Padding):
    """Padding of a C×L sequence by what the border mirrors.

    Args:
        padding: how many elements are added on each side, or (left, right); less than 0 cuts off.

    Raises:
        NewtritonError: the numbers are none.
        ShapeError: it is no such sequence, or too small; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.ReflectionPad1d((1, 2))
        ReflectionPad1d((1, 2))
    """

    spatial = 1
    mode = "reflect"


class ReflectionPad2d(_Padding):
    """Padding of a C×H×W image by what the border mirrors.

    Args:
        padding: how many elements are added on each side, or (left, right, top, bottom); less than
            0 cuts off.

    Raises:
        NewtritonError: the numbers are none.
        ShapeError: it is no such image, or too small; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.ReflectionPad2d((1, 1, 0, 2))
        ReflectionPad2d((1, 1, 0, 2))
    """

    spatial = 2
    mode = "reflect"


class ReplicationPad1d(_Padding):
    """Padding of a C×L sequence by the element at the border.

    Args:
        padding: how many elements are added on each side, or (left, right); less than 0 cuts off.

    Raises:
        NewtritonError: the numbers are none.
        ShapeError: it is no such sequence, or too small; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.ReplicationPad1d((1, 2))
        ReplicationPad1d((1, 2))
    """

    spatial = 1
    mode = "replicate"


class ReplicationPad2d(_Padding):
    """Padding of a C×H×W image by the element at the border.

    Args:
        padding: how many elements are added on each side, or (left, right, top, bottom); less than
            0 cuts off.

    Raises:
        NewtritonError: the numbers are none.
        ShapeError: it is no such image, or too small; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.ReplicationPad2d((1, 1, 0, 2))
        ReplicationPad2d((1, 1, 0, 2))
    """

    spatial = 2
    mode = "replicate"


class CircularPad1d(_Padding):
    """Padding of a C×L sequence by what stands at the other end.

    Args:
        padding: how many elements are added on each side, or (left, right); less than 0 cuts off.

    Raises:
        NewtritonError: the numbers are none.
        ShapeError: it is no such sequence, or too small; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.CircularPad1d((1, 2))
        CircularPad1d((1, 2))
    """

    spatial = 1
    mode = "circular"


class CircularPad2d(_Padding):
    """Padding of a C×H×W image by what stands at the other end.

    Args:
        padding: how many elements are added on each side, or (left, right, top, bottom); less than
            0 cuts off.

    Raises:
        NewtritonError: the numbers are none.
        ShapeError: it is no such image, or too small; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.CircularPad2d((1, 1, 0, 2))
        CircularPad2d((1, 1, 0, 2))
    """

    spatial = 2
    mode = "circular"


class _ConstantPadding(_Padding):
    """Padding by a number."""

    mode = "constant"

    def __init__(self, padding: Size, value: float) -> None:
        super().__init__(padding)
        self.value = check_number("value", value)

    def _value(self) -> float:
        return self.value


class ConstantPad1d(_ConstantPadding):
    """Padding of a C×L sequence by a number.

    Args:
        padding: how many elements are added on each side, or (left, right); less than 0 cuts off.
        value: the number.

    Raises:
        NewtritonError: the numbers are none.
        ShapeError: it is no such sequence, or too small; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.ConstantPad1d(1, 0.5)
        ConstantPad1d(1, 0.5)
    """

    spatial = 1


class ConstantPad2d(_ConstantPadding):
    """Padding of a C×H×W image by a number.

    Args:
        padding: how many elements are added on each side, or (left, right, top, bottom); less than
            0 cuts off.
        value: the number.

    Raises:
        NewtritonError: the numbers are none.
        ShapeError: it is no such image, or too small; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.ConstantPad2d(1, 0.5)
        ConstantPad2d(1, 0.5)
    """

    spatial = 2

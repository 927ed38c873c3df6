"""Layers that compute nothing of their own: other shapes, other orders of axes, other sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..functions.resampling import interpolate
from ..graph import ops
from ..graph.errors import NewtritonError, ShapeError, quoted
from ..graph.ir import Node
from ..graph.options import check_flag, check_integer, check_number, check_option
from ..language.described import Described
from ..language.network import Scope
from .arguments import (
    check_size,
    graph_order,
    restored,
    spatial,
    torch_axis,
    torch_order,
)


class Identity(Described):
    """The layer that returns what it gets.

    Examples:
        >>> import newtriton as nt
        >>> nt.Concat(nt.Identity(), nt.Conv2d(4, 3, padding=1))
        Concat(Identity(), Conv2d(4, 3, padding=1))
    """

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns x."""
        return x


class Flatten(Described):
    """Several axes to one, in PyTorch's order: C×H×W → CHW unless others are given.

    Args:
        start_dim: the first of these axes, where 0 is that of the samples.
        end_dim: the last one.

    Raises:
        NewtritonError: an axis is no integer.
        ShapeError: there are no such axes; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.Sequential(nt.Flatten(), nt.Linear(2))
        >>> model = nt.compile(net, input_shape=(3, 4, 4), loss=nt.MSELoss())
        >>> tuple(model.state_dict()["1.weight"].shape)
        (2, 48)
        >>> nt.Flatten(2)
        Flatten(start_dim=2)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = check_integer("start_dim", start_dim)
        self.end_dim = check_integer("end_dim", end_dim)

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the same elements."""
        start, end = (
            torch_axis("start_dim", x, self.start_dim),
            torch_axis("end_dim", x, self.end_dim),
        )
        if start > end:
            raise ShapeError(f"start_dim {self.start_dim} lies behind end_dim {self.end_dim}")
        if start == end:
            return x
        x = torch_order(x)
        merged = math.prod(x.shape[start : end + 1])
        return graph_order(ops.reshape(x, (*x.shape[:start], merged, *x.shape[end + 1 :])))


class Unflatten(Described):
    """One axis to several, in PyTorch's order.

    Args:
        dim: the axis, where 0 is that of the samples.
        unflattened_size: the sizes that it becomes; one of them may be −1, and follows.

    Raises:
        NewtritonError: a size is none.
        ShapeError: the sizes do not fit; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.Sequential(nt.Linear(18), nt.Unflatten(1, (2, 3, 3)), nt.Conv2d(1, 3))
        >>> model = nt.compile(nt.Sequential(net, nt.Flatten()), (4,), nt.MSELoss())
        >>> model.params.numel()
        109
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        self.dim = check_integer("dim", dim)
        if not isinstance(unflattened_size, (tuple, list)) or not unflattened_size:
            raise NewtritonError(
                f"unflattened_size is {quoted(unflattened_size)}: give several sizes"
            )
        sizes = tuple(check_integer("unflattened_size", size) for size in unflattened_size)
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise NewtritonError(
                f"unflattened_size is {sizes}: give positive sizes, one −1 at most"
            )
        self.unflattened_size = sizes

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the same elements."""
        axis, x = torch_axis("dim", x, self.dim), torch_order(x)
        whole, known = x.shape[axis], math.prod(size for size in self.unflattened_size if size > 0)
        sizes = tuple(whole // known if size == -1 else size for size in self.unflattened_size)
        if math.prod(sizes) != whole:
            raise ShapeError(f"{whole} elements do not make {self.unflattened_size}")
        return graph_order(ops.reshape(x, (*x.shape[:axis], *sizes, *x.shape[axis + 1 :])))


class Permute(Described):
    """Other orders of axes, as torchvision's: axis i of the result is axis dims[i] of the input.

    Args:
        dims: the order, where 0 is the axis of the samples and stays first.

    Raises:
        NewtritonError: it is no order.
        ShapeError: there are not so many axes; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> patches = nt.Sequential(nt.Conv2d(8, 4, stride=4), nt.Flatten(2), nt.Permute((0, 2, 1)))
        >>> net = nt.Sequential(patches, nt.Linear(2), nt.Flatten(), nt.Linear(3))
        >>> nt.compile(net, (1, 8, 8), nt.MSELoss()).params.numel()
        181
    """

    def __init__(self, dims: Sequence[int]) -> None:
        several = isinstance(dims, (tuple, list))
        order = tuple(check_integer("dims", axis) for axis in dims) if several else ()
        if sorted(order) != list(range(len(order))) or order[:1] != (0,):
            raise NewtritonError(
                f"dims is {quoted(dims)}: give an order of axes that begins with 0"
            )
        self.dims = order

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the same elements."""
        if len(self.dims) != ops.rank(x):
            raise ShapeError(f"dims is {self.dims}, and with the samples there are {ops.rank(x)}")
        return graph_order(ops.transpose(torch_order(x), self.dims))


class Upsample(Described):
    """Sequences and images in another size, as PyTorch's: C×L → C×L' or C×H×W → C×H'×W'.

    Args:
        size: L', or H' and W', one number for both; or
        scale_factor: by what the sizes are multiplied.
        mode: "nearest" repeats elements, "linear" (of sequences), "bilinear" and "bicubic" (of
            images) go between them.
        align_corners: whether the first and last elements stay where they are; otherwise the ends
            of the whole do.

    Raises:
        NewtritonError: an option is none that there can be.
        ShapeError: it is no sequence or image; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.Upsample(scale_factor=2, mode="bilinear")
        Upsample(scale_factor=2, mode='bilinear')
    """

    MODES = ("nearest", "nearest-exact", "linear", "bilinear", "bicubic")

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
    ) -> None:
        check_option("mode", mode, self.MODES)
        if (size is None) == (scale_factor is None):
            raise NewtritonError("give size or scale_factor, one of them: Upsample(scale_factor=2)")
        self.size = None if size is None else _all("size", size, check_size)
        self.scale_factor = (
            None if scale_factor is None else _all("scale_factor", scale_factor, _factor)
        )
        self.mode = mode
        self.align_corners = align_corners
        if align_corners is not None:
            check_flag("align_corners", align_corners)
            if "linear" not in mode and mode != "bicubic":
                raise NewtritonError(f"align_corners has no meaning in mode {mode!r}: leave it out")

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the resized sequence or image."""
        count = {"linear": 1, "bilinear": 2, "bicubic": 2}.get(self.mode, ops.rank(x) - 2)
        if count not in (1, 2):
            raise ShapeError("it needs a C×L sequence or a C×H×W image")
        given: Any = self.scale_factor if self.size is None else self.size
        several = given if isinstance(given, tuple) else (given,) * count
        if len(several) != count:
            raise ShapeError(f"{given} says {len(several)} sizes, and there are {count}")
        y = interpolate(
            spatial(x, count),
            scope.constant,
            **{"scales" if self.size is None else "sizes": several},
            mode=self.mode,
            align_corners=bool(self.align_corners),
        )
        return restored(y, count)


def _factor(what: str, value: Any) -> float:
    """Returns a factor above 0, an integer where it was given as one."""
    number = check_number(what, value, above=0.0)
    return int(value) if isinstance(value, int) else number


def _all(what: str, value: Any, check: Any) -> Any:
    """Returns a size or several, checked."""
    if isinstance(value, (tuple, list)):
        return tuple(check(what, v) for v in value)
    return check(what, value)

"""Norms: over the batch, over the elements of a sample, over groups of its channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from ..functions import normalisation
from ..graph import ops, scalar
from ..graph.errors import ShapeError
from ..graph.ir import Node, per_sample
from ..graph.options import check_flag, check_number
from ..graph.scalar import var
from ..language.described import Described
from ..language.network import Scope
from .arguments import (
    arranged,
    check_divides,
    check_inferred,
    check_size,
    graph_order,
    image,
    stated,
    torch_order,
)


def _channels_last(x: Node) -> Node:
    """Returns a value with its channels, axis 1 in PyTorch's order, last."""
    return x if ops.rank(x) in (2, 4) else ops.transpose(x, (0, *range(2, ops.rank(x)), 1))


def _channels_back(x: Node) -> Node:
    """Undoes `_channels_last`."""
    rank = ops.rank(x)
    return x if rank in (2, 4) else ops.transpose(x, (0, rank - 1, *range(1, rank - 1)))


def _affine(scope: Scope, shape: tuple[int, ...], weight: bool, bias: bool) -> list[Node | None]:
    """Returns γ and β of a shape, ones and zeros at first; None where there is none."""
    size = math.prod(shape)
    return [
        scope.parameter(name, shape, first, (size, size)) if wanted else None
        for name, first, wanted in (("weight", "ones", weight), ("bias", "zeros", bias))
    ]


class _BatchNorm(Described):
    """The batch norm of each channel."""

    def __init__(
        self,
        *sizes: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        **named: int,
    ) -> None:
        found = arranged(self, {"num_features": check_size}, "num_features", sizes, named)
        self.num_features: int | None = found["num_features"]
        self.sizes = stated(found)
        self.eps = check_number("eps", eps, above=0.0)
        self.momentum = None if momentum is None else check_number("momentum", momentum, 0.0, 1.0)
        self.affine = check_flag("affine", affine)

    def _check(self, x: Node) -> None:
        """Raises an error where the layer does not take that."""
        raise NotImplementedError

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the normalised value, in the shape of the input."""
        self._check(x)
        x = _channels_last(x)
        c = x.shape[-1]
        check_inferred("num_features", self.num_features, c, f"{type(self).__name__}()")
        found = normalisation.moments(x, range(ops.rank(x) - 1))
        positions = per_sample(x.shape[:-1])
        mean = scope.running("running_mean", 0.0, found.mean, positions)
        variance = scope.running("running_var", 1.0, found.unbiased, positions)
        scope.momentum(self.momentum)
        centred = found.centred
        if scope.training:
            variance = found.variance
        else:
            centred = normalisation.shifted(x, mean, found.axes)
        affine = _affine(scope, (c,), self.affine, self.affine)
        y = normalisation.scaled(centred, variance, found.axes, self.eps, *affine)
        return _channels_back(y)


class BatchNorm1d(_BatchNorm):
    """The batch norm of each feature, or of each channel of a sequence, C or C×L.

    `BatchNorm1d()` or `BatchNorm1d(num_features)`, with options as in `BatchNorm2d`.

    Raises:
        NewtritonError: an option is none that there can be.
        ShapeError: an image reaches the layer; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.Sequential(nt.Linear(8), nt.BatchNorm1d(), nt.ReLU(), nt.Linear(2))
        >>> model = nt.compile(net, input_shape=(4,), loss=nt.MSELoss())
        >>> [name for name in model.state_dict() if name.startswith("1.")][:2]
        ['1.weight', '1.bias']
    """

    def _check(self, x: Node) -> None:
        if ops.rank(x) not in (2, 3):
            raise ShapeError("it needs features or a C×L sequence: use BatchNorm2d for images")


class BatchNorm2d(_BatchNorm):
    """The batch norm (x − mean)/√(var + eps)·γ + β of each channel of an image.

    Mean and variance are those of the batch in training, and derivatives of every order go through
    them (Ioffe & Szegedy 2015); in evaluation mode the running statistics serve. The running
    variance takes the unbiased one, as in PyTorch. `BatchNorm2d()` or `BatchNorm2d(num_features)`.

    Args:
        num_features (int): the number of channels; it is inferred unless given.
        eps: what is added to the variance, above 0.
        momentum: the weight of a new batch in the running statistics; None averages all batches.
        affine: whether there are γ and β.

    Raises:
        NewtritonError: an option is none that there can be.
        ShapeError: what reaches the layer is no image, or one with other channels; raised when the
            network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.BatchNorm2d(momentum=None)
        BatchNorm2d(momentum=None)
        >>> net = nt.Sequential(nt.BatchNorm2d(), nt.Flatten(), nt.Linear(2))
        >>> model = nt.compile(net, input_shape=(3, 4, 4), loss=nt.MSELoss())
        >>> [name for name in model.state_dict() if name.startswith("0.")][:4]
        ['0.weight', '0.bias', '0.running_mean', '0.running_var']
    """

    def _check(self, x: Node) -> None:
        image(x)


class _InstanceNorm(Described):
    """The norm of each channel of each sample."""

    ranks: ClassVar[tuple[int, str]]

    def __init__(self, *sizes: int, eps: float = 1e-5, affine: bool = False, **named: int) -> None:
        found = arranged(self, {"num_features": check_size}, "num_features", sizes, named)
        self.num_features: int | None = found["num_features"]
        self.sizes = stated(found)
        self.eps = check_number("eps", eps, above=0.0)
        self.affine = check_flag("affine", affine)

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the normalised value, in the shape of the input."""
        rank, kind = self.ranks
        if ops.rank(x) != rank:
            raise ShapeError(f"it needs a {kind}")
        x = _channels_last(x)
        c = x.shape[-1]
        check_inferred("num_features", self.num_features, c, f"{type(self).__name__}()")
        affine = _affine(scope, (c,), self.affine, self.affine)
        return _channels_back(normalisation.instance_norm(x, self.eps, *affine))


class InstanceNorm1d(_InstanceNorm):
    """The norm of each channel of each sequence, C×L (Ulyanov et al. 2016).

    `InstanceNorm1d()` or `InstanceNorm1d(num_features)`, with options as in `InstanceNorm2d`.

    Raises:
        NewtritonError: an option is none that there can be.
        ShapeError: it is no sequence; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.InstanceNorm1d(affine=True)
        InstanceNorm1d(affine=True)
    """

    ranks = (3, "C×L sequence")


class InstanceNorm2d(_InstanceNorm):
    """The norm of each channel of each image, C×H×W (Ulyanov et al. 2016).

    `InstanceNorm2d()` or `InstanceNorm2d(num_features)`.

    Args:
        num_features (int): the number of channels; it is inferred unless given.
        eps: what is added to the variance, above 0.
        affine: whether there are γ and β.

    Raises:
        NewtritonError: an option is none that there can be.
        ShapeError: it is no image; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.InstanceNorm2d(16)
        InstanceNorm2d(16)
    """

    ranks = (4, "C×H×W image")


class GroupNorm(Described):
    """The norm of each group of channels of each sample (Wu & He 2018).

    `GroupNorm(num_groups)` or `GroupNorm(num_groups, num_channels)`.

    Args:
        num_groups (int): into how many groups the channels divide.
        num_channels (int): the number of channels; it is inferred unless given.
        eps: what is added to the variance, above 0.
        affine: whether there are γ and β for each channel.

    Raises:
        NewtritonError: an option is none that there can be.
        ShapeError: the channels do not divide into the groups; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.GroupNorm(4)
        GroupNorm(4)
        >>> nt.GroupNorm(4, 16)
        GroupNorm(4, 16)
    """

    def __init__(self, *sizes: int, eps: float = 1e-5, affine: bool = True, **named: int) -> None:
        names = {"num_groups": check_size, "num_channels": check_size}
        found = arranged(self, names, "num_channels", sizes, named)
        self.num_groups: int = found["num_groups"]
        self.num_channels: int | None = found["num_channels"]
        self.sizes = stated(found)
        self.eps = check_number("eps", eps, above=0.0)
        self.affine = check_flag("affine", affine)

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the normalised value, in the shape of the input."""
        x = _channels_last(x)
        c = x.shape[-1]
        check_inferred("num_channels", self.num_channels, c, f"GroupNorm({self.num_groups})")
        check_divides("channels", c, self.num_groups)
        affine = _affine(scope, (c,), self.affine, self.affine)
        return _channels_back(normalisation.group_norm(x, self.num_groups, self.eps, *affine))


def _trailing(what: str, value: Any) -> tuple[int, ...] | int:
    """Returns the sizes of trailing axes: one integer, or several."""
    if isinstance(value, Sequence) and value:
        return tuple(check_size(what, size) for size in value)
    return check_size(what, value)


class _TrailingNorm(Described):
    """A norm over the last axes of a sample."""

    normalized_shape: tuple[int, ...] | int | None

    def _given(self, given: Sequence[Any], named: dict[str, Any]) -> None:
        """Checks and keeps the shape."""
        names = {"normalized_shape": _trailing}
        found = arranged(self, names, "normalized_shape", given, named)
        self.normalized_shape = found["normalized_shape"]
        self.sizes = stated(found)

    def _shape(self, x: Node) -> tuple[int, ...]:
        """Returns the sizes of the axes that the norm goes over, in PyTorch's order."""
        arriving, shape = torch_order(x).shape, self.normalized_shape
        if shape is None:
            if ops.rank(x) == 4:
                raise ShapeError(
                    f"over which axes of an image? say {type(self).__name__}({arriving[1:]})"
                )
            return arriving[-1:]
        shape = (shape,) if isinstance(shape, int) else shape
        if len(shape) >= len(arriving):
            raise ShapeError(f"normalized_shape is {shape}: it has too many axes")
        check_inferred(
            "normalized_shape", shape, arriving[-len(shape) :], f"{type(self).__name__}()"
        )
        return shape


class LayerNorm(_TrailingNorm):
    """The norm (x − mean)/√(var + eps)·γ + β over the last axes of a sample (Ba et al. 2016).

    `LayerNorm()` or `LayerNorm(normalized_shape)`.

    Args:
        normalized_shape (int | tuple[int, ...]): the sizes of these axes in PyTorch's order; the
            last one unless given. Of an image they are given.
        eps: what is added to the variance, above 0.
        elementwise_affine: whether there are γ and β for each element.
        bias: whether there is a β where there is a γ.

    Raises:
        NewtritonError: an option is none that there can be.
        ShapeError: other sizes reach the layer; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.LayerNorm(64, bias=False)
        LayerNorm(64, bias=False)
        >>> net = nt.Sequential(nt.Linear(6), nt.LayerNorm(), nt.Linear(2))
        >>> model = nt.compile(net, input_shape=(4,), loss=nt.MSELoss())
        >>> tuple(model.state_dict()["1.weight"].shape)
        (6,)
    """

    def __init__(
        self,
        *sizes: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        **named: Any,
    ) -> None:
        self._given(sizes, named)
        self.eps = check_number("eps", eps, above=0.0)
        self.elementwise_affine = check_flag("elementwise_affine", elementwise_affine)
        self.bias = check_flag("bias", bias)

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the normalised value, in the shape of the input."""
        shape, scaled = self._shape(x), self.elementwise_affine
        ordered = torch_order(x)
        weight, bias = _affine(scope, shape, scaled, scaled and self.bias)
        return graph_order(normalisation.layer_norm(ordered, len(shape), self.eps, weight, bias))


class RMSNorm(_TrailingNorm):
    """The norm x/√(mean of x² + eps)·γ over the last axes of a sample (Zhang & Sennrich 2019).

    `RMSNorm()` or `RMSNorm(normalized_shape)`.

    Args:
        normalized_shape (int | tuple[int, ...]): the sizes of these axes, as in `LayerNorm`.
        eps: what is added to the mean, above 0; the machine epsilon of the model's dtype unless
            given, as in PyTorch.
        elementwise_affine: whether there is a γ for each element.

    Raises:
        NewtritonError: an option is none that there can be.
        ShapeError: other sizes reach the layer; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.RMSNorm(64, eps=1e-6)
        RMSNorm(64, eps=1e-06)
    """

    def __init__(
        self,
        *sizes: Any,
        eps: float | None = None,
        elementwise_affine: bool = True,
        **named: Any,
    ) -> None:
        self._given(sizes, named)
        self.eps = None if eps is None else check_number("eps", eps, above=0.0)
        self.elementwise_affine = check_flag("elementwise_affine", elementwise_affine)

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns the normalised value, in the shape of the input."""
        shape = self._shape(x)
        weight, _ = _affine(scope, shape, self.elementwise_affine, False)
        eps = _machine_epsilon(scope) if self.eps is None else self.eps
        return graph_order(normalisation.rms_norm(torch_order(x), len(shape), eps, weight))


def _machine_epsilon(scope: Scope) -> Node:
    """Returns the machine epsilon of the dtype that the model has: 1 + 2^−52 is 1 in float32."""
    fine, coarse = (torch.finfo(dtype).eps for dtype in (torch.float64, torch.float32))
    above = scope.constant(torch.tensor(1.0 + fine, dtype=torch.float64))
    return ops.map_(scalar.branch(var(0) - 1.0, fine, coarse), above)

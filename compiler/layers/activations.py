"""Elementwise layers φ, each given as a scalar expression; its derivatives follow symbolically.

All of them take values of any shape and leave the shape as it is. Their arguments are PyTorch's, in
its order.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..functions import activations
from ..functions.shapes import copied, cut
from ..graph import ops, scalar
from ..graph.errors import ShapeError
from ..graph.ir import Node
from ..graph.options import check_integer, check_number, check_option
from ..graph.scalar import Expr, var
from ..language.described import Described
from ..language.initial import Constant
from ..language.network import Scope
from .arguments import axis_of, check_size


class Activation(Described):
    """An elementwise function φ."""

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        raise NotImplementedError

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns φ of each element."""
        return ops.map_(self.expr, x)


class ReLU(Activation):
    """φ(x) = max(x, 0), with derivative 0 at 0.

    Examples:
        >>> import newtriton as nt
        >>> nt.Sequential(nt.Linear(8), nt.ReLU(), nt.Linear(3))
        Sequential(Linear(8), ReLU(), Linear(3))
    """

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.relu(var(0))


@dataclass(eq=False, repr=False)
class LeakyReLU(Activation):
    """φ(x) = x where x > 0, and negative_slope·x elsewhere.

    Args:
        negative_slope: the slope below 0.

    Raises:
        NewtritonError: an argument is no such number.

    Examples:
        >>> import newtriton as nt
        >>> nt.LeakyReLU(0.2)
        LeakyReLU(negative_slope=0.2)
    """

    negative_slope: float = 0.01

    def __post_init__(self) -> None:
        self.negative_slope = check_number("negative_slope", self.negative_slope)

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.leaky_relu(var(0), self.negative_slope)


class ReLU6(Activation):
    """φ(x) = min(max(x, 0), 6).

    Examples:
        >>> import newtriton as nt
        >>> nt.Sequential(nt.Linear(8), nt.ReLU6(), nt.Linear(3))
        Sequential(Linear(8), ReLU6(), Linear(3))
    """

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.hardtanh(var(0), 0.0, 6.0)


@dataclass(eq=False, repr=False)
class Threshold(Activation):
    """φ(x) = x where x > threshold, and value elsewhere.

    Args:
        threshold: the bound above which x stays.
        value: what stands for the rest.

    Raises:
        NewtritonError: an argument is no such number.

    Examples:
        >>> import newtriton as nt
        >>> nt.Threshold(0.1, 20.0)
        Threshold(0.1, 20.0)
    """

    threshold: float
    value: float

    def __post_init__(self) -> None:
        self.threshold = check_number("threshold", self.threshold)
        self.value = check_number("value", self.value)

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.threshold(var(0), self.threshold, self.value)


@dataclass(eq=False, repr=False)
class ELU(Activation):
    """φ(x) = x where x > 0, and α(e^x − 1) elsewhere (Clevert et al. 2016).

    Args:
        alpha: the number α.

    Raises:
        NewtritonError: an argument is no such number.

    Examples:
        >>> import newtriton as nt
        >>> nt.ELU(alpha=0.5)
        ELU(alpha=0.5)
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        self.alpha = check_number("alpha", self.alpha)

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.elu(var(0), self.alpha)


class SELU(Activation):
    """φ(x) = the ELU with scales that normalise activations (Klambauer et al. 2017).

    Examples:
        >>> import newtriton as nt
        >>> nt.Sequential(nt.Linear(8), nt.SELU(), nt.Linear(3))
        Sequential(Linear(8), SELU(), Linear(3))
    """

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.selu(var(0))


@dataclass(eq=False, repr=False)
class CELU(Activation):
    """φ(x) = x where x > 0, and α(e^(x/α) − 1) elsewhere (Barron 2017).

    Args:
        alpha: the number α > 0.

    Raises:
        NewtritonError: an argument is no such number.

    Examples:
        >>> import newtriton as nt
        >>> nt.CELU(alpha=0.5)
        CELU(alpha=0.5)
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        self.alpha = check_number("alpha", self.alpha, above=0.0)

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.celu(var(0), self.alpha)


class Sigmoid(Activation):
    """φ(x) = σ(x) = 1/(1 + e^−x).

    Examples:
        >>> import newtriton as nt
        >>> nt.Sequential(nt.Linear(8), nt.Sigmoid(), nt.Linear(3))
        Sequential(Linear(8), Sigmoid(), Linear(3))
    """

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return scalar.sigmoid(var(0))


class LogSigmoid(Activation):
    """φ(x) = log σ(x).

    Examples:
        >>> import newtriton as nt
        >>> nt.Sequential(nt.Linear(8), nt.LogSigmoid(), nt.Linear(3))
        Sequential(Linear(8), LogSigmoid(), Linear(3))
    """

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.log_sigmoid(var(0))


class Hardsigmoid(Activation):
    """φ(x) = min(max(x/6 + 1/2, 0), 1).

    Examples:
        >>> import newtriton as nt
        >>> nt.Sequential(nt.Linear(8), nt.Hardsigmoid(), nt.Linear(3))
        Sequential(Linear(8), Hardsigmoid(), Linear(3))
    """

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.hardsigmoid(var(0))


class Tanh(Activation):
    """φ(x) = tanh(x), the hyperbolic tangent.

    Examples:
        >>> import newtriton as nt
        >>> nt.Sequential(nt.Linear(8), nt.Tanh(), nt.Linear(3))
        Sequential(Linear(8), Tanh(), Linear(3))
    """

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return scalar.tanh(var(0))


@dataclass(eq=False, repr=False)
class Hardtanh(Activation):
    """φ(x) = min(max(x, min_val), max_val).

    Args:
        min_val: the least value.
        max_val: the largest value.

    Raises:
        NewtritonError: an argument is no such number.

    Examples:
        >>> import newtriton as nt
        >>> nt.Hardtanh(-2.0, 2.0)
        Hardtanh(min_val=-2.0, max_val=2.0)
    """

    min_val: float = -1.0
    max_val: float = 1.0

    def __post_init__(self) -> None:
        self.min_val = check_number("min_val", self.min_val)
        self.max_val = check_number("max_val", self.max_val, above=self.min_val)

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.hardtanh(var(0), self.min_val, self.max_val)


class Tanhshrink(Activation):
    """φ(x) = x − tanh(x).

    Examples:
        >>> import newtriton as nt
        >>> nt.Sequential(nt.Linear(8), nt.Tanhshrink(), nt.Linear(3))
        Sequential(Linear(8), Tanhshrink(), Linear(3))
    """

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.tanhshrink(var(0))


@dataclass(eq=False, repr=False)
class Hardshrink(Activation):
    """φ(x) = x where |x| > lambd, and 0 elsewhere.

    Args:
        lambd: half of the width that becomes 0.

    Raises:
        NewtritonError: an argument is no such number.

    Examples:
        >>> import newtriton as nt
        >>> nt.Hardshrink(0.2)
        Hardshrink(lambd=0.2)
    """

    lambd: float = 0.5

    def __post_init__(self) -> None:
        self.lambd = check_number("lambd", self.lambd, 0.0)

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.hardshrink(var(0), self.lambd)


@dataclass(eq=False, repr=False)
class Softshrink(Activation):
    """φ(x) = x without its part between −lambd and lambd.

    Args:
        lambd: half of the width that becomes 0.

    Raises:
        NewtritonError: an argument is no such number.

    Examples:
        >>> import newtriton as nt
        >>> nt.Softshrink(0.2)
        Softshrink(lambd=0.2)
    """

    lambd: float = 0.5

    def __post_init__(self) -> None:
        self.lambd = check_number("lambd", self.lambd, 0.0)

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.softshrink(var(0), self.lambd)


class Softsign(Activation):
    """φ(x) = x/(1 + |x|).

    Examples:
        >>> import newtriton as nt
        >>> nt.Sequential(nt.Linear(8), nt.Softsign(), nt.Linear(3))
        Sequential(Linear(8), Softsign(), Linear(3))
    """

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.softsign(var(0))


@dataclass(eq=False, repr=False)
class Softplus(Activation):
    """φ(x) = log(1 + e^βx)/β, and x where βx > threshold, as in PyTorch.

    Args:
        beta: the number β > 0.
        threshold: where the two are equal in float32.

    Raises:
        NewtritonError: an argument is no such number.

    Examples:
        >>> import newtriton as nt
        >>> nt.Softplus(beta=2.0)
        Softplus(beta=2.0)
    """

    beta: float = 1.0
    threshold: float = 20.0

    def __post_init__(self) -> None:
        self.beta = check_number("beta", self.beta, above=0.0)
        self.threshold = check_number("threshold", self.threshold)

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.softplus(var(0), self.beta, self.threshold)


class SiLU(Activation):
    """φ(x) = x·σ(x), also called swish (Ramachandran, Zoph & Le 2017).

    Examples:
        >>> import newtriton as nt
        >>> nt.Sequential(nt.Linear(8), nt.SiLU(), nt.Linear(3))
        Sequential(Linear(8), SiLU(), Linear(3))
    """

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.silu(var(0))


class Hardswish(Activation):
    """φ(x) = x·min(max(x/6 + 1/2, 0), 1) (Howard et al. 2019).

    Examples:
        >>> import newtriton as nt
        >>> nt.Sequential(nt.Linear(8), nt.Hardswish(), nt.Linear(3))
        Sequential(Linear(8), Hardswish(), Linear(3))
    """

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.hardswish(var(0))


class Mish(Activation):
    """φ(x) = x·tanh(log(1 + e^x)) (Misra 2019).

    Examples:
        >>> import newtriton as nt
        >>> nt.Sequential(nt.Linear(8), nt.Mish(), nt.Linear(3))
        Sequential(Linear(8), Mish(), Linear(3))
    """

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.mish(var(0))


@dataclass(eq=False, repr=False)
class GELU(Activation):
    """φ(x) = x·Φ(x), where Φ is the distribution function of the normal distribution.

    The approximation is x/2·(1 + tanh(√(2/π)(x + 0.044715x³))) (Hendrycks & Gimpel 2016).

    Args:
        approximate: "none" or "tanh".

    Raises:
        NewtritonError: `approximate` is unknown.

    Examples:
        >>> import newtriton as nt
        >>> nt.GELU(approximate="tanh")
        GELU(approximate='tanh')
    """

    approximate: str = "none"

    def __post_init__(self) -> None:
        check_option("approximate", self.approximate, ("none", "tanh"))

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return activations.gelu(var(0), self.approximate)


class PReLU(Described):
    """φ(x) = x where x > 0, and w·x elsewhere, where w is trained (He et al. 2015).

    Args:
        num_parameters: 1 for all channels, or the number of channels, axis 1 in PyTorch's order.
        init: the first value of w.

    Raises:
        NewtritonError: an argument is no such number.
        ShapeError: there are not so many channels; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.PReLU(16)
        PReLU(num_parameters=16)
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        self.num_parameters = check_size("num_parameters", num_parameters)
        self.init = check_number("init", init)

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns φ of each element."""
        count = self.num_parameters
        channels = axis_of("the axis of channels", x, 1)
        if count not in (1, x.shape[channels]):
            raise ShapeError(
                f"num_parameters is {count}, and {x.shape[channels]} channels arrive: give "
                f"{x.shape[channels]}, or 1 for all"
            )
        slope = scope.parameter("weight", (count,), Constant(self.init), (1, 1))
        rest = [axis for axis in range(ops.rank(x)) if axis != channels]
        if count == 1 and x.shape[channels] != 1:
            slope, rest = ops.reshape(slope, ()), range(ops.rank(x))
        return ops.map_(activations.leaky_relu(var(0), var(1)), x, copied(slope, x, rest))


class GLU(Described):
    """The gated unit a·σ(b) of the two halves a and b of an axis (Dauphin et al. 2017).

    Args:
        dim: the axis in PyTorch's order.

    Raises:
        NewtritonError: the axis is no integer.
        ShapeError: there is no such axis, or it has no halves; raised when the network is compiled.

    Examples:
        >>> import newtriton as nt
        >>> nt.GLU(dim=1)
        GLU(dim=1)
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = check_integer("dim", dim)

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns half as many elements."""
        axis = axis_of("dim", x, self.dim)
        size = x.shape[axis]
        if size % 2:
            raise ShapeError(f"dim {self.dim} has {size} elements: give an even number")
        halves = cut(x, axis, 0, size // 2), cut(x, axis, size // 2, size)
        return ops.map_(var(0) * scalar.sigmoid(var(1)), *halves)

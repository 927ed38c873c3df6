"""Elementwise layers φ, each given as a scalar expression; its derivatives follow symbolically.

All of them take values of any shape and leave the shape as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..graph import ops, scalar
from ..graph.ir import Node
from ..graph.options import check_number, check_option
from ..graph.scalar import Expr, var
from .described import Described
from .network import Scope


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
        return scalar.where(var(0), var(0), 0.0)


@dataclass(eq=False, repr=False)
class LeakyReLU(Activation):
    """φ(x) = x where x > 0, and negative_slope·x elsewhere.

    Args:
        negative_slope: the slope below 0.

    Examples:
        >>> import newtriton as nt
        >>> nt.LeakyReLU(0.2)
        LeakyReLU(negative_slope=0.2)
    """

    negative_slope: float = 0.01

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return scalar.where(var(0), var(0), self.negative_slope * var(0))


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
        return var(0) * scalar.sigmoid(var(0))


@dataclass(eq=False, repr=False)
class Softplus(Activation):
    """φ(x) = log(1 + e^βx)/β.

    Args:
        beta: the number β > 0.

    Raises:
        NewtritonError: β is not a positive number.

    Examples:
        >>> import newtriton as nt
        >>> nt.Softplus(beta=2.0)
        Softplus(beta=2.0)
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        check_number("beta", self.beta, above=0.0)

    @property
    def expr(self) -> Expr:
        """The expression φ of x0."""
        return scalar.softplus(var(0) * self.beta) / self.beta


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
        x = var(0)
        if self.approximate == "none":
            return x * (0.5 * (1.0 + scalar.erf(x * math.sqrt(0.5))))
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
        return x * (0.5 * (1.0 + scalar.tanh(inner)))

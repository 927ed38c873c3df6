"""A user's own loss, from a scalar expression of one output and its label."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate, product

from ..graph import ops, scalar
from ..graph.errors import NewtritonError, quoted
from ..graph.ir import Node
from ..graph.options import check_flag, check_number, check_option
from ..graph.scalar import Expr, derivative, var
from .loss import NOISES, Loss, check_root

Function = Callable[[Expr, Expr], Expr]
PROBES = (-3.0, -1.0, 0.0, 0.5, 2.0)  # outputs at which promises are checked


@dataclass(frozen=True, repr=False)
class Criterion(Loss):
    """A loss of your own, ℓ = Σ_k f(z_k, y_k) with f twice differentiable; labels float (N, K).

    f is written in `newtriton.scalar`: numbers, + − × ÷, exp, log, sqrt, sigmoid, tanh, erf,
    softplus, and where(c, a, b), which is a where c > 0, b elsewhere and NaN where c is. What
    depends on several outputs is a subclass of `newtriton.Loss`, whose `losses(z, y)` is written in
    graph ops.

    Args:
        function: f(z, y).
        values: the labels there are, where e^{−f} is a distribution over them: labels can be drawn.
        draw: a label of the model's distribution from z and a random number.
        noise: the random number that `draw` takes, "uniform" in [0, 1) or "normal".
        convex: whether f is convex in z, whatever y is.
        root: what stands for B = ∂²f/∂z² in Gauss–Newton curvature where f is not convex: "fisher",
            E[B] over `values`; "clip", its positive part; None refuses such curvature.
        lowest: a number that ℓ is never below: 0 where there are `values`; None where none is
            known. Steps that promise to go below it are shortened, see `runtime.rules.noise`.

    Attributes:
        separable: always True, since ℓ is a sum over the outputs.
        distribution: whether labels can be drawn, by `values` or by `draw`.

    Raises:
        NewtritonError: e^{−f} does not sum to one over `values`, f is not convex, or an option does
            not fit the others.

    Examples:
        >>> import newtriton as nt
        >>> nt.Criterion(lambda z, y: nt.scalar.softplus(-z * y), values=(-1, 1), convex=True)
        Criterion(values=(-1, 1), convex=True)
        >>> welsch = nt.Criterion(lambda z, y: 1 - nt.scalar.exp(-(z - y) * (z - y)), root="clip")
        >>> nt.compile(nt.Linear(2), input_shape=(3,), loss=welsch).criterion
        Criterion(root='clip')
    """

    function: Function
    values: tuple[float, ...] | None = None
    draw: Function | None = None
    noise: str = "uniform"
    convex: bool = False
    root: str | None = None
    lowest: float | None = None
    separable: bool = field(init=False, repr=False, default=True)
    distribution: bool = field(init=False, repr=False, default=False)

    def __post_init__(self) -> None:
        check_flag("convex", self.convex)
        check_root(self.root)
        check_option("noise", self.noise, NOISES)
        _traced("function", self.function)
        finite = self.values is not None
        object.__setattr__(self, "distribution", finite or self.draw is not None)
        if self.draw is not None:
            _traced("draw", self.draw)
        if self.lowest is not None:
            object.__setattr__(self, "lowest", check_number("lowest", self.lowest))
        if self.root == "fisher" and not finite:
            raise NewtritonError(
                "root='fisher' is a sum over the labels there are: name them, values=(0, 1) for "
                "example, or take root='clip'"
            )
        if self.values is not None:
            self._check_values(self.values)

    def _check_values(self, given: object) -> None:
        """Raises an error where e^{−f} is no distribution over `values`, or f is not convex."""
        if not isinstance(given, (tuple, list)) or not given:
            raise NewtritonError(f"values are {quoted(given)}: give the labels, e.g. (0, 1)")
        for i, value in enumerate(given):
            check_number(f"values[{i}]", value)
        object.__setattr__(self, "values", tuple(given))
        if self.draw is not None or self.noise != "uniform":
            raise NewtritonError(
                f"values are {self.values}: labels are drawn from them, leave out draw and noise"
            )
        for z in PROBES:
            total = sum(_at(p, z) for _, p in self._likelihoods)
            if not abs(total - 1.0) < 1e-6:
                raise NewtritonError(
                    f"values are {self.values}: e^−f sums to {total:g} over them at z = {z:g}, "
                    "which is no distribution; add the logarithm of the sum, or leave values out"
                )
        for z, y in product(PROBES, self.values or ()):
            if self.convex and _at(self._bend, z, y) < -1e-9:
                raise NewtritonError(
                    f"convex is True: ∂²f/∂z² is {_at(self._bend, z, y):g} at z = {z:g}, "
                    f"y = {y:g}; take root='fisher' or root='clip' instead"
                )

    @property
    def _expression(self) -> Expr:
        """The expression f of the operands z and y."""
        return _traced("function", self.function)

    @property
    def _bend(self) -> Expr:
        """The second derivative ∂²f/∂z²."""
        return derivative(derivative(self._expression, 0), 0)

    @property
    def _likelihoods(self) -> list[tuple[float, Expr]]:
        """The labels there are, each with e^{−f} as an expression of z."""
        return [(y, scalar.exp(-_given(self._expression, y))) for y in self.values or ()]

    def labels(self, z: Node) -> Node:
        """Returns the input node of the targets (N, K)."""
        return ops.input_("y", z.shape)

    def losses(self, z: Node, y: Node) -> Node:
        """Returns the N losses."""
        return ops.reduce_sum(ops.map_(self._expression, z, y), (1,))

    def drawn(self, z: Node) -> tuple[Node, Node]:
        """Returns labels (N, K), by the inverse CDF over `values` or by `draw`, and the noise."""
        noise = ops.input_("noise", z.shape)
        if self.draw is not None:
            return ops.map_(_traced("draw", self.draw), z, noise), noise
        labels, likelihoods = zip(*self._likelihoods, strict=True)
        chosen = scalar.const(labels[-1])
        below = accumulate(likelihoods, scalar.add)
        for y, p in reversed([*zip(labels[:-1], below, strict=False)]):
            chosen = scalar.where(p - var(1), y, chosen)
        return ops.map_(chosen, z, noise), noise

    def square_root(self, z: Node, y: Node, units: Node) -> Node:
        """Returns √b_k e_k, where b is the diagonal of B, its positive part, or that of E[B]."""
        bend = self._bend
        if self.root == "fisher":
            slope = derivative(self._expression, 0)
            slopes = ((_given(slope, y), p) for y, p in self._likelihoods)
            bend = scalar.add(*(p * s * s for s, p in slopes))
        expr = scalar.sqrt(scalar.where(bend, bend, 0.0)) * var(2)
        return ops.map_(expr, *(ops.broadcast(x, units.shape, (0,)) for x in (z, y)), units)


def _traced(what: str, function: Function) -> Expr:
    """Returns the expression that a user's function gives for its two operands."""
    if not callable(function):
        raise NewtritonError(f"{what} is {quoted(function)}: give one of z and y")
    try:
        found = function(var(0), var(1))
    except Exception as error:  # of a user's own function
        raise NewtritonError(
            f"{what} raised {type(error).__name__}: {error}; give a function of two expressions, "
            "written in newtriton.scalar"
        ) from error
    if not isinstance(found, Expr):
        raise NewtritonError(f"{what} gave {quoted(found)}: give an expression of its arguments")
    return found


def _given(expr: Expr, y: float) -> Expr:
    """Returns the expression with a number for the label."""
    return scalar.substitute(expr, {1: scalar.const(y)})


def _at(expr: Expr, *operands: float) -> float:
    """Returns the value of an expression at numbers, NaN where it has none."""
    try:
        numbers = {i: scalar.const(x) for i, x in enumerate(operands)}
        return scalar.evaluate(scalar.substitute(expr, numbers), 1)
    except (ArithmeticError, ValueError):
        return math.nan

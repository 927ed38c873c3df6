"""Random numbers: an ATen name → elements that drop out."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph import ops
from ..graph.errors import NewtritonError
from ..graph.ir import N, Node, Shape, batch_axis
from .calls import name_of
from .site import Rule, Site, Value, reshaped


def dropped(site: Site, x: Node, p: float) -> Node:
    """Returns x with a share p of its elements 0; the samples have an axis of their own."""
    if not p:
        return x
    axis = batch_axis(x.shape)
    apart = (
        x.shape
        if axis is None
        else (
            *x.shape[:axis],
            N,
            *([times] if (times := x.shape[axis].times) > 1 else []),
            *x.shape[axis + 1 :],
        )
    )
    return reshaped(site.scope.dropout(reshaped(x, apart), float(p)), x.shape)


def _dropout(site: Site, x: Value, p: float, training: bool = True) -> Node:
    return dropped(site, site.node(x), p) if training else site.node(x)


def _bernoulli(site: Site, _: Value, p: float = 0.5, *rest: object) -> Node:
    """Ones with a probability, zeros otherwise: ones that drop out, without what is made up for."""
    ones = ops.broadcast(ops.const(1.0), site.shape)
    return ops.scale(dropped(site, ones, 1.0 - float(p)), float(p))


UNCOMPARED = (
    "random numbers are compared once with a number, or rounded down once to 0 and 1; others are "
    "drawn by torch.nn.Dropout"
)


@dataclass(frozen=True)
class Uniform:
    """Random numbers between a bound and it plus 1, which are truth values once compared.

    Attributes:
        shape: their shape.
        low: the bound.
    """

    shape: Shape
    low: float = 0.0

    def __float__(self) -> float:
        raise NewtritonError(UNCOMPARED)


def _number(site: Site, value: Value) -> float:
    """Returns the number that random numbers meet in a call, the only one that reads them."""
    (drawn, *others) = site.call.all_input_nodes
    readers = [c for c in drawn.users if not name_of(c).startswith("_assert")]
    if others or len(readers) != 1 or not isinstance(value, (int, float)):
        raise NewtritonError(UNCOMPARED)
    return float(value)


def _rounded_down(site: Site, x: Value) -> Node:
    """Random numbers become 1 with the probability of their bound, as in stochastic depth."""
    if not isinstance(x, Uniform) or not 0.0 <= x.low <= 1.0:
        raise NewtritonError("rounding has no derivative that is not 0: leave it out")
    return _bernoulli(site, x, _number(site, x.low))


def shifted(site: Site, x: Uniform, number: Value) -> Uniform:
    """Returns random numbers plus a number."""
    return Uniform(x.shape, x.low + _number(site, number))


def below(site: Site, x: Uniform, number: Value) -> Node:
    """Returns 1 where random numbers are less than a number, and 0 elsewhere."""
    return _bernoulli(site, x, min(max(_number(site, number) - x.low, 0.0), 1.0))


DROPOUT: dict[str, Rule] = {
    "dropout": _dropout,
    "native_dropout": lambda site, *given: [_dropout(site, *given), None],
    "bernoulli": _bernoulli,
    "rand": lambda site, *_: Uniform(site.shape),
    "floor": _rounded_down,
}

"""Random numbers: an ATen name → elements that drop out."""

from __future__ import annotations

from ..graph import ops
from ..graph.ir import N, Node, batch_axis
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


DROPOUT: dict[str, Rule] = {
    "dropout": _dropout,
    "native_dropout": lambda site, *given: [_dropout(site, *given), None],
    "bernoulli": _bernoulli,
}

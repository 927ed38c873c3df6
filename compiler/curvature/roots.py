"""Copies of the outputs' adjoints whose second moments are B: a backward pass takes them at once.

A root of B has a column for each class. Positions of one sample may meet in the network, so that a
copy holds a column of one position, and zeros at all others.
"""

from __future__ import annotations

from ..graph import ops
from ..graph.ir import N, Node, Op, per_sample
from ..language.loss import unit_vectors
from ..language.network import Traced
from ..language.normaliser import over


def root_copies(traced: Traced) -> int:
    """Returns how many copies there are: the columns of a root of B, at each position of a sample.

    A root with another number of columns than outputs is one of a user's own; see `square_root`.
    """
    return per_sample(traced.z.shape[:1]) * _root(traced).shape[0]


def root_columns(traced: Traced) -> Node:
    """Returns the columns of a root of B/M as adjoints of z: a copy for each, on a leading axis."""
    root = over(_root(traced), traced.normaliser)
    positions = per_sample(traced.z.shape[:1])
    if positions == 1:
        return root
    count, rows, outputs = root.shape
    apart = ops.reshape(root, (count, N, positions, outputs))
    full = (positions, count, N, positions, outputs)
    own = ops.broadcast(_identity(positions), full, (1, 2, 4))
    placed = ops.multiply(ops.broadcast(apart, full, (0,)), own)
    return ops.reshape(placed, (positions * count, rows, outputs))


def _root(traced: Traced) -> Node:
    """Returns the loss's root of B."""
    return traced.criterion.square_root(traced.z, traced.y, unit_vectors(traced.z))


def _identity(size: int) -> Node:
    """Returns the identity matrix: F ones, each before F zeros, read as rows of F."""
    ones = ops.broadcast(ops.const(1.0), (size, 1))
    padded = ops.make(Op.PAD, ones, axis=1, low=0, high=size)
    flat = ops.reshape(padded, (size * (size + 1),))
    return ops.reshape(ops.make(Op.SLICE, flat, axis=0, start=0, stop=size * size), (size,) * 2)

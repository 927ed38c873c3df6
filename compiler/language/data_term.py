"""The data term of h: from a network's output to the rows that a loss sees, and to the mean loss.

A loss sees a matrix. One on classes sees a row of K outputs for each position of each sample,
(N·T)×K; one that is a sum over outputs sees a row a sample, N×(all the rest). So h is

    h = Σ ℓ / M,    M = Σ counts

over the rows, counts being 1 unless labels decide.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..graph import ops, scalar
from ..graph.errors import NewtritonError, ShapeError, quoted
from ..graph.ir import Dim, N, Node, per_sample, show, topological
from ..graph.simplify import simplify
from .loss import Loss
from .normaliser import over


@dataclass(frozen=True)
class DataTerm:
    """The data term of h, and the values on the way to it.

    Attributes:
        output: the network's output as users see it, images in PyTorch's order.
        class_axis: the axis of the output along which its classes lie; None where it has none.
        rows: the output as rows of classes, (N·T)×K.
        z: what the loss sees: the rows, or N×(all the rest).
        y: the labels, as the loss takes them.
        losses: the losses of the N samples.
        counted: what the samples count, a number of the batch size or a node.
        normaliser: M, the same; where the batch is a part of a whole one, that of the whole.
        loss: h without weight decay.
    """

    output: Node
    class_axis: int | None
    rows: Node
    z: Node
    y: Node
    losses: Node
    counted: Node
    normaliser: Node
    loss: Node


def data_term(criterion: Loss, value: Node, image: bool, part: bool = False) -> DataTerm:
    """Returns the data term of a network.

    Args:
        criterion: the loss.
        value: the network's output in the graph.
        image: whether its channels lie last in the graph, and second for users.
        part: whether a batch is a part of a larger one: M is then a leaf of the graph, and h of
            the larger batch is the sum of its parts'.

    Raises:
        ShapeError: the samples are not on the first axis, or the loss gives other values than one a
            row.
    """
    if value.shape[:1] != (N,):
        raise ShapeError(f"the network ends in {show(value.shape)}: give a value for each sample")
    last = ops.rank(value) - 1
    output = ops.transpose(value, (0, last, *range(1, last))) if image else value
    class_axis = (1 if image else last) or None
    rows = _rows(output, class_axis)
    z = _seen(criterion, output, rows)
    criterion.check()
    y = criterion.labels(z)
    losses, counts = _per_sample(criterion, z, y), criterion.counts(z, y)
    _check_depends(criterion, z, y)
    if counts is None:
        counted = ops.const(scalar.BATCH * float(per_sample(z.shape[:1])))
    else:
        counted = ops.reduce_sum(_one_a_row(criterion, "counts", counts, z))
    normaliser = ops.input_("normaliser", ()) if part else counted
    loss = over(ops.reduce_sum(losses), normaliser)
    return DataTerm(output, class_axis, rows, z, y, losses, counted, normaliser, loss)


def _check_depends(criterion: Loss, z: Node, y: Node) -> None:
    """Raises an error where the losses are the same for all outputs."""
    given = ops.input_("given outputs", z.shape)
    if given not in topological(simplify({"losses": criterion.losses(given, y)}).values()):
        raise NewtritonError(
            f"{quoted(criterion)} does not depend on the network's outputs: nothing can be trained"
        )


def losses_of(criterion: Loss, term: DataTerm, output: Node) -> Node:
    """Returns the losses of the N samples for another output, with the same labels."""
    z = _seen(criterion, output, _rows(output, term.class_axis))
    return _per_sample(criterion, z, term.y)


def _seen(criterion: Loss, output: Node, rows: Node) -> Node:
    """Returns what the loss sees of an output."""
    return _matrix(output, N) if criterion.separable else rows


def _per_sample(criterion: Loss, z: Node, y: Node) -> Node:
    """Returns the losses of the N samples: sums over the positions of each."""
    losses = _one_a_row(criterion, "losses", criterion.losses(z, y), z)
    positions = per_sample(z.shape[:1])
    if positions == 1:
        return losses
    return ops.reduce_sum(ops.reshape(losses, (N, positions)), (1,))


def _one_a_row(criterion: Loss, what: str, values: Node, z: Node) -> Node:
    """Returns values of a loss, or raises an error where there is not one for each row."""
    if values.shape != z.shape[:1]:
        raise ShapeError(
            f"{quoted(criterion)} gave {what} of shape {show(values.shape)}: "
            "give one number a sample"
        )
    return values


def _rows(output: Node, class_axis: int | None) -> Node:
    """Returns a row of the classes' outputs for each position of each sample."""
    if class_axis is None:
        return _matrix(output, N)
    order = [axis for axis in range(ops.rank(output)) if axis != class_axis]
    moved = ops.transpose(output, (*order, class_axis)) if class_axis != len(order) else output
    return _matrix(moved, N * per_sample(moved.shape[:-1]))


def _matrix(x: Node, rows: Dim) -> Node:
    """Returns x as a matrix of so many rows."""
    shape = (rows, per_sample(x.shape) // rows.times)
    return x if x.shape == shape else ops.reshape(x, shape)

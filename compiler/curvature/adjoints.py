"""Adjoints of which second moments stand for curvature: of drawn labels, and of roots of B."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..derivatives.copies import copies
from ..derivatives.transpose import vjp
from ..graph import ops
from ..graph.errors import NewtritonError
from ..graph.ir import N, Node
from ..graph.program import Input
from ..language.loss import drawn_adjoints, root_columns
from ..language.network import Traced
from ..language.normaliser import of_samples
from .layouts import outer_positions
from .vectors import by_sample, diagonal_matrix

MAX_COPIES = 4096  # of the backward pass, for the columns of a root of B


@dataclass(frozen=True, eq=False)
class Noise(Input):
    """The random numbers from which labels are drawn: (draws per input)×N, or ×N×K."""

    kind = "noise"


def random_numbers(traced: Traced, kind: str, count: int) -> dict[Input, Node]:
    """Returns the leaf of the random numbers that a kind of factors takes, if it takes any.

    Args:
        traced: the network.
        kind: the kind of factors.
        count: how many labels are drawn per input.
    """
    if kind != "kfac":
        return {}
    _, noise = traced.criterion.drawn(traced.z)
    return {Noise(): ops.input_(str(Noise()), (count, *noise.shape))}


def _zero(node: Node) -> Node:
    """Returns zeros in the shape of a node."""
    return ops.broadcast(ops.const(0.0), node.shape)


def given_adjoints(
    traced: Traced, adjoints: Mapping[Node, Node], nodes: Iterable[Node]
) -> dict[Node, Node]:
    """Returns adjoints of nodes for the labels that are given, divided by √d, d the dispersion."""
    scale = traced.normaliser, traced.criterion.dispersion**-0.5
    return {n: of_samples(adjoints[n], *scale) if n in adjoints else _zero(n) for n in nodes}


def sampled_adjoints(traced: Traced, nodes: Iterable[Node], count: int) -> dict[Node, Node]:
    """Returns adjoints of nodes for labels that are drawn from the model, see `drawn_adjoints`.

    Args:
        traced: the network.
        nodes: the nodes whose adjoints are wanted.
        count: how many labels are drawn per input, on a leading axis of the adjoints.
    """
    z_bar, noise = drawn_adjoints(traced.criterion, traced.z, traced.y, traced.normaliser)
    drawn = random_numbers(traced, "kfac", count)[Noise()]
    return _pulled(traced, z_bar, nodes, {noise: drawn}, count)


def root_adjoints(
    traced: Traced, nodes: Iterable[Node], max_copies: int = MAX_COPIES
) -> dict[Node, Node]:
    """Returns adjoints of nodes for the columns of a root of B.

    There is a copy for each column, on a leading axis (Botev et al. 2017, eq. 23–25): for each
    output and, where the rows of outputs are positions of samples, for each of these.

    Args:
        traced: the network.
        nodes: the nodes whose adjoints are wanted.
        max_copies: how many copies there may be.

    Raises:
        NewtritonError: there would be more copies.
    """
    z = traced.z
    column = ops.input_("column", z.shape)
    root = root_columns(traced.criterion, z, traced.y, traced.normaliser)
    columns, positions = root.shape[0], z.shape[0].times
    if columns * positions > max_copies:
        size = f"{columns}" if positions == 1 else f"{columns}·{positions} = {columns * positions}"
        raise NewtritonError(
            f"kflr takes a backward pass for each output of a sample, {size} of them, and "
            f"max_copies is {max_copies}: use 'kfac', whose labels are drawn, or raise max_copies"
        )
    if positions > 1:
        root = _at_single_positions(root, outer_positions(traced)[z])
    return _pulled(traced, column, nodes, {column: root}, root.shape[0])


def _at_single_positions(root: Node, outer: int) -> Node:
    """Returns columns that are each of one position alone, T for each of copies×(N·T)×K.

    Positions of a sample meet in the network, so that their columns may not be added.
    """
    apart = by_sample(root, outer, 1)
    columns, _, positions, outputs = apart.shape
    shape = (positions, columns, N, positions, outputs)
    ones = ops.broadcast(ops.const(1.0), (positions,))
    alone = ops.broadcast(diagonal_matrix(ones), shape, (1, 2, 4))
    spread = ops.multiply(ops.broadcast(apart, shape, (0,)), alone)
    count = positions * columns
    split = ops.reshape(spread, (count, N, outer, positions // outer, outputs))
    return ops.reshape(ops.transpose(split, (0, 2, 1, 3, 4)), (count, *root.shape[1:]))


def _pulled(
    traced: Traced, z_bar: Node, nodes: Iterable[Node], given: Mapping[Node, Node], count: int
) -> dict[Node, Node]:
    """Returns the adjoints of nodes that belong to one of z, with copies of what is given."""
    pulled = vjp({traced.z: z_bar}, traced.trained.values())
    wanted = {node: pulled.get(node) for node in nodes}
    present = [adjoint for adjoint in wanted.values() if adjoint is not None]
    repeated = copies(present, given, count)
    nothing = {n: ops.broadcast(_zero(n), (count, *n.shape), (0,)) for n in wanted}
    return {n: nothing[n] if x is None else repeated[x] for n, x in wanted.items()}

"""The Gauss–Newton product from a stored Jacobian (Wang, Tan & Lin 2020, sections 3.3 and 3.4).

∂z/∂s of every sample is kept at each node s that consumes parameters, by one backward pass for K
copies, a unit vector each. A product then needs neither the layers below nor those above s:

    J v = Σ_s ∂z/∂s (V⋆a + v_b),    (Jᵀ q)_W = (∂z/∂s)ᵀq ⊛ a:

two contractions a layer where the R-operator takes four, for N·K numbers per element of s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..derivatives.copies import copies
from ..derivatives.jvp import jvp
from ..derivatives.transpose import vjp
from ..graph import ops
from ..graph.errors import NewtritonError
from ..graph.ir import N, Node, per_sample
from ..graph.program import Input, Output
from ..language.network import Traced, layer_of
from .uses import bends, consumers, reused


@dataclass(frozen=True, eq=False)
class Basis(Input):
    """The unit vector k of a sample's outputs for every sample of copy k: K×N×K.

    Of sequences, where z is (N·T)×K, there are T·K of them.
    """

    kind = "basis"


@dataclass(frozen=True, eq=False)
class Jacobian(Input, Output):
    """The Jacobian ∂z/∂s at the i-th node s that takes parameters: N×K×(elements of s).

    Attributes:
        i: the place of the node among those that take parameters.
    """

    i: int
    kind = "jacobian"


def no_jacobian(traced: Traced) -> str | None:
    """Returns why the samples have no Jacobians of their own; None where they have."""
    if traced.mixes_samples:
        return (
            "batch norm by batch statistics mixes samples, so that none has a Jacobian of its own: "
            "use product='r-operator', or linearize(x, y, training=False)"
        )
    return _shared(traced)


def _shared(traced: Traced) -> str | None:
    """Says why the product has no ∂z/∂s of every sample, where nodes or parameters are shared."""
    if sentence := reused(traced):
        return f"{sentence}: no stored Jacobian tells them apart, use product='r-operator'"
    alone = [node for node in consumers(traced) if node.shape[:1] != (N,)]
    for node in [*bends(traced), *alone]:
        return f"no sample has a {node!r} of its own to store: use product='r-operator'"
    return None


def _numel(node: Node) -> int:
    """Returns the number of elements of one sample's s."""
    return per_sample(node.shape)


def basis(traced: Traced) -> dict[Input, Node]:
    """Returns the leaf from which the Jacobian's backward pass starts."""
    outputs = per_sample(traced.z.shape)
    return {Basis(): ops.input_(str(Basis()), (outputs, *traced.z.shape))}


def jacobians(traced: Traced) -> dict[Input, Node]:
    """Returns the leaves of a stored Jacobian, one for each node that takes parameters.

    Raises:
        NewtritonError: a parameter is taken at several places, or by a node that all samples share.
    """
    if sentence := _shared(traced):
        raise NewtritonError(sentence)
    outputs = per_sample(traced.z.shape)
    return {
        Jacobian(i): ops.input_(str(Jacobian(i)), (N, outputs, _numel(node)))
        for i, node in enumerate(consumers(traced))
    }


def output_jacobian(traced: Traced) -> dict[Output, Node]:
    """Returns every `Jacobian`, from one backward pass for K copies; it reads the `Basis`.

    Raises:
        NewtritonError: samples have no Jacobians of their own, see `no_jacobian`.
    """
    if sentence := no_jacobian(traced):
        raise NewtritonError(sentence)
    outputs = per_sample(traced.z.shape)
    cotangent = ops.input_("cotangent", traced.z.shape)
    adjoints = vjp({traced.z: cotangent}, traced.trained.values())
    wanted = [adjoints[node] for node in consumers(traced)]
    stacked = copies(wanted, {cotangent: basis(traced)[Basis()]}, outputs)
    return {
        Jacobian(i): ops.transpose(
            ops.reshape(stacked[adjoint], (outputs, N, _numel(node))), (1, 0, 2)
        )
        for i, (node, adjoint) in enumerate(zip(consumers(traced), wanted, strict=True))
    }


def stored_product(
    traced: Traced,
    curve: Callable[[Node], Node | None],
    direction: Mapping[Node, Node],
    by_layer: bool,
) -> dict[Node, Node]:
    """Returns Jᵀ B J v by parameter, from the leaves of a stored Jacobian.

    Args:
        traced: the network.
        curve: a function from ż to B ż, or to None where that is zero.
        direction: v by parameter.
        by_layer: whether the matrix is blockdiag(J_lᵀ B J_l), so that no two layers are coupled.

    Raises:
        NewtritonError: a parameter is taken at several places, or by a node that all samples share.
    """
    stored = jacobians(traced)
    groups: dict[str, list[tuple[Node, list[Node], Node]]] = {}
    for i, (node, params) in enumerate(consumers(traced).items()):
        layer = layer_of(params[0]["name"]) if by_layer else ""
        groups.setdefault(layer, []).append((node, params, stored[Jacobian(i)]))
    result: dict[Node, Node] = {}
    for group in groups.values():
        parts = []
        for node, params, jacobian in group:
            s_dot = jvp([node], {p: direction[p] for p in params})[node]
            if s_dot is not None:
                row = ops.reshape(s_dot, (N, 1, _numel(node)))
                product = ops.matmul(row, jacobian, tb=True)  # a column on the right is slow
                parts.append(ops.reshape(product, traced.z.shape))
        q = curve(ops.total(parts))
        if q is None:
            continue
        row = ops.reshape(q, (N, 1, per_sample(traced.z.shape)))
        for node, params, jacobian in group:
            s_bar = ops.reshape(ops.matmul(row, jacobian), node.shape)
            adjoints = vjp({node: s_bar}, params)
            result |= {p: adjoints[p] for p in params if p in adjoints}
    return result

"""The Gauss–Newton product from a stored Jacobian (Wang, Tan & Lin 2020, sections 3.3 and 3.4).

∂z/∂s of every sample is kept at each node s that consumes parameters, by one backward pass for K
copies, a unit vector each. A product then needs neither the layers below nor those above s:

    J v = Σ_s ∂z/∂s (V⋆a + v_b),    (Jᵀ q)_W = (∂z/∂s)ᵀq ⊛ a:

two contractions a layer where the R-operator takes four, for N·K numbers per element of s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ..derivatives.copies import copies
from ..derivatives.jvp import jvp
from ..derivatives.transpose import vjp
from ..graph import ops
from ..graph.errors import NewtritonError
from ..graph.ir import N, Node
from ..language.network import Traced
from .factors import consumers


def mixes_samples(traced: Traced) -> bool:
    """Whether a sample's outputs depend on other samples, so that it has no Jacobian of its own."""
    return traced.training and bool(traced.running)


def _numel(node: Node) -> int:
    """Elements of one sample's s."""
    return math.prod(node.shape[1:])


def output_jacobian(traced: Traced) -> dict[str, Node]:
    """`jacobian:i`, N×K×(elements of s), for the i-th consumer of parameters.

    It reads the input `basis`, K×N×K: unit vector k for every sample of copy k.
    """
    if mixes_samples(traced):
        raise NewtritonError(
            "batch norm by batch statistics mixes samples, so that none has a Jacobian of its own: "
            "use product='r-operator', or linearize(x, y, training=False)"
        )
    outputs = traced.z.shape[1]
    cotangent = ops.input_("cotangent", traced.z.shape)
    adjoints = vjp({traced.z: cotangent}, traced.nodes.values())
    wanted = [adjoints[node] for node in consumers(traced)]
    basis = ops.input_("basis", (outputs, *traced.z.shape))
    stacked = copies(wanted, {cotangent: basis}, outputs)
    return {
        f"jacobian:{i}": ops.transpose(
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
    """Jᵀ B J v by parameter, from the inputs `jacobian:i`; only blocks of layers if `by_layer`.

    Args:
        traced: the network.
        curve: ż to B ż.
        direction: v by parameter.
        by_layer: C is blockdiag(J_lᵀ B J_l).
    """
    groups: dict[str, list[tuple[Node, list[Node], Node]]] = {}
    for i, (node, params) in enumerate(consumers(traced).items()):
        jacobian = ops.input_(f"jacobian:{i}", (N, traced.z.shape[1], _numel(node)))
        layer = params[0]["name"].rpartition(".")[0] if by_layer else ""
        groups.setdefault(layer, []).append((node, params, jacobian))
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
        row = ops.reshape(q, (N, 1, traced.z.shape[1]))
        for node, params, jacobian in group:
            s_bar = ops.reshape(ops.matmul(row, jacobian), node.shape)
            adjoints = vjp({node: s_bar}, params)
            result |= {p: adjoints[p] for p in params if p in adjoints}
    return result

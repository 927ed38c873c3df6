"""Programs over flat vectors: inner products, combinations, an iteration of conjugate gradients.

The length of a vector is the symbol N: one program, and one kernel, serves vectors of any length.
Damping, radius and coefficients are inputs, so that a recording holds for all their values; what an
iteration decides (the length of its step, the boundary) it decides where the vectors are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

from .graph import ops, scalar
from .graph.ir import Graph, N, Node, Op
from .graph.scalar import var
from .graph.simplify import simplify

VECTOR = (N,)


def _vectors(*names: str) -> list[Node]:
    return [ops.input_(name, VECTOR) for name in names]


def _elements(name: str, count: int) -> list[Node]:
    """The numbers of a short input vector, one scalar each."""
    given = ops.input_(name, (count,))
    return [
        ops.reshape(ops.make(Op.SLICE, given, axis=0, start=i, stop=i + 1), ())
        for i in range(count)
    ]


def _together(numbers: Sequence[Node]) -> Node:
    """The numbers in one vector, for one transfer."""
    return ops.make(Op.CONCAT, *[ops.reshape(x, (1,)) for x in numbers], axis=0)


def _axpy(a: Node, x: Node, y: Node, sign: float = 1.0) -> Node:
    """The vector y ± a·x."""
    return ops.map_(var(0) + sign * var(1) * var(2), y, ops.broadcast(a, VECTOR), x)


def inner_products(count: int) -> Graph:
    """Returns the program of `products`, ⟨vᵢ, vⱼ⟩ for i ≤ j, row by row."""
    pairs = combinations_with_replacement(_vectors(*(f"v{i}" for i in range(count))), 2)
    products = _together([ops.dot(u, v) for u, v in pairs])
    return Graph(f"inner_products({count})", simplify({"products": products}))


def combination(count: int) -> Graph:
    """Returns the program of `sum`, Σ cᵢ vᵢ for `coefficients` c."""
    numbers = [ops.broadcast(c, VECTOR) for c in _elements("coefficients", count)]
    vectors = _vectors(*(f"v{i}" for i in range(count)))
    terms = [ops.multiply(c, v) for c, v in zip(numbers, vectors, strict=True)]
    return Graph(f"combination({count})", simplify({"sum": ops.total(terms)}))


# --- conjugate gradients on (A + γI) x = b --------------------------------------------------------


def iteration(ball: bool, preconditioned: bool) -> Graph:
    """Returns the program that leads from `x`, `r`, `p`, `rz` and `q` to the next `x` and `r`.

    `rz` is ⟨r, z⟩, `q` is A p, and `given` holds γ and Δ. Without a preconditioner the program
    gives the next `p` and `rz` as well; with one, `turn` does. Its `numbers` decide on an end:
    ⟨r, z⟩ before, the curvature ⟨p, (A + γI) p⟩, whether the step ended at the boundary, and
    ⟨r, r⟩ after.

    Args:
        ball: whether x stays in ‖x‖ ≤ Δ (Steihaug 1983): a step that would leave, and one without
            positive curvature, ends at the boundary. Without a ball the latter is no step.
        preconditioned: whether z is another vector than r.
    """
    x, r, p, q = _vectors("x", "r", "p", "q")
    rz, (damping, radius) = ops.input_("rz", ()), _elements("given", 2)
    q = _axpy(damping, p, q)
    curvature = ops.dot(p, q)
    alpha = ops.map_(var(0) / var(1), rz, curvature)
    if ball:
        reach = _to_boundary(ops.dot(p, p), ops.dot(x, p), ops.dot(x, x), radius)
        room = ops.map_(scalar.where(var(0), var(1) - var(2), -1.0), curvature, reach, alpha)
        step = ops.map_(scalar.where(var(0), var(1), var(2)), room, alpha, reach)
        reached = ops.map_(scalar.where(var(0), 0.0, 1.0), room)
    else:
        step = ops.map_(scalar.where(var(0), var(1), 0.0), curvature, alpha)
        reached = ops.const(0.0)
    x, r = _axpy(step, p, x), _axpy(step, q, r, -1.0)
    rr = ops.dot(r, r)
    outputs = {"x": x, "r": r, "numbers": _together([rz, curvature, reached, rr])}
    if not preconditioned:
        outputs |= _turned(r, rr, p, rz)
    return Graph("cg in a ball" if ball else "cg", simplify(outputs))


def turn() -> Graph:
    """Returns the program that leads from `p`, `rz` and the next `r`, `z` to the next `p`, `rz`."""
    r, z, p = _vectors("r", "z", "p")
    return Graph("cg turn", simplify(_turned(z, ops.dot(r, z), p, ops.input_("rz", ()))))


def _turned(z: Node, new: Node, p: Node, rz: Node) -> dict[str, Node]:
    """The next direction z + β p and the next ⟨r, z⟩, which is `new`; β is their ratio."""
    beta = ops.map_(var(0) / var(1), new, rz)
    return {"p": _axpy(beta, p, z), "rz": new}


def _to_boundary(pp: Node, xp: Node, xx: Node, radius: Node) -> Node:
    """The τ ≥ 0 with ‖x + τp‖ = Δ, without the cancellation of the textbook formula."""
    left = var(1) * var(1) - var(0)
    room = ops.map_(scalar.where(left, left, 0.0), xx, radius)
    root = ops.map_(scalar.sqrt(var(0) * var(0) + var(1) * var(2)), xp, pp, room)
    reach = scalar.where(var(0), var(1) / (var(0) + var(2)), (var(2) - var(0)) / var(3))
    return ops.map_(reach, xp, room, root, pp)

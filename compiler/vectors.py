"""Programs over flat vectors: inner products, combinations, an iteration of conjugate gradients.

The length of a vector is the symbol N: one program, and one kernel, serves vectors of any length.
Damping, radius and coefficients are inputs, so that a recording holds for all their values; what an
iteration decides (the length of its step, the boundary) it decides where the vectors are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

from .graph import ops, scalar
from .graph.ir import N, Node, Op, Shape
from .graph.program import Input, Output, Program, declared, simplified
from .graph.scalar import var

VECTOR = (N,)


@dataclass(frozen=True, eq=False)
class Vector(Input):
    """The i-th of several vectors."""

    i: int
    kind = "v"

    def __str__(self) -> str:
        return f"v{self.i}"


@dataclass(frozen=True, eq=False)
class Coefficients(Input):
    """One number for each vector."""

    kind = "coefficients"


@dataclass(frozen=True, eq=False)
class Products(Output):
    """The inner products ⟨vᵢ, vⱼ⟩ with i ≤ j, row by row."""

    kind = "products"


@dataclass(frozen=True, eq=False)
class Sum(Output):
    """The vector Σ cᵢ vᵢ."""

    kind = "sum"


@dataclass(frozen=True, eq=False)
class Solution(Input, Output):
    """The iterate's x."""

    kind = "x"


@dataclass(frozen=True, eq=False)
class Residual(Input, Output):
    """The iterate's r = b − (A + γI) x."""

    kind = "r"


@dataclass(frozen=True, eq=False)
class SearchDirection(Input, Output):
    """The direction p of the iterate's next step."""

    kind = "p"


@dataclass(frozen=True, eq=False)
class ResidualProduct(Input, Output):
    """The number ⟨r, z⟩."""

    kind = "rz"


@dataclass(frozen=True, eq=False)
class OperatorProduct(Input):
    """The vector q = A p."""

    kind = "q"


@dataclass(frozen=True, eq=False)
class Preconditioned(Input):
    """The vector z = M⁻¹ r of a preconditioner M."""

    kind = "z"


@dataclass(frozen=True, eq=False)
class DampingAndRadius(Input):
    """The numbers γ and Δ of a system."""

    kind = "given"


@dataclass(frozen=True, eq=False)
class Outcome(Output):
    """The numbers that decide on an end.

    These are ⟨r, z⟩ before the iteration, the curvature ⟨p, (A + γI) p⟩, whether the step ended at
    the boundary, and ⟨r, r⟩ after it.
    """

    kind = "numbers"


class _Leaves:
    """The inputs of a program in the making."""

    def __init__(self) -> None:
        self.nodes: dict[Input, Node] = {}

    def vector(self, key: Input) -> Node:
        """Returns a vector of N numbers."""
        return self._leaf(key, VECTOR)

    def number(self, key: Input) -> Node:
        """Returns a scalar."""
        return self._leaf(key, ())

    def numbers(self, key: Input, count: int) -> list[Node]:
        """Returns the numbers of a short vector, one scalar each."""
        given = self._leaf(key, (count,))
        parts = [ops.make(Op.SLICE, given, axis=0, start=i, stop=i + 1) for i in range(count)]
        return [ops.reshape(part, ()) for part in parts]

    def _leaf(self, key: Input, shape: Shape) -> Node:
        return self.nodes.setdefault(key, ops.input_(str(key), shape))

    def program(self, name: str, outputs: Mapping[Output, Node]) -> Program:
        """Returns the program of `outputs`."""
        return declared(name, simplified(outputs), self.nodes, frozenset())


def _together(numbers: Sequence[Node]) -> Node:
    """The numbers in one vector, for one transfer."""
    return ops.make(Op.CONCAT, *[ops.reshape(x, (1,)) for x in numbers], axis=0)


def _axpy(a: Node, x: Node, y: Node, sign: float = 1.0) -> Node:
    """The vector y ± a·x."""
    return ops.map_(var(0) + sign * var(1) * var(2), y, ops.broadcast(a, VECTOR), x)


def inner_products(count: int) -> Program:
    """Returns the program of the `Products` of so many vectors."""
    leaves = _Leaves()
    pairs = combinations_with_replacement([leaves.vector(Vector(i)) for i in range(count)], 2)
    products = _together([ops.dot(u, v) for u, v in pairs])
    return leaves.program(f"inner_products({count})", {Products(): products})


def combination(count: int) -> Program:
    """Returns the program of the `Sum` of so many vectors by their `Coefficients`."""
    leaves = _Leaves()
    numbers = [ops.broadcast(c, VECTOR) for c in leaves.numbers(Coefficients(), count)]
    vectors = [leaves.vector(Vector(i)) for i in range(count)]
    terms = [ops.multiply(c, v) for c, v in zip(numbers, vectors, strict=True)]
    return leaves.program(f"combination({count})", {Sum(): ops.total(terms)})


# --- conjugate gradients on (A + γI) x = b --------------------------------------------------------


def iteration(ball: bool, preconditioned: bool) -> Program:
    """Returns the program that leads from an iterate to the next `Solution` and `Residual`.

    It gives the `Outcome` besides. Without a preconditioner the program gives the next
    `SearchDirection` and `ResidualProduct` as well; with one, `turn` does.

    Args:
        ball: whether x stays in ‖x‖ ≤ Δ (Steihaug 1983): a step that would leave, and one without
            positive curvature, ends at the boundary. Without a ball the latter is no step.
        preconditioned: whether z is another vector than r.
    """
    leaves = _Leaves()
    x, r = leaves.vector(Solution()), leaves.vector(Residual())
    p, q = leaves.vector(SearchDirection()), leaves.vector(OperatorProduct())
    rz = leaves.number(ResidualProduct())
    damping, radius = leaves.numbers(DampingAndRadius(), 2)
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
    numbers = _together([rz, curvature, reached, rr])
    outputs: dict[Output, Node] = {Solution(): x, Residual(): r, Outcome(): numbers}
    if not preconditioned:
        outputs |= _turned(r, rr, p, rz)
    return leaves.program("cg in a ball" if ball else "cg", outputs)


def turn() -> Program:
    """Returns the program of the next `SearchDirection` and `ResidualProduct`.

    It leads there from the last ones, the next `Residual` and its `Preconditioned` vector.
    """
    leaves = _Leaves()
    r, z = leaves.vector(Residual()), leaves.vector(Preconditioned())
    p, rz = leaves.vector(SearchDirection()), leaves.number(ResidualProduct())
    return leaves.program("cg turn", _turned(z, ops.dot(r, z), p, rz))


def _turned(z: Node, new: Node, p: Node, rz: Node) -> dict[Output, Node]:
    """The next direction z + β p and the next ⟨r, z⟩, which is `new`; β is their ratio."""
    beta = ops.map_(var(0) / var(1), new, rz)
    return {SearchDirection(): _axpy(beta, p, z), ResidualProduct(): new}


def _to_boundary(pp: Node, xp: Node, xx: Node, radius: Node) -> Node:
    """The τ ≥ 0 with ‖x + τp‖ = Δ, without the cancellation of the textbook formula."""
    left = var(1) * var(1) - var(0)
    room = ops.map_(scalar.where(left, left, 0.0), xx, radius)
    root = ops.map_(scalar.sqrt(var(0) * var(0) + var(1) * var(2)), xp, pp, room)
    reach = scalar.where(var(0), var(1) / (var(0) + var(2)), (var(2) - var(0)) / var(3))
    return ops.map_(reach, xp, room, root, pp)

"""Arithmetic on flat vectors: what step rules and conjugate gradients do beside their products.

`Vectors` runs on PyTorch's operators and is the oracle of `CompiledVectors`, which runs the
programs of `compiler.vectors` as fused kernels: a CG iteration in three passes and one transfer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...compiler import vectors as programs
from ...compiler.graph.ir import Graph, Node, Op
from .pointwise import Run

Matrix = NDArray[np.float64]
Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class System:
    """(A + damping·I) x = b in the ball ‖x‖ ≤ radius.

    precondition: M⁻¹, symmetric and positive definite.
    """

    b: Tensor
    damping: float = 0.0
    radius: float = math.inf
    precondition: Operator | None = None

    @property
    def in_ball(self) -> bool:
        """Whether there is a boundary."""
        return math.isfinite(self.radius)

    @cached_property
    def given(self) -> Tensor:
        """Damping and radius, where b is."""
        return torch.tensor([self.damping, self.radius], dtype=self.b.dtype, device=self.b.device)

    def preconditioned(self, r: Tensor) -> Tensor:
        """Z = M⁻¹ r."""
        return r if self.precondition is None else self.precondition(r)


@dataclass
class Iterate:
    """Of conjugate gradients: x, its residual r, the direction p, and ⟨r, z⟩."""

    x: Tensor
    r: Tensor
    p: Tensor
    rz: float | Tensor


class Numbers(NamedTuple):
    """Of an iteration: ⟨r, z⟩ before it, the curvature along p, whether its step ended at the
    boundary, ⟨r, r⟩ after it.
    """  # noqa: D205

    rz: float
    curvature: float
    reached: float
    rr: float


def inner(u: Tensor, v: Tensor) -> float:
    """⟨u, v⟩ in float64."""
    return float(torch.dot(u.double(), v.double()))


def _dot(u: Tensor, v: Tensor) -> float:
    return float(torch.dot(u, v))


class Vectors:
    """On PyTorch's operators."""

    def gram(self, vectors: Sequence[Tensor]) -> Matrix:
        """All inner products ⟨vᵢ, vⱼ⟩."""
        count = len(vectors)
        result = np.empty((count, count))
        for i, u in enumerate(vectors):
            for j in range(i, count):
                result[i, j] = result[j, i] = inner(u, vectors[j])
        return result

    def combination(self, coefficients: Matrix, vectors: Sequence[Tensor]) -> Tensor:
        """Σ cᵢ vᵢ."""
        result = torch.zeros_like(vectors[0])
        for factor, vector in zip(coefficients, vectors, strict=True):
            result.add_(vector, alpha=float(factor))
        return result

    def first(self, system: System) -> Iterate:
        """X = 0."""
        r = system.b.clone()
        z = system.preconditioned(r)
        return Iterate(torch.zeros_like(r), r, z.clone(), _dot(r, z))

    def iterate(self, system: System, at: Iterate, q: Tensor) -> tuple[Iterate, Numbers]:
        """The next iterate, for q = A p, which is used up as `at` is; see `compiler.vectors`.

        With a preconditioner its direction is that of the last one until `turn` is called.
        """
        x, r, p, rz = at.x, at.r, at.p, float(at.rz)
        if system.damping:
            q.add_(p, alpha=system.damping)
        curvature = _dot(p, q)
        step = rz / curvature if curvature > 0.0 else 0.0
        reached = False
        if system.in_ball:
            reach = _to_boundary(x, p, system.radius)
            reached = not curvature > 0.0 or step >= reach
            step = reach if reached else step
        x.add_(p, alpha=step)
        r.sub_(q, alpha=step)
        rr = _dot(r, r)
        if system.precondition is None:
            at = replace(at, rz=rr)
            p.mul_(rr / rz if rz else math.nan).add_(r)
        return at, Numbers(rz, curvature, reached, rr)

    def turn(self, system: System, at: Iterate) -> Iterate:
        """The direction of an iterate where there is a preconditioner."""
        if system.precondition is None:
            return at
        z = system.precondition(at.r)
        rz = _dot(at.r, z)
        at.p.mul_(rz / at.rz).add_(z)
        return replace(at, rz=rz)


def _to_boundary(x: Tensor, p: Tensor, radius: float) -> float:
    """τ ≥ 0 with ‖x + τp‖ = radius; without the cancellation of the textbook formula."""
    pp, xp, room = _dot(p, p), _dot(x, p), max(0.0, radius**2 - _dot(x, x))
    root = math.sqrt(xp * xp + pp * room)
    return room / (xp + root) if xp > 0 else (root - xp) / pp


_inner_products, _combination = cache(programs.inner_products), cache(programs.combination)
_iteration, _turn = cache(programs.iteration), cache(programs.turn)


class CompiledVectors(Vectors):
    """As compiled programs, which keep their numbers where the vectors are.

    Args:
        make_executor: of the model's backend.
    """

    def __init__(self, make_executor: Callable[..., Callable[..., dict[Node, Tensor]]]) -> None:
        self._executor = cache(lambda graph: make_executor(graph, ()))

    def _run(
        self, graph: Graph, feed: Mapping[str, Tensor], over: Sequence[str] = ()
    ) -> dict[str, Tensor]:
        """Outputs by name; those named in `over` are written over the inputs of that name."""
        leaves = {n: feed[n["name"]] for n in graph.nodes() if n.op is Op.INPUT}
        like = next(x for n, x in leaves.items() if n.shape == programs.VECTOR)
        run = Run(len(like), like.dtype, like.device)
        out = {name: feed[name] for name in over if name in graph.outputs}
        values = self._executor(graph)(run, leaves, out)
        return {name: values[node] for name, node in graph.outputs.items()} | out

    def _products(self, vectors: Sequence[Tensor]) -> Tensor:
        feed = {f"v{i}": v for i, v in enumerate(vectors)}
        return self._run(_inner_products(len(vectors)), feed)["products"]

    def gram(self, vectors: Sequence[Tensor]) -> Matrix:
        """All inner products ⟨vᵢ, vⱼ⟩."""
        result = np.empty((len(vectors), len(vectors)))
        upper = np.triu_indices(len(vectors))
        result[upper] = result.T[upper] = self._products(vectors).double().cpu().numpy()
        return result

    def combination(self, coefficients: Matrix, vectors: Sequence[Tensor]) -> Tensor:
        """Σ cᵢ vᵢ."""
        like = vectors[0]
        feed = {f"v{i}": v for i, v in enumerate(vectors)}
        feed["coefficients"] = torch.tensor(coefficients, dtype=like.dtype, device=like.device)
        return self._run(_combination(len(vectors)), feed)["sum"]

    def first(self, system: System) -> Iterate:
        """X = 0."""
        r = system.b.clone()
        z = system.preconditioned(r)
        return Iterate(torch.zeros_like(r), r, z.clone(), self._products([r, z])[1].clone())

    def iterate(self, system: System, at: Iterate, q: Tensor) -> tuple[Iterate, Numbers]:
        """The next iterate, for q = A p; it lies where `at` lay, but for ⟨r, z⟩."""
        graph = _iteration(system.in_ball, system.precondition is not None)
        feed = {**vars(at), "q": q, "given": system.given}
        found = self._run(graph, feed, over=("x", "r", "p"))
        numbers = Numbers(*found.pop("numbers").tolist())
        return replace(at, **found), numbers

    def turn(self, system: System, at: Iterate) -> Iterate:
        """The direction of an iterate where there is a preconditioner."""
        if system.precondition is None:
            return at
        z = system.precondition(at.r)
        return replace(at, **self._run(_turn(), {**vars(at), "z": z}, over=("p",)))

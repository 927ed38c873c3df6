"""Arithmetic on flat vectors as compiled programs: a CG iteration in three passes, one transfer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from ...compiler.graph.ir import Graph
from ...compiler.graph.program import Input, Output, Program
from ...compiler.vectors import (
    Coefficients,
    DampingAndRadius,
    OperatorProduct,
    Outcome,
    Preconditioned,
    Products,
    Residual,
    ResidualProduct,
    SearchDirection,
    Solution,
    Sum,
    Vector,
    combination,
    inner_products,
    iteration,
    turn,
)
from ..backend import Context, Executor
from ..reading import upload
from ..vectors import Iterate, Matrix, System, Vectors

_inner_products, _combination = cache(inner_products), cache(combination)
_iteration, _turn = cache(iteration), cache(turn)


class CompiledVectors(Vectors):
    """Arithmetic on flat vectors by compiled programs, whose numbers stay where the vectors are.

    Args:
        make_executor: makes the backend's executor of a graph.
    """

    def __init__(self, make_executor: Callable[[Graph], Executor]) -> None:
        self._executor = cache(lambda program: make_executor(program.graph))

    def _run(
        self,
        program: Program,
        like: Tensor,
        given: Mapping[Input, Tensor],
        out: Mapping[Output, Tensor] | None = None,
    ) -> dict[Output, Tensor]:
        """Returns a program's outputs.

        Args:
            program: what is computed.
            like: one of the vectors, for their length, dtype and device.
            given: the program's inputs; there may be more.
            out: memory that outputs are written to, which may be that of inputs.
        """
        context = Context(len(like), like.dtype, like.device)
        named = {program.names[key]: x for key, x in (out or {}).items()}
        return program.results(self._executor(program)(context, program.feed(given), named))

    def products(self, vectors: Sequence[Tensor]) -> Tensor:
        """Returns the inner products ⟨vᵢ, vⱼ⟩ with i ≤ j, row by row, where the vectors are."""
        program = _inner_products(len(vectors))
        return self._run(program, vectors[0], _numbered(vectors))[Products()]

    def combination(self, coefficients: Matrix, vectors: Sequence[Tensor]) -> Tensor:
        """Returns Σ cᵢ vᵢ for k coefficients and k vectors."""
        like, given = vectors[0], _numbered(vectors)
        given[Coefficients()] = upload([float(c) for c in coefficients], like)
        return self._run(_combination(len(vectors)), like, given)[Sum()]

    def first(self, system: System) -> Iterate:
        """Returns the first iterate, x = 0."""
        r = system.b.clone()
        z = system.preconditioned(r)
        return Iterate(torch.zeros_like(r), r, z.clone(), self.products([r, z])[1].clone())

    def advance(self, system: System, at: Iterate, q: Tensor) -> tuple[Iterate, Tensor]:
        """Returns the next iterate for q = A p and its `Numbers` where they are.

        It lies where `at` lay, except for ⟨r, z⟩.
        """
        alone = system.precondition is None
        program = _iteration(system.in_ball, not alone)
        given = _iterate(at)
        given[OperatorProduct()], given[DampingAndRadius()] = q, system.given
        out: dict[Output, Tensor] = {Solution(): at.x, Residual(): at.r}
        if alone:
            out[SearchDirection()] = at.p
        found = self._run(program, at.x, given, out)
        at = replace(at, rz=found[ResidualProduct()]) if alone else at
        return at, found[Outcome()]

    def turn(self, system: System, at: Iterate) -> Iterate:
        """Returns the iterate with its own direction, where there is a preconditioner."""
        if system.precondition is None:
            return at
        given = _iterate(at)
        given[Preconditioned()] = system.precondition(at.r)
        found = self._run(_turn(), at.r, given, {SearchDirection(): at.p})
        return replace(at, rz=found[ResidualProduct()])


def _numbered(vectors: Sequence[Tensor]) -> dict[Input, Tensor]:
    """Returns the vectors as inputs."""
    return {Vector(i): v for i, v in enumerate(vectors)}


def _iterate(at: Iterate) -> dict[Input, Tensor]:
    """Returns an iterate as inputs."""
    return {Solution(): at.x, Residual(): at.r, SearchDirection(): at.p, ResidualProduct(): at.rz}

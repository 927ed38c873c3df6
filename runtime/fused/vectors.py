"""Arithmetic on flat vectors as compiled programs: a CG iteration in three passes, one transfer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ...compiler import vectors as programs
from ...compiler.graph.ir import Graph, Op
from ..backend import Context, Executor
from ..vectors import Iterate, Matrix, Numbers, System, Vectors

_inner_products, _combination = cache(programs.inner_products), cache(programs.combination)
_iteration, _turn = cache(programs.iteration), cache(programs.turn)


class CompiledVectors(Vectors):
    """Arithmetic on flat vectors by compiled programs, whose numbers stay where the vectors are.

    Args:
        make_executor: Makes the backend's executor of a graph.
    """

    def __init__(self, make_executor: Callable[[Graph], Executor]) -> None:
        self._executor = cache(make_executor)

    def _run(
        self, graph: Graph, feed: Mapping[str, Tensor], over: Sequence[str] = ()
    ) -> dict[str, Tensor]:
        """Returns outputs by name; those in `over` are written over the inputs of that name."""
        leaves = {n: feed[n["name"]] for n in graph.nodes() if n.op is Op.INPUT}
        like = next(x for n, x in leaves.items() if n.shape == programs.VECTOR)
        context = Context(len(like), like.dtype, like.device)
        out = {name: feed[name] for name in over if name in graph.outputs}
        values = self._executor(graph)(context, leaves, out)
        return {name: values[node] for name, node in graph.outputs.items()} | out

    def _products(self, vectors: Sequence[Tensor]) -> Tensor:
        """Returns the inner products ⟨vᵢ, vⱼ⟩ with i ≤ j, row by row."""
        feed = {f"v{i}": v for i, v in enumerate(vectors)}
        return self._run(_inner_products(len(vectors)), feed)["products"]

    def gram(self, vectors: Sequence[Tensor]) -> Matrix:
        """Returns the matrix k×k of the inner products ⟨vᵢ, vⱼ⟩ of k vectors."""
        result = np.empty((len(vectors), len(vectors)))
        upper = np.triu_indices(len(vectors))
        result[upper] = result.T[upper] = self._products(vectors).double().cpu().numpy()
        return result

    def combination(self, coefficients: Matrix, vectors: Sequence[Tensor]) -> Tensor:
        """Returns Σ cᵢ vᵢ for k coefficients and k vectors."""
        like = vectors[0]
        feed = {f"v{i}": v for i, v in enumerate(vectors)}
        feed["coefficients"] = torch.tensor(coefficients, dtype=like.dtype, device=like.device)
        return self._run(_combination(len(vectors)), feed)["sum"]

    def first(self, system: System) -> Iterate:
        """Returns the first iterate, x = 0."""
        r = system.b.clone()
        z = system.preconditioned(r)
        return Iterate(torch.zeros_like(r), r, z.clone(), self._products([r, z])[1].clone())

    def iterate(self, system: System, at: Iterate, q: Tensor) -> tuple[Iterate, Numbers]:
        """Returns the next iterate for q = A p and what was seen.

        It lies where `at` lay, except for ⟨r, z⟩.
        """
        graph = _iteration(system.in_ball, system.precondition is not None)
        feed = {**vars(at), "q": q, "given": system.given}
        found = self._run(graph, feed, over=("x", "r", "p"))
        numbers = Numbers(*found.pop("numbers").tolist())
        return replace(at, **found), numbers

    def turn(self, system: System, at: Iterate) -> Iterate:
        """Returns the iterate with its own direction, where there is a preconditioner."""
        if system.precondition is None:
            return at
        z = system.precondition(at.r)
        return replace(at, **self._run(_turn(), {**vars(at), "z": z}, over=("p",)))

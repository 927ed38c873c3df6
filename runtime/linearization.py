"""A network linearized at one point on one batch: loss, gradient, second-order calls on a tape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..compiler.errors import NewtritonError
from ..compiler.factors import KINDS, Block
from ..compiler.ir import Graph, Node, Op
from ..compiler.network import Traced
from ..compiler.programs import CURVATURES, Programs
from .checks import check_option
from .factors import DiagonalFactors, KroneckerFactors

if TYPE_CHECKING:
    from .model import Model


class Linearization:
    """Forward and backward, once; later calls start from the tape that is kept here.

    loss: h, a scalar tensor. objective: the same as a float, summed in float64. outputs: N×K.
    gradient: flat, of h. statistics: the batch's, for `Model.update_statistics`.
    """

    def __init__(
        self, model: Model, traced: Traced, programs: Programs, x: Tensor, y: Tensor, training: bool
    ) -> None:
        labels = model.check(traced, x, y)
        self.model, self._traced, self._programs = model, traced, programs
        self._batch = len(x)
        self._versions = {
            "parameters": (model.params, model.params._version),
            "inputs": (x, x._version),
            "labels": (y, y._version),
            **({} if training else {k: (b, b._version) for k, b in model.buffers.items()}),
        }
        self._feed = model.feed(traced, x, labels)
        program = programs.linearize
        values = model.executor(program, tape=True, training=training)(
            model.run(len(x)), self._feed
        )
        named = {name: values[node] for name, node in program.outputs.items()}
        results = set(program.outputs.values()) - programs.tape
        self._feed |= {node: x for node, x in values.items() if node not in results}
        self.objective = model.total(named["losses"])
        self.loss = torch.tensor(self.objective, dtype=model.dtype, device=model.device)
        self.outputs = named["outputs"]
        self.gradient = model.collect("gradient", named, model.params)
        self.statistics = by_kind("statistics", named)

    def _run(
        self, graph: Graph, directions: Sequence[Tensor] = (), noise: Tensor | None = None
    ) -> dict[str, Tensor]:
        for name, (tensor, version) in self._versions.items():
            if tensor._version != version:
                raise NewtritonError(
                    f"the {name} have changed since this linearization was made: linearize again"
                )
        feed = dict(self._feed)
        views = [self.model.layout.views(v) for v in directions]
        for node in self._programs.leaves(graph):
            name = node["name"]
            if node.op is Op.INPUT and name == "noise" and noise is not None:
                feed[node] = noise
            elif node.op is Op.INPUT and node not in feed:
                direction, _, parameter = name[1:].partition(":")
                feed[node] = views[int(direction)][parameter]
        values = self.model.executor(graph)(self.model.run(self._batch), feed)
        return {name: values[node] for name, node in graph.outputs.items()}

    def _vector(self, v: Tensor) -> Tensor:
        v = self.model.layout.check(v, "v")
        if v.dtype != self.model.dtype:
            raise NewtritonError(
                f"v is {v.dtype}, the model computes in {self.model.dtype}: use v.to(model.dtype)"
            )
        return v

    def hvp(self, v: Tensor) -> Tensor:
        """H v, H the Hessian of h: R-forward and R-backward on the tape."""
        v = self._vector(v)
        return self.model.collect("hvp", self._run(self._programs.hvp, [v]), v)

    def ggnvp(self, v: Tensor) -> Tensor:
        """(Jᵀ B J + λI) v, the generalized Gauss-Newton matrix of h."""
        v = self._vector(v)
        return self.model.collect("ggnvp", self._run(self._programs.ggnvp, [v]), v)

    def quadratic_forms(
        self, vs: Sequence[Tensor], curvature: str = "hessian", *, two_products: bool = True
    ) -> Tensor:
        """k×k matrix of vᵢᵀ C vⱼ, C the `hessian` or `ggn` of h, without an R-backward pass.

        Args:
            vs: flat vectors.
            curvature: "hessian" or "ggn".
            two_products: two contractions a layer instead of three (see `compiler.quadratic`).
        """
        check_option("curvature", curvature, CURVATURES)
        vs = [self._vector(v) for v in ([vs] if isinstance(vs, Tensor) else vs)]
        if not vs:
            raise NewtritonError("quadratic_forms got no vectors: give at least one")
        named = self._run(self._programs.quadratic(len(vs), curvature, two_products), vs)
        result = torch.empty(len(vs), len(vs), dtype=self.model.dtype, device=self.model.device)
        for name, value in named.items():
            i, j = map(int, name.removeprefix("form:").split(","))
            decay = self.model.weight_decay and self.model.weight_decay * torch.dot(vs[i], vs[j])
            result[i, j] = result[j, i] = value + decay
        return result

    def kronecker_factors(
        self, kind: str, samples: int = 1, generator: torch.Generator | None = None
    ) -> dict[str, KroneckerFactors | DiagonalFactors]:
        """Curvature factors of the data term, by layer.

        Args:
            kind: "kfac", labels drawn from the model's own distribution; "empirical", the true
                ones.
            samples: draws per input; G is their mean.
            generator: of the random numbers; the global one unless given.
        """
        check_option("kind", kind, KINDS)
        if not isinstance(samples, int) or samples < 1:
            raise NewtritonError(f"samples is {samples!r}: give a positive integer")
        graph = self._programs.factors(kind, samples)
        noise = next((n for n in self._programs.leaves(graph) if n["name"] == "noise"), None)
        named = self._run(graph, noise=None if noise is None else self._noise(noise, generator))
        named = _apart(named)
        result: dict[str, KroneckerFactors | DiagonalFactors] = {}
        for block in self.model.blocks:
            if isinstance(block, Block):
                a, g = named[f"A:{block.layer}"], named[f"G:{block.layer}"]
                result[block.layer] = KroneckerFactors(a, g, block.kernel, block.bias is not None)
            else:
                result[block.layer] = DiagonalFactors(
                    {n: named[f"diagonal:{n}"] for n in block.names}
                )
        return result

    def _noise(self, node: Node, generator: torch.Generator | None) -> Tensor:
        """Uniform or normal random numbers in the shape of the input `node`."""
        shape = [self._batch if not isinstance(d, int) else d for d in node.shape]
        draw = torch.rand if self._traced.criterion.noise == "uniform" else torch.randn
        device = self.model.device if generator is None else generator.device
        noise = draw(shape, generator=generator, dtype=self.model.dtype, device=device)
        return noise.to(self.model.device)


def by_kind(kind: str, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs `kind:*`, without the prefix."""
    prefix = f"{kind}:"
    return {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}


def _apart(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, none of them twice: layers that share a statistic get a copy each."""
    result: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in named.items():
        result[name] = tensor.clone() if id(tensor) in seen else tensor
        seen.add(id(tensor))
    return result

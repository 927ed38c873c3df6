"""A network linearized at one point on one batch: loss, gradient, second-order calls on a tape."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...compiler.curvature.factors import KINDS, Block
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.ir import Graph, Node, Op
from ...compiler.graph.options import check_count, check_option
from ...compiler.language.network import Traced
from ...compiler.programs import MATRICES, Programs
from .factors import DiagonalFactors, Factors, KroneckerFactors, MeanFactors

if TYPE_CHECKING:
    from .model import Model

PRODUCTS = ("r-operator", "stored-jacobian")


class Linearization:
    """Forward and backward, once; later calls start from the tape that is kept here.

    loss: h, a scalar tensor. objective: the same as a float, summed in float64. outputs: N×K.
    gradient: flat, of h. statistics: the batch's, for `Model.update_statistics`. batch: its size.
    """

    def __init__(
        self, model: Model, traced: Traced, programs: Programs, x: Tensor, y: Tensor, training: bool
    ) -> None:
        labels = model.check(traced, x, y)
        self.model, self._traced, self.programs = model, traced, programs
        self.batch, self.vectors = len(x), model.vectors
        self._versions = {
            "parameters": (model.params, model.params._version),
            "inputs": (x, x._version),
            "labels": (y, y._version),
            **({} if training else {k: (b, b._version) for k, b in model.buffers.items()}),
        }
        self._feed = model.feed(traced, x, labels)
        program = programs.linearize
        self.gradient, out = model.layout.target("gradient", program.outputs, model.params)
        values = model.executor(program, tape=True, training=training)(
            model.context(len(x)), self._feed, out
        )
        named = {name: values[node] for name, node in program.outputs.items()}
        results = set(program.outputs.values()) - programs.tape
        self._feed |= {node: x for node, x in values.items() if node not in results}
        self.objective = model.total(named["losses"])
        self.loss = torch.tensor(self.objective, dtype=model.dtype, device=model.device)
        self.outputs = named["outputs"].clone()  # the tape has them too
        model.decay_(self.gradient, model.params)
        self.statistics = by_kind("statistics", named)

    def _run(
        self,
        graph: Graph,
        directions: Sequence[Tensor] = (),
        given: Mapping[str, Tensor] | None = None,
        out: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        for name, (tensor, version) in self._versions.items():
            if tensor._version != version:
                raise NewtritonError(
                    f"the {name} have changed since this linearization was made: linearize again"
                )
        feed = dict(self._feed)
        given = given or {}
        views = [self.model.layout.views(v) for v in directions]
        for node in self.programs.leaves(graph):
            name = node["name"]
            if node.op is Op.INPUT and name in given:
                feed[node] = given[name]
            elif node.op is Op.INPUT and name == "columns":
                columns = torch.arange(node.shape[0], device=self.model.device)
                feed[node] = columns[:, None].expand(len(columns), self.batch)
            elif node.op is Op.INPUT and node not in feed:
                direction, _, parameter = name[1:].partition(":")
                feed[node] = views[int(direction)][parameter]
        values = self.model.executor(graph)(self.model.context(self.batch), feed, out)
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
        return self.model.decay_(self.data_product(v), v)

    def ggnvp(self, v: Tensor, product: str = "r-operator") -> Tensor:
        """(Jᵀ B J + λI) v, the generalized Gauss-Newton matrix of h.

        Args:
            v: flat.
            product: "r-operator", a forward and a backward pass; "stored-jacobian", from ∂z/∂s of
                all samples, made on first use and kept here (Wang, Tan & Lin 2020, section 3.4).
        """
        return self.model.decay_(self.data_product(v, "ggn", product), v)

    def block_ggnvp(self, v: Tensor) -> Tensor:
        """(blockdiag(J_lᵀ B J_l) + λI) v, a block per layer, from the stored Jacobian."""
        return self.model.decay_(self.data_product(v, "ggn", "stored-jacobian", by_layer=True), v)

    def data_product(
        self,
        v: Tensor,
        curvature: str = "hessian",
        product: str = "r-operator",
        *,
        by_layer: bool = False,
    ) -> Tensor:
        """C v, C the `hessian` or `ggn` of the data term: no weight decay is added.

        Args:
            v: flat.
            curvature: "hessian" or "ggn".
            product: as in `ggnvp`; the Hessian has "r-operator" alone.
            by_layer: C's block diagonal, a block per layer; the R-operator runs once for each.
        """
        check_option("curvature", curvature, MATRICES)
        check_option("product", product, PRODUCTS if curvature == "ggn" else PRODUCTS[:1])
        v = self._vector(v)
        if product == "stored-jacobian":
            return self._product("ggnvp", self.programs.stored_ggnvp(by_layer), v, self.jacobian)
        kind = "hvp" if curvature == "hessian" else "ggnvp"
        graph = self.programs.hvp if curvature == "hessian" else self.programs.ggnvp
        return self._by_layer(kind, graph, v) if by_layer else self._product(kind, graph, v)

    def _product(
        self, kind: str, graph: Graph, v: Tensor, given: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The flat vector of a graph's outputs `kind:*` in the direction v."""
        flat, out = self.model.layout.target(kind, graph.outputs, self.model.params)
        self._run(graph, [v], given, out)
        return flat

    def _by_layer(self, kind: str, graph: Graph, v: Tensor) -> Tensor:
        """Σ_l P_l C P_l v: a product per layer, all other layers' part of v being zero."""
        result = torch.empty_like(v)
        source, target = self.model.layout.views(v), self.model.layout.views(result)
        for names in self.model.layout.layers.values():
            alone = torch.zeros_like(v)
            for name in names:
                self.model.layout.views(alone)[name].copy_(source[name])
            product = self.model.layout.views(self._product(kind, graph, alone))
            for name in names:
                target[name].copy_(product[name])
        return result

    @cached_property
    def jacobian(self) -> dict[str, Tensor]:
        """∂z/∂s, N×K×(elements of s), by consumer of parameters; K backward passes at once."""
        outputs = self._traced.z.shape[1]
        basis = torch.eye(outputs, dtype=self.model.dtype, device=self.model.device)
        basis = basis.unsqueeze(1).expand(outputs, self.batch, outputs)
        return self._run(self.programs.jacobian, given={"basis": basis})

    def quadratic_forms(
        self, vs: Sequence[Tensor], curvature: str = "hessian", *, two_products: bool | None = None
    ) -> Tensor:
        """k×k matrix of vᵢᵀ C vⱼ, C the `hessian` or `ggn` of h, without an R-backward pass.

        Args:
            vs: flat vectors.
            curvature: "hessian" or "ggn".
            two_products: two contractions a layer instead of three (see `compiler.quadratic`);
                by default the model's choice, two unless its precision is tf32 or bf16.
        """
        check_option("curvature", curvature, MATRICES)
        vs = [self._vector(v) for v in ([vs] if isinstance(vs, Tensor) else vs)]
        if not vs:
            raise NewtritonError("quadratic_forms got no vectors: give at least one")
        two = self.model.backend.two_products if two_products is None else two_products
        named = self._run(self.programs.quadratic(len(vs), curvature, two), vs)
        result = torch.empty(len(vs), len(vs), dtype=self.model.dtype, device=self.model.device)
        for name, value in named.items():
            i, j = map(int, name.removeprefix("form:").split(","))
            decay = self.model.weight_decay and self.model.weight_decay * torch.dot(vs[i], vs[j])
            result[i, j] = result[j, i] = value + decay
        return result

    def kronecker_factors(
        self,
        kind: str,
        samples: int = 1,
        generator: torch.Generator | None = None,
        means: Collection[str] = (),
    ) -> dict[str, Factors]:
        """Curvature factors of the data term, by layer.

        Args:
            kind: "kfac", labels drawn from the model's own distribution; "empirical", the true
                ones; "kflr", a root of B, one backward copy per column; "kfra", "pch-1", "pch-2".
            samples: draws per input of "kfac"; G is their mean.
            generator: of the random numbers; the global one unless given.
            means: layers of which the mean input is kept and A is not formed.
        """
        check_option("kind", kind, KINDS)
        check_count("samples", samples)
        graph = self.programs.factors(kind, samples, frozenset(means))
        leaves = {n["name"]: n for n in self.programs.leaves(graph)}
        given = {}
        if "noise" in leaves:
            given["noise"] = self._noise(leaves["noise"], generator)
        named = self._run(graph, given=given)
        named = _apart(named)
        result: dict[str, Factors] = {}
        for block in self.model.blocks:
            if isinstance(block, Block):
                g, homogeneous = named[f"G:{block.layer}"], block.bias is not None
                if block.layer in means:
                    lead = (block.groups,) if block.groups > 1 else ()
                    mean = named[f"mean:{block.layer}"].reshape(*lead, -1)
                    result[block.layer] = MeanFactors(mean, g, block.kernel, homogeneous)
                else:
                    a = named[f"A:{block.layer}"]
                    result[block.layer] = KroneckerFactors(a, g, block.kernel, homogeneous)
            else:
                result[block.layer] = DiagonalFactors(
                    {n: named[f"diagonal:{n}"] for n in block.names}
                )
        return result

    def _noise(self, node: Node, generator: torch.Generator | None) -> Tensor:
        """Uniform or normal random numbers in the shape of the input `node`."""
        shape = [self.batch if not isinstance(d, int) else d for d in node.shape]
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

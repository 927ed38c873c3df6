"""The programs of a network: one forward graph, and what the transformations derive from it.

A linearization runs forward and backward once. What later programs need of it is its tape: values
of contractions, pools, activations and adjoints. Views are made again, never kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from .curvature.factors import TAPED, factors
from .curvature.jacobian import output_jacobian, stored_product
from .derivatives.jvp import jvp
from .derivatives.quadratic import quadratic_forms
from .derivatives.transpose import vjp
from .graph import ops
from .graph.errors import NewtritonError
from .graph.ir import LEAVES, VIEWS, Graph, Node, Op, topological
from .graph.simplify import simplify
from .language.loss import output_product, refusal
from .language.network import Traced

MATRICES = ("hessian", "ggn")


class Programs:
    """Graphs derived from one traced network, each made on first use and kept.

    Outputs are named `kind:parameter`: "gradient:0.weight". An output that is identically zero is
    missing. Directions are inputs called "v0:0.weight".
    """

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self._graphs: dict[tuple, Graph] = {}

    @cached_property
    def adjoints(self) -> dict[Node, Node]:
        """∂h/∂node of the data term, for every node that depends on a parameter."""
        return vjp({self.traced.loss: ops.const(1.0)}, self.traced.nodes.values())

    def direction(self, i: int = 0) -> dict[Node, Node]:
        """Tangents of the parameters: the inputs of direction i."""
        return {p: ops.input_(f"v{i}:{name}", p.shape) for name, p in self.traced.nodes.items()}

    def _by_parameter(self, kind: str, values: Mapping[Node, Node | None]) -> dict[str, Node]:
        found = {f"{kind}:{name}": values.get(p) for name, p in self.traced.nodes.items()}
        return {name: node for name, node in found.items() if node is not None}

    @cached_property
    def evaluate(self) -> Graph:
        """`losses` and `outputs`."""
        outputs = {"losses": self.traced.losses, "outputs": self.traced.z}
        return Graph("evaluate", simplify(outputs))

    @cached_property
    def outputs(self) -> Graph:
        """`outputs` alone."""
        return Graph("outputs", simplify({"outputs": self.traced.z}))

    @cached_property
    def scores(self) -> Graph:
        """`scores`: the largest is the class that is predicted."""
        scores = self.traced.criterion.scores(self.traced.z)
        return Graph("scores", simplify({"scores": scores}))

    @cached_property
    def linearize(self) -> Graph:
        """`losses`, `outputs`, `gradient:*`, and the batch's `statistics:*`."""
        outputs = {"losses": self.traced.losses, "outputs": self.traced.z}
        outputs |= self._by_parameter("gradient", self.adjoints)
        if self.traced.training:
            outputs |= {f"statistics:{name}": r.now for name, r in self.traced.running.items()}
        return Graph("linearize", simplify(outputs))

    @cached_property
    def _linearized(self) -> frozenset[Node]:
        return frozenset(self.linearize.nodes())

    def _frontier(self, outputs: Iterable[Node], known: frozenset[Node]) -> frozenset[Node]:
        """The `known` values that `outputs` start from."""

        def given(node: Node) -> bool:
            return node in known and node.op not in VIEWS

        reached = topological(outputs, stop=given)
        return frozenset(n for n in reached if given(n) and n.op not in LEAVES)

    def _program(
        self, name: str, outputs: Mapping[str, Node], known: frozenset[Node] | None = None
    ) -> Graph:
        """A graph from what the linearization computed; what is not `known` is computed again."""
        simplified = simplify(outputs)
        known = self._linearized if known is None else known
        return Graph(name, simplified, self._frontier(simplified.values(), known))

    @cached_property
    def tape(self) -> frozenset[Node]:
        """Values that a linearization keeps for the programs below."""
        programs = [self.hvp, self.quadratic(1), *map(self.factors, self.kinds)]
        programs += [self.ggnvp] if self.offers("ggn") else []
        return frozenset().union(*(p.given for p in programs))

    def offers(self, curvature: str) -> bool:
        """Whether the loss has this curvature."""
        return refusal(self.traced.criterion, curvature) is None

    @property
    def kinds(self) -> list[str]:
        """Kinds of factors that start from the tape and that the loss has."""
        return [*filter(self.offers, TAPED)]

    @cached_property
    def hvp(self) -> Graph:
        """`hvp:*`, R-backward = jvp of the gradient; the data term's Hessian times v0."""
        gradient = {p: self.adjoints[p] for p in self.traced.nodes.values() if p in self.adjoints}
        tangents = jvp(gradient.values(), self.direction())
        return self._program(
            "hvp", self._by_parameter("hvp", {p: tangents[g] for p, g in gradient.items()})
        )

    def _outputs_tangent(self, i: int) -> Node:
        z_dot = jvp([self.traced.z], self.direction(i))[self.traced.z]
        if z_dot is None:
            raise NewtritonError("the network's outputs do not depend on its parameters")
        return z_dot

    def _output_product(self, z_dot: Node) -> Node | None:
        """B ż, B of the mean loss."""
        traced = self.traced
        return output_product(traced.criterion, traced.z, traced.y, self.adjoints[traced.z], z_dot)

    @cached_property
    def ggnvp(self) -> Graph:
        """`ggnvp:*`: Jᵀ B J v0, R-forward, B = ∇²_z ℓ, and a backward pass without φ''."""
        b_z_dot = self._output_product(self._outputs_tangent(0))
        nodes = self.traced.nodes.values()
        values = {} if b_z_dot is None else vjp({self.traced.z: b_z_dot}, nodes)
        return self._program("ggnvp", self._by_parameter("ggnvp", values))

    def _output_forms(self, z_dots: Sequence[Node]) -> dict[tuple[int, int], Node]:
        """żᵢᵀ B żⱼ, i ≤ j."""
        products = [self._output_product(z_dot) for z_dot in z_dots]
        return {
            (i, j): ops.const(0.0) if b is None else ops.dot(z_dots[i], b)
            for j, b in enumerate(products)
            for i in range(j + 1)
        }

    def quadratic(
        self, directions: int, curvature: str = "hessian", two_products: bool = True
    ) -> Graph:
        """`form:i,j` for i ≤ j < directions; `two_products`: see `compiler.quadratic`."""
        key = ("quadratic", directions, curvature, two_products)
        if key not in self._graphs:
            if curvature == "hessian":
                forms = quadratic_forms(
                    self.traced.loss,
                    self.adjoints,
                    [self.direction(i) for i in range(directions)],
                    two_products=two_products,
                )
            elif curvature == "ggn":
                z_dots = [self._outputs_tangent(i) for i in range(directions)]
                forms = self._output_forms(z_dots)
            else:
                raise NewtritonError(f"curvature is {curvature!r}: one of {', '.join(MATRICES)}")
            outputs = {f"form:{i},{j}": node for (i, j), node in forms.items()}
            self._graphs[key] = self._program(f"quadratic({directions}, {curvature})", outputs)
        return self._graphs[key]

    @cached_property
    def jacobian(self) -> Graph:
        """`jacobian:i`: ∂z/∂s of every sample at each consumer of parameters."""
        return self._program("jacobian", output_jacobian(self.traced))

    def stored_ggnvp(self, by_layer: bool = False) -> Graph:
        """`ggnvp:*` from a stored Jacobian; `by_layer` leaves out what couples layers."""
        key = ("stored_ggnvp", by_layer)
        if key not in self._graphs:
            values = stored_product(self.traced, self._output_product, self.direction(), by_layer)
            self._graphs[key] = self._program("stored_ggnvp", self._by_parameter("ggnvp", values))
        return self._graphs[key]

    def factors(self, kind: str, samples: int = 1, means: frozenset[str] = frozenset()) -> Graph:
        """`A:layer` (`mean:layer`), `G:layer`, `diagonal:parameter`; see `compiler.factors`."""
        key = ("factors", kind, samples, means)
        if key not in self._graphs:
            outputs = factors(self.traced, self.adjoints, kind, samples, means)
            known = None if kind in TAPED else self.tape
            self._graphs[key] = self._program(f"factors({kind}, {samples})", outputs, known)
        return self._graphs[key]

    def leaves(self, graph: Graph) -> list[Node]:
        """Inputs and parameters that a graph reads."""
        return [n for n in graph.nodes() if n.op in (Op.INPUT, Op.PARAM)]

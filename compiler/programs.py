"""The programs of a network: one forward graph, and what the transformations derive from it.

A linearization runs forward and backward once. What later programs need of it is its tape: values
of contractions, pools, activations and adjoints. Views are made again, never kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from .curvature.adjoints import random_numbers
from .curvature.factors import (
    TAPED,
    Diagonal,
    GradientsGram,
    InputsGram,
    InputsMean,
    Wanted,
    factors,
)
from .curvature.jacobian import basis, jacobians, output_jacobian, stored_product
from .curvature.recursion import RECURSIVE
from .curvature.uses import consumers
from .derivatives.copies import copies
from .derivatives.jvp import jvp
from .derivatives.quadratic import quadratic_forms
from .derivatives.transpose import vjp
from .graph import ops
from .graph.errors import NewtritonError, quoted
from .graph.ir import LEAVES, VIEWS, Node, topological
from .graph.program import Input, Output, Program, declared, simplified
from .graph.simplify import simplify
from .language import whole
from .language.data_term import losses_of
from .language.loss import output_product, refusal, unit_vectors
from .language.network import Traced, constant_leaf
from .language.normaliser import split
from .streaming.wide import recomputed
from .values import (
    BatchStatistic,
    Columns,
    Constant,
    Counted,
    Data,
    Direction,
    Form,
    Ggnvp,
    GivenOutputs,
    Gradient,
    Hvp,
    Labels,
    Losses,
    Normaliser,
    Outputs,
    ParameterValue,
    RandomNumbers,
    RunningValue,
    Samples,
    Scores,
)

MATRICES = ("hessian", "ggn")
NOTHING = frozenset[Node]()
ALIKE = ParameterValue, RunningValue, Constant, Direction, Samples, Normaliser  # on all ranks
CONTRIBUTED = (
    Gradient, Hvp, Ggnvp, Form, BatchStatistic, InputsGram, InputsMean, GradientsGram, Diagonal,
)  # fmt: skip
TAPED_FORM = ("quadratic", 1, "hessian", True)  # of the programs that define the tape


class Programs:
    """The programs that are derived from one traced network, each made on first use and kept.

    Attributes:
        traced: the network's forward graph with its loss.
    """

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self._made: dict[tuple, Program] = {}

    @cached_property
    def adjoints(self) -> dict[Node, Node]:
        """∂h/∂node of the data term, for every node that depends on a trained parameter."""
        return vjp({self.traced.loss: ops.const(1.0)}, self.traced.trained.values())

    # --- the parts of a program -----------------------------------------------------------------

    def direction(self, i: int = 0) -> dict[Node, Node]:
        """Returns tangents of the trained parameters: the inputs of direction i."""
        nodes = self.traced.trained.items()
        return {p: ops.input_(str(Direction(i, name)), p.shape) for name, p in nodes}

    def _directions(self, count: int) -> dict[Input, Node]:
        """The inputs of the first `count` directions."""
        inputs: dict[Input, Node] = {}
        for i in range(count):
            tangents = self.direction(i)
            inputs |= {Direction(i, name): tangents[p] for name, p in self.traced.trained.items()}
        return inputs

    @cached_property
    def _leaves(self) -> dict[Input, Node]:
        """The inputs that any program may read."""
        traced = self.traced
        (columns,) = unit_vectors(traced.z).inputs
        leaves: dict[Input, Node] = {Labels(): traced.y, Columns(): columns}
        leaves |= {Data(name): node for name, node in traced.inputs.items()}
        leaves |= {ParameterValue(name): node for name, node in traced.nodes.items()}
        leaves |= {Constant(n): constant_leaf(n, x) for n, x in traced.constants.items()}
        leaves |= {RandomNumbers(site): node for site, node in traced.random.items()}
        if traced.part is not None:
            leaves |= {Samples(): whole.SAMPLES, Normaliser(): traced.normaliser}
        return leaves | {RunningValue(name): r.node for name, r in traced.running.items()}

    def _by_parameter(
        self, key: Callable[[str], Output], values: Mapping[Node, Node | None]
    ) -> dict[Output, Node]:
        """The values that are not zero, each under the key of its parameter's name."""
        found = {key(name): values.get(p) for name, p in self.traced.trained.items()}
        return {key: node for key, node in found.items() if node is not None}

    def _frontier(self, outputs: Iterable[Node], known: frozenset[Node]) -> frozenset[Node]:
        """The `known` values that `outputs` start from."""

        def given(node: Node) -> bool:
            return node in known and node.op not in VIEWS

        reached = topological(outputs, stop=given)
        return frozenset(n for n in reached if given(n) and n.op not in LEAVES)

    def _program(
        self,
        name: str,
        outputs: Mapping[Output, Node],
        known: frozenset[Node],
        inputs: Mapping[Input, Node] | None = None,
    ) -> Program:
        """A program that starts from what is `known`; whatever else it needs it computes."""
        nodes = simplified(outputs)
        given = self._frontier(nodes.values(), known)
        return declared(name, nodes, {**self._leaves, **(inputs or {})}, given)

    # --- forward and backward -------------------------------------------------------------------

    @cached_property
    def evaluate(self) -> Program:
        """`Losses` and `Outputs`, and `Counted` where labels decide what counts."""
        return self._program("evaluate", self._evaluated, NOTHING)

    @property
    def _evaluated(self) -> dict[Output, Node]:
        """What `evaluate` gives."""
        return {Losses(): self.traced.losses, Outputs(): self.traced.output, **self._counted}

    @cached_property
    def losses(self) -> Program:
        """`Losses` of outputs that are given, and `Counted` where labels decide what counts."""
        output = ops.input_("z", self.traced.output.shape)
        losses = losses_of(self.traced.criterion, self.traced, output)
        outputs: dict[Output, Node] = {Losses(): losses, **self._counted_here}
        return self._program("losses", outputs, NOTHING, {GivenOutputs(): output})

    @property
    def _counted(self) -> dict[Output, Node]:
        """`Counted`, where labels decide what counts and nobody gives it."""
        return {} if self.traced.part else self._counted_here

    @property
    def _counted_here(self) -> dict[Output, Node]:
        """`Counted` of the samples that a program sees, where labels decide what counts."""
        _, counted = split(self.traced.counted)
        return {} if counted is None else {Counted(): counted}

    @cached_property
    def counted(self) -> Program:
        """`Counted` of the samples alone, where labels decide what counts."""
        return self._program("counted", self._counted_here, NOTHING)

    @cached_property
    def outputs(self) -> Program:
        """`Outputs` alone."""
        return self._program("outputs", {Outputs(): self.traced.output}, NOTHING)

    @cached_property
    def scores(self) -> Program:
        """`Scores`, from which classes are predicted."""
        scores = self.traced.criterion.scores(self.traced.rows)
        return self._program("scores", {Scores(): scores}, NOTHING)

    @cached_property
    def linearize(self) -> Program:
        """What `evaluate` gives, the `Gradient`, and in training every `BatchStatistic`."""
        outputs: dict[Output, Node] = self._evaluated
        outputs |= self._by_parameter(Gradient, self.adjoints)
        if self.traced.training:
            outputs |= {BatchStatistic(name): r.now for name, r in self.traced.running.items()}
        return self._program("linearize", outputs, NOTHING)

    @cached_property
    def _linearized(self) -> frozenset[Node]:
        """What a linearization computes and may keep."""
        nodes = self.linearize.graph.nodes()
        return frozenset(nodes) - recomputed(nodes)

    # --- the tape -------------------------------------------------------------------------------

    @cached_property
    def tape(self) -> frozenset[Node]:
        """The values that a linearization keeps.

        They are what products and the form of one direction start from, and for statistics of
        factors the adjoints of all nodes that take parameters and, where labels are drawn from
        them, the outputs. Every other program starts from the tape, and computes again what is not
        on it. One that cannot be made has no part in it: its error is raised where the program is
        asked for.
        """
        kept = [self.adjoints[n] for n in consumers(self.traced) if n in self.adjoints]
        if self.offers("kfac"):
            kept.append(self.traced.z)
        known = simplify({str(i): node for i, node in enumerate(kept)}).values()
        products = (program.graph.given for program in self._products())
        return self._frontier(known, self._linearized).union(*products)

    def _products(self) -> Iterator[Program]:
        """The programs that define the tape, as far as they can be made."""
        for make in (lambda: self.hvp, lambda: self.quadratic(1), lambda: self.ggnvp):
            try:
                yield make()
            except NewtritonError:
                continue

    # --- products and forms ---------------------------------------------------------------------

    def offers(self, curvature: str) -> bool:
        """Whether the loss has this curvature, a matrix or a kind of factors."""
        return refusal(self.traced.criterion, curvature) is None

    @property
    def kinds(self) -> list[str]:
        """Kinds of factors that start from the tape and that the loss has."""
        return [*filter(self.offers, TAPED)]

    @cached_property
    def hvp(self) -> Program:
        """`Hvp`, the data term's Hessian times direction 0: R-backward, the jvp of the gradient."""
        gradient = {p: self.adjoints[p] for p in self.traced.trained.values() if p in self.adjoints}
        tangents = jvp(gradient.values(), self.direction())
        values = self._by_parameter(Hvp, {p: tangents[g] for p, g in gradient.items()})
        return self._program("hvp", values, self._linearized, self._directions(1))

    def _outputs_tangent(self, i: int) -> Node:
        """ż = J vᵢ."""
        z_dot = jvp([self.traced.z], self.direction(i))[self.traced.z]
        if z_dot is None:
            raise NewtritonError("the network's outputs do not depend on its parameters")
        return z_dot

    def _output_product(self, z_dot: Node) -> Node | None:
        """B ż, for B of the mean loss."""
        traced = self.traced
        z_bar, what = self.adjoints[traced.z], (traced.y, traced.normaliser)
        return output_product(traced.criterion, traced.z, *what, z_bar, z_dot)

    @cached_property
    def ggnvp(self) -> Program:
        """`Ggnvp`, Jᵀ B J v₀: R-forward, B = ∇²_z ℓ, and a backward pass without φ''."""
        b_z_dot = self._output_product(self._outputs_tangent(0))
        nodes = self.traced.trained.values()
        values = {} if b_z_dot is None else vjp({self.traced.z: b_z_dot}, nodes)
        outputs = self._by_parameter(Ggnvp, values)
        return self._program("ggnvp", outputs, self._linearized, self._directions(1))

    def columns(
        self, parameters: tuple[str, ...], curvature: str, count: int | None = None
    ) -> Program:
        """Returns the program of columns of a matrix's block that belongs to some parameters.

        Directions and products, `Hvp` or `Ggnvp`, are those of the parameters alone, so that only
        the network above these is worked through.

        Args:
            parameters: the names of trained parameters.
            curvature: "hessian" or "ggn".
            count: how many columns there are, on a leading axis of directions and products; None
                for one without that axis.

        Raises:
            MissingRule: an op cannot have copies of these operands, so that there is no such axis.
        """
        key = ("columns", parameters, curvature, count)
        if key not in self._made:
            nodes = {name: self.traced.trained[name] for name in parameters}
            tangents = {p: ops.input_(str(Direction(0, n)), p.shape) for n, p in nodes.items()}
            found = self._own_product(curvature, tangents)
            if count is not None:
                shapes = {v: (count, *v.shape) for v in tangents.values()}
                leaves = {v: ops.input_(v["name"], shape) for v, shape in shapes.items()}
                repeated = copies(found.values(), leaves, count)
                found = {p: repeated[product] for p, product in found.items()}
                tangents = {p: leaves[v] for p, v in tangents.items()}
            outputs = self._by_parameter(Hvp if curvature == "hessian" else Ggnvp, found)
            inputs: dict[Input, Node] = {Direction(0, n): tangents[p] for n, p in nodes.items()}
            name = f"columns({curvature}, {', '.join(parameters)}, {count})"
            self._made[key] = self._program(name, outputs, self.tape, inputs)
        return self._made[key]

    def _own_product(self, curvature: str, tangents: Mapping[Node, Node]) -> dict[Node, Node]:
        """Returns the products of parameters' own block with their tangents, where not zero."""
        if curvature == "hessian":
            gradient = {p: self.adjoints[p] for p in tangents if p in self.adjoints}
            moved = jvp(gradient.values(), tangents)
            products = {p: moved[g] for p, g in gradient.items()}
            return {p: product for p, product in products.items() if product is not None}
        z_dot = jvp([self.traced.z], tangents)[self.traced.z]
        b_z_dot = None if z_dot is None else self._output_product(z_dot)
        if b_z_dot is None:
            return {}
        pulled = vjp({self.traced.z: b_z_dot}, tangents)
        return {p: pulled[p] for p in tangents if p in pulled}

    def _output_forms(self, z_dots: Sequence[Node]) -> dict[tuple[int, int], Node]:
        """żᵢᵀ B żⱼ, for i ≤ j."""
        products = [self._output_product(z_dot) for z_dot in z_dots]
        return {
            (i, j): ops.const(0.0) if b is None else ops.dot(z_dots[i], b)
            for j, b in enumerate(products)
            for i in range(j + 1)
        }

    def quadratic(
        self, directions: int, curvature: str = "hessian", two_products: bool = True
    ) -> Program:
        """Returns the program of every `Form` of so many directions.

        Args:
            directions: how many there are.
            curvature: "hessian" or "ggn".
            two_products: two contractions a layer or three, see `derivatives.quadratic`.
        """
        key = ("quadratic", directions, curvature, two_products)
        if key not in self._made:
            outputs = self._forms(directions, curvature, two_products)
            name, inputs = f"quadratic({directions}, {curvature})", self._directions(directions)
            known = self._linearized if key == TAPED_FORM else self.tape
            self._made[key] = self._program(name, outputs, known, inputs)
        return self._made[key]

    def _forms(self, directions: int, curvature: str, two_products: bool) -> dict[Output, Node]:
        """Every `Form` of so many directions."""
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
            raise NewtritonError(f"curvature is {quoted(curvature)}: one of {', '.join(MATRICES)}")
        return {Form(i, j): node for (i, j), node in forms.items()}

    @cached_property
    def jacobian(self) -> Program:
        """`Jacobian`, ∂z/∂s of every sample, for each node s that takes parameters."""
        outputs = output_jacobian(self.traced)
        return self._program("jacobian", outputs, self.tape, basis(self.traced))

    def stored_ggnvp(self, by_layer: bool = False) -> Program:
        """Returns the program of `Ggnvp` from a stored Jacobian.

        Args:
            by_layer: whether what couples layers is left out.
        """
        key = ("stored_ggnvp", by_layer)
        if key not in self._made:
            values = stored_product(self.traced, self._output_product, self.direction(), by_layer)
            outputs = self._by_parameter(Ggnvp, values)
            inputs = self._directions(1) | jacobians(self.traced)
            self._made[key] = self._program("stored_ggnvp", outputs, self.tape, inputs)
        return self._made[key]

    # --- parts of a whole batch -----------------------------------------------------------------

    def _of_whole(self, kind: str, outputs: dict[Output, Node]) -> dict[Output, Node]:
        """Returns statistics of a rank's part of a batch into what it gives to the whole.

        Recursive kinds multiply means by each other: their factors are those of the whole.
        """
        if self.traced.part is None:
            return outputs
        below = set(topological([self.traced.loss, *self.adjoints.values()]))
        by_mean = {key for key in outputs if kind in RECURSIVE and isinstance(key, GradientsGram)}
        found: dict[Output, Node] = {}
        for summed in (True, False):
            wanted = {key: node for key, node in outputs.items() if (key in by_mean) is summed}
            new = whole.of_whole(wanted.values(), below.__contains__, summed=summed)
            found |= {key: new[node] for key, node in wanted.items()}
        return {key: found[key] for key in outputs}

    def parts(self, program: Program) -> frozenset[Output]:
        """Returns the outputs that are what a rank contributes to a sum over ranks."""
        alike = [node for key, node in program.inputs.items() if isinstance(key, ALIKE)]
        contributed = [key for key in program.outputs if isinstance(key, CONTRIBUTED)]
        return frozenset(k for k in contributed if not whole.is_whole(program.outputs[k], alike))

    # --- factors --------------------------------------------------------------------------------

    def factors(
        self,
        kind: str,
        samples: int = 1,
        means: frozenset[str] = frozenset(),
        layers: frozenset[str] | None = None,
        per_sample: bool = False,
        **options: Any,
    ) -> Program:
        """Returns the program of the statistics that `curvature.factors` names.

        Args:
            kind: of factors.
            samples: draws per input of "kfac".
            means: blocks of which the mean input is wanted instead of A.
            layers: layers of which there shall be statistics; None for all.
            per_sample: whether the samples' inputs and adjoints are wanted too.
            options: the other fields of `curvature.factors.Wanted`.
        """
        return self.statistics(Wanted(kind, samples, means, layers, per_sample, **options))

    def statistics(self, wanted: Wanted) -> Program:
        """Returns the program of the statistics that are wanted."""
        key = ("factors", wanted)
        if key not in self._made:
            outputs = self._of_whole(wanted.kind, factors(self.traced, self.adjoints, wanted))
            inputs = random_numbers(self.traced, wanted.kind, wanted.samples)
            name = f"factors({wanted.kind}, {wanted.samples})"
            self._made[key] = self._program(name, outputs, self.tape, inputs)
        return self._made[key]

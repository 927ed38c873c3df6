"""The programs of a part of a batch: sums over its samples, divided by the whole batch's numbers.

The number of samples and what the sum of the losses is divided by are leaves. So loss, gradient,
products, forms and the sums that statistics follow from are, of the whole batch, the sums of those
of its parts, whether these come one after another or are on several devices. A later call runs the
network again: no program starts from a tape, and each computes what it needs and no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from .curvature.adjoints import random_numbers
from .curvature.factors import LayerAdjoints, LayerInputs, Wanted, factors
from .graph import ops
from .graph.errors import NewtritonError
from .graph.ir import Node
from .graph.program import Input, Output, Program, simplified
from .graph.sums import Sum, in_stages, mixing, with_samples
from .language.network import Traced, layer_of
from .language.whole import SAMPLES
from .programs import NOTHING, Programs
from .values import Form, Ggnvp, Gradient, Hvp, Losses, Normaliser, Samples


@dataclass(frozen=True)
class Staged:
    """Programs that give statistics of a batch in parts, one after another.

    Attributes:
        sums: of the parts; each reads the sums that those before it gave.
        rest: of the whole batch: what follows from the sums.
        known: the statistics that are such sums themselves.
    """

    sums: tuple[Program, ...]
    rest: Program
    known: Mapping[Output, Sum]


class PartPrograms(Programs):
    """The programs that are derived from a network that was traced for parts of batches.

    Raises:
        NewtritonError: samples are mixed in the network or by its loss.
    """

    def __init__(self, traced: Traced) -> None:
        super().__init__(traced)
        check_apart(traced)
        self._staged: dict[Wanted, Staged] = {}
        self._joint: dict[Program, Program] = {}

    @cached_property
    def tape(self) -> frozenset[Node]:
        """Nothing: no value is kept."""
        return NOTHING

    @cached_property
    def _linearized(self) -> frozenset[Node]:
        return NOTHING

    @cached_property
    def _leaves(self) -> dict[Input, Node]:
        """The inputs that any program may read."""
        numbers: dict[Input, Node] = {Normaliser(): self.traced.normaliser, Samples(): SAMPLES}
        return super()._leaves | numbers

    @property
    def _counted(self) -> dict[Output, Node]:
        """Nothing: what counts is given."""
        return {}

    @cached_property
    def evaluate(self) -> Program:
        """`Losses` alone."""
        return self._program("evaluate", {Losses(): self.traced.losses}, NOTHING)

    @cached_property
    def slopes(self) -> Program:
        """`Losses` and the `Gradient`."""
        outputs: dict[Output, Node] = {Losses(): self.traced.losses}
        outputs |= self._by_parameter(Gradient, self.adjoints)
        return self._program("slopes", outputs, NOTHING)

    def spans(self, widths: tuple[int, ...], curvature: str, two_products: bool) -> Program:
        """Returns the program of every `Form` inside each of several spans of directions.

        Args:
            widths: how many directions each span has; they are numbered through.
            curvature: "hessian" or "ggn".
            two_products: as in `quadratic`.
        """
        key = ("spans", widths, curvature, two_products)
        if key not in self._made:
            found, ends = self._forms(sum(widths), curvature, two_products), accumulate(widths)
            inside = [
                Form(i, j)
                for width, end in zip(widths, ends, strict=True)
                for j in range(end - width, end)
                for i in range(end - width, j + 1)
            ]
            outputs: dict[Output, Node] = {form: found[form] for form in inside}
            name, inputs = f"spans({widths}, {curvature})", self._directions(sum(widths))
            self._made[key] = self._program(name, outputs, NOTHING, inputs)
        return self._made[key]

    def by_layer(self, curvature: str) -> Program:
        """Returns the program of a block diagonal matrix, a block per layer, times direction 0."""
        key = ("by layer", curvature)
        if key not in self._made:
            layers: dict[str, dict[Node, Node]] = {}
            for p, tangent in self.direction().items():
                layers.setdefault(layer_of(p["name"]), {})[p] = tangent
            products = dict[Node, Node]()
            for tangents in layers.values():
                products |= self._own_product(curvature, tangents)
            outputs = self._by_parameter(Hvp if curvature == "hessian" else Ggnvp, products)
            name = f"by layer({curvature})"
            self._made[key] = self._program(name, outputs, NOTHING, self._directions(1))
        return self._made[key]

    def staged(self, wanted: Wanted) -> Staged:
        """Returns the programs of the statistics that `curvature.factors` names."""
        if wanted not in self._staged:
            found = in_stages(self._statistics(wanted))
            name = f"factors({wanted.kind}, {wanted.samples})"
            known: dict[Input, Node] = {}
            programs: list[Program] = []
            noise = random_numbers(self.traced, wanted.kind, wanted.samples)
            for sums in found.sums:
                programs.append(self._program(f"sums of {name}", sums, NOTHING, noise | known))
                known |= _as_inputs(sums)
            keys = {leaf: key for key, leaf in known.items() if isinstance(key, Sum)}
            given = {key: keys[node] for key, node in found.rest.items() if node in keys}
            rest = {key: node for key, node in found.rest.items() if key not in given}
            program = self._program(name, rest, NOTHING, known)
            self._staged[wanted] = Staged(tuple(programs), program, given)
        return self._staged[wanted]

    def samples(self, wanted: Wanted) -> Program:
        """Returns the program of `LayerInputs` and `LayerAdjoints`."""
        key = ("samples", wanted)
        if key not in self._made:
            found = self._statistics(wanted)
            kept = LayerInputs, LayerAdjoints
            outputs: dict[Output, Node] = {k: n for k, n in found.items() if isinstance(k, kept)}
            noise = random_numbers(self.traced, wanted.kind, wanted.samples)
            self._made[key] = self._program(f"samples of {wanted.kind}", outputs, NOTHING, noise)
        return self._made[key]

    def _statistics(self, wanted: Wanted) -> dict[Output, Node]:
        """Returns statistics that read the number of samples of the whole batch from its leaf."""
        found = simplified(factors(self.traced, self.adjoints, wanted))
        nodes = with_samples({str(key): node for key, node in found.items()}, SAMPLES)
        return {key: nodes[str(key)] for key in found}

    def linearize_with(self, sums: Program | None) -> Program:
        """Returns the program of `Losses`, `Outputs` and the `Gradient`, and of further sums."""
        if sums is None:
            return self.linearize
        if sums not in self._joint:
            outputs = {**self.linearize.outputs, **sums.outputs}
            name = f"linearize, {sums.name}"
            self._joint[sums] = self._program(name, outputs, NOTHING, sums.inputs)
        return self._joint[sums]


def _as_inputs(sums: Mapping[Output, Node]) -> dict[Input, Node]:
    """Returns the leaves of sums that an earlier pass has made."""
    return {key: ops.input_(str(key), n.shape) for key, n in sums.items() if isinstance(key, Input)}


def check_apart(traced: Traced) -> None:
    """Checks that each sample's outputs and losses follow from that sample alone.

    Raises:
        NewtritonError: they do not; it names the layer that mixes samples.
    """
    if traced.training and traced.running:
        first, *others = dict.fromkeys(map(layer_of, traced.running))
        more = f" (and {len(others)} more)" if others else ""
        raise NewtritonError(
            f"layer {first}{more} normalises by statistics of a whole batch, which its pieces do "
            "not have: leave micro_batch out, or take GroupNorm or LayerNorm instead"
        )
    node = mixing([traced.losses])
    if node is not None:
        raise NewtritonError(
            f"{node!r} mixes the samples of a batch, so that pieces of it would be another "
            "function: leave micro_batch out"
        )

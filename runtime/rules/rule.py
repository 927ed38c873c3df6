"""What step rules share: their defaults, the geometry of a few directions, and the ratio ρ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...compiler.graph.program import Program
from ...kernels.memory import empty_like
from ..parts.protocols import Hides, Point, Proposal, Spanning
from ..parts.state import Attributes, Spec
from ..parts.tags import Tag
from ..reading import read
from ..vectors import symmetric

if TYPE_CHECKING:
    from ..model.model import Model

Matrix = NDArray[np.float64]
POOR, GOOD = 0.25, 0.75  # ρ below which damping grows, and above which it shrinks


class Rule(Attributes):
    """A rule with one damping that stays, no trust region and no line search.

    Attributes:
        needs: the tags that the curvature must offer.
        tags: what a solver may rely on.
    """

    needs: frozenset[Tag] = frozenset()
    tags: frozenset[Tag] = frozenset({Tag.CONSTANT_DAMPING})

    _watches = False
    _wants_form = True
    _side: Tensor | None = None
    _energies: Mapping[int, float] = MappingProxyType({})
    _watched: Tensor | None = None
    _seen: tuple[float, float | None] | None = None

    def watch(self, step: Tensor | None, form: bool = True, side: Tensor | None = None) -> None:
        """Lets the next proposal measure an earlier step on its batch as well.

        Args:
            step: the step; None for none now, which says that there will be some.
            form: whether its quadratic form is wanted with its slope.
            side: the solver's right-hand side, for `energy`.
        """
        self._watches, self._watched, self._seen = True, step, None
        self._wants_form, self._side, self._energies = form, side, {}

    def seen(self) -> tuple[float, float | None] | None:
        """Returns what the next proposal has measured of that step, see `StepRule.seen`."""
        return self._seen

    def energy(self, direction: Tensor) -> float:
        """Returns the product of the solver's right-hand side and a direction that was proposed.

        It is xᵀ(C + γI)x, and 0 where the rule does not measure it.
        """
        return self._energies.get(id(direction), 0.0)

    def state_spec(self, model: Model) -> Mapping[str, Spec]:
        """Returns nothing to be checked: there is no state."""
        return {}

    def dampings(self, damping: float) -> tuple[float, ...]:
        """Returns the damping γ alone."""
        return (damping,)

    def survey(self, directions: Sequence[Tensor], point: Point) -> None:
        """Does nothing: a proposal takes one transfer."""

    def shorten(self, loss: float, new_loss: float, proposal: Proposal) -> Proposal | None:
        """Returns None: there is no line search."""
        return None

    def adapt(self, damping: float, rho: float | None) -> float:
        """Returns γ as it was."""
        return damping

    def tighten(self) -> None:
        """Does nothing: there is nothing to tighten."""


def along(
    directions: Sequence[Tensor], point: Point, products: Matrix | None = None
) -> tuple[Matrix, Matrix, Matrix]:
    """Measures k directions vᵢ = ‖vᵢ‖ uᵢ at a point with gradient g, in float64.

    Args:
        directions: the directions.
        point: where they start.
        products: the inner products of g and the directions, where they have come over already.

    Returns:
        the norms ‖vᵢ‖, the slopes gᵀuᵢ, and the k×k inner products uᵢᵀuⱼ; NaN where a norm is 0.
    """
    if products is None:
        products = point.vectors.gram([point.gradient, *directions])
    norms = np.sqrt(np.diag(products)[1:])
    with np.errstate(invalid="ignore", divide="ignore"):
        return norms, products[0, 1:] / norms, products[1:, 1:] / np.outer(norms, norms)


class Measured(NamedTuple):
    """What a quadratic model on the span of k directions vᵢ = ‖vᵢ‖ uᵢ follows from.

    Attributes:
        units: the uᵢ; zeros where a norm is 0.
        norms: the norms ‖vᵢ‖.
        slope: the slopes gᵀuᵢ; NaN where a norm is 0, and so is the metric.
        metric: the k×k inner products uᵢᵀuⱼ.
        forms: the k×k forms uᵢᵀCuⱼ.
    """

    units: list[Tensor]
    norms: Matrix
    slope: Matrix
    metric: Matrix
    forms: Matrix

    def without_last(self) -> Measured:
        """Returns what is known of all directions but the last."""
        units, norms, slope, metric, forms = self
        return Measured(units[:-1], norms[:-1], slope[:-1], metric[:-1, :-1], forms[:-1, :-1])


def measure(
    spans: Sequence[Sequence[Tensor]],
    point: Point,
    matrix: str,
    pairs: Sequence[tuple[Tensor, Tensor]] = (),
) -> tuple[list[Measured], list[float]]:
    """Measures several spans of directions, whose numbers come over in one transfer.

    Args:
        spans: the directions of each span.
        point: where they start.
        matrix: the curvature of the forms, "ggn" or "hessian" of h.
        pairs: vectors of which the inner products are wanted as well.

    Returns:
        what is known of each span, and those products.
    """
    products = [point.vectors.products([point.gradient, *each]) for each in spans]
    units = [_units(each, inner) for each, inner in zip(spans, products, strict=True)]
    if len(spans) > 1 and isinstance(point, Spanning):
        forms = point.forms_of_each(units, matrix)
    else:
        forms = [point.quadratic_forms(each, matrix) for each in units]
    launched = [x for pair in zip(products, forms, strict=True) for x in pair]
    launched += [point.vectors.products(pair) for pair in pairs]
    found = read(*launched)
    inner = [float(products[1]) for products in found[2 * len(spans) :]]
    found = found[: 2 * len(spans)]
    result: list[Measured] = []
    for directions, of_span, values, matrices in zip(
        spans, units, found[::2], found[1::2], strict=True
    ):
        gram = symmetric(values, 1 + len(directions))
        result.append(Measured(of_span, *along(directions, point, gram), matrices))
    return result, inner


def _units(directions: Sequence[Tensor], products: Tensor) -> list[Tensor]:
    """Returns the directions divided by their norms, which stand among the unread products."""
    count = 1 + len(directions)
    squares = [products[i * count - i * (i - 1) // 2] for i in range(1, count)]
    norms = [torch.where(square == 0.0, 1.0, square).double().sqrt() for square in squares]
    return [
        torch.div(v, norm.to(v.dtype), out=empty_like(v))
        for v, norm in zip(directions, norms, strict=True)
    ]


class ModelRule(Rule):
    """A rule whose steps follow from a quadratic model on the span of a few directions.

    Attributes:
        matrix: the curvature of that model, "ggn" or "hessian" of h; None for the latter.
        widths: how many directions a span may have.
    """

    matrix: str | None
    widths: Sequence[int] = (1,)

    def __init__(self) -> None:
        self._surveyed: dict[int, tuple[Tensor, Measured]] = {}

    def span(self, direction: Tensor, point: Point) -> list[Tensor]:
        """Returns what is searched where the solver's direction is given."""
        return [direction]

    def programs(self, model: Model, batch: int) -> Sequence[Program]:
        """Returns the programs of the forms on every span that may be searched."""
        matrix, two = self.matrix or "hessian", model.two_products(batch)
        widths = {width + more for width in self.widths for more in range(1 + self._watches)}
        return [model.programs[True].quadratic(width, matrix, two) for width in sorted(widths)]

    def survey(self, directions: Sequence[Tensor], point: Point) -> None:
        """Measures what several proposals at a point will need, in one transfer."""
        pairs = zip(directions, self._measure(directions, point), strict=True)
        self._surveyed = {id(direction): (direction, found) for direction, found in pairs}

    def measured(self, direction: Tensor, point: Point) -> Measured:
        """Returns what a proposal needs, measured now unless that has been done."""
        known = self._surveyed.pop(id(direction), None)
        if known is not None:
            return known[1]
        return self._measure([direction], point)[0]

    def _measure(self, directions: Sequence[Tensor], point: Point) -> list[Measured]:
        """Measures each direction's span, and with the first one the step that is watched."""
        spans = [self.span(direction, point) for direction in directions]
        step, self._watched = self._watched, None
        seldom = [] if step is None or self._wants_form else [(point.gradient, step)]
        if step is not None and self._wants_form:
            spans[0] = [*spans[0], step]
        pairs = [] if self._side is None else [(self._side, each) for each in directions]
        found, inner = measure(spans, point, self.matrix or "hessian", [*seldom, *pairs])
        if seldom:
            self._seen = inner.pop(0), None
        elif step is not None:
            norm = float(found[0].norms[-1])
            self._seen = norm * float(found[0].slope[-1]), norm**2 * float(found[0].forms[-1, -1])
            found[0] = found[0].without_last()
        self._energies = dict(zip(map(id, directions), inner, strict=False))
        return found


def reduction_ratio(loss: float, new_loss: float, predicted: float, hides: Hides) -> float | None:
    """Returns ρ = (actual decrease)/(predicted decrease) of a step.

    Rounding is not asked for where the two agree, which it would hardly let them, or where nothing
    follows from ρ.

    Args:
        loss: h before the step.
        new_loss: h after it.
        predicted: the model's decrease.
        hides: says whether rounding hides a change of h.

    Returns:
        ρ; −∞ where either side is not finite, or the loss rises where no change was predicted; None
        where both are rounding error, which says nothing of the model.
    """
    if not (math.isfinite(new_loss) and math.isfinite(predicted)):
        return -math.inf
    decrease = loss - new_loss
    if predicted > 0.0 and POOR * predicted <= decrease <= (2.0 - GOOD) * predicted:
        return decrease / predicted
    if hides(max(abs(decrease), abs(predicted))):
        return None
    return decrease / predicted if predicted else math.copysign(math.inf, decrease)


def recovers(rho: float | None) -> bool:
    """Whether a step that was taken allows what refusals have raised to be lowered.

    Rounding hides what very short steps do. Those would be all that comes, were they not good.
    """
    return rho is None or rho > GOOD

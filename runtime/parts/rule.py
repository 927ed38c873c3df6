"""What step rules share: their defaults, the geometry of a few directions, and the ratio ρ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .protocols import Point, Proposal
from .state import Attributes, Spec
from .tags import Tag

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

    def state_spec(self, model: Model) -> Mapping[str, Spec]:
        """Returns nothing to be checked: there is no state."""
        return {}

    def dampings(self, damping: float) -> tuple[float, ...]:
        """Returns the damping γ alone."""
        return (damping,)

    def shorten(self, loss: float, new_loss: float, proposal: Proposal) -> Proposal | None:
        """Returns None: there is no line search."""
        return None

    def adapt(self, damping: float, rho: float | None) -> float:
        """Returns γ as it was."""
        return damping

    def tighten(self) -> None:
        """Does nothing: there is nothing to tighten."""


def along(directions: Sequence[Tensor], point: Point) -> tuple[Matrix, Matrix, Matrix]:
    """Measures k directions vᵢ = ‖vᵢ‖ uᵢ at a point with gradient g, in float64.

    Returns:
        the norms ‖vᵢ‖, the slopes gᵀuᵢ, and the k×k inner products uᵢᵀuⱼ; NaN where a norm is 0.
    """
    products = point.vectors.gram([point.gradient, *directions])
    norms = np.sqrt(np.diag(products)[1:])
    with np.errstate(invalid="ignore", divide="ignore"):
        return norms, products[0, 1:] / norms, products[1:, 1:] / np.outer(norms, norms)


def reduction_ratio(loss: float, new_loss: float, predicted: float, eps: float) -> float:
    """Returns ρ = (actual decrease)/(predicted decrease) of a step.

    Args:
        loss: h before the step.
        new_loss: h after it.
        predicted: the model's decrease.
        eps: the relative rounding error of the loss.

    Returns:
        ρ; −∞ where either side is not finite, 1 where the prediction is rounding error.
    """
    if not (math.isfinite(new_loss) and math.isfinite(predicted)):
        return -math.inf
    if abs(predicted) <= 10 * eps * abs(loss):
        return 1.0
    return (loss - new_loss) / predicted

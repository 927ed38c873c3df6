"""The noise of a mini-batch, which a step is made and judged against, whatever makes the steps.

A step that is best for the batch that made it fits that batch's noise: direction, length and
ratio ρ all come from one sample, and ρ stays near 1 while the loss of all data rises. Five things
keep the noise out of a step, each without a unit, so that none depends on the problem's scales.

- The right-hand side is an average of gradients, m ← m + w(g − m): its noise falls and directions
  that batches agree on stay. w is a quarter of the gain φ below, between 0.1 and 0.25: the average
  is long where noise is large. A batch weighs as its samples do.
- The solver's step x = (C + γ)⁻¹m is Newton's on averaged curvature, and a batch cannot ask for
  more: s = −αx with 0 ≤ α ≤ 1, α from the exact curvature of the batch. Where xᵀBx/xᵀ(C + γ)x is
  less than usual, the usual one stands for it: a batch that lacks what made the direction sees
  little of its curvature. What is usual is the geometric mean, averaged as the gradients are.
- A loss with a lower bound h₀ cannot fall by more than h − h₀: a longer promise is shortened.
- Where γ follows its model, it is (1 − φ)/N at least for averages of N samples: a direction in
  which one sample in N has all of the curvature may have none in C, and what has not been seen is
  not flat. Where batches confirm each other, φ = 1, nothing is unseen.
- The gain: s is multiplied by φ, the share of the promise that an independent batch confirms. On
  its own batch the step before the gain, u, has the slope −p = gᵀu. The next batch gives, before
  its own step, a = g'ᵀs at the point that s led to, and q = sᵀB's. Then (q − a)/φ = −g'ᵀu at the
  point it came from, to second order, and the best length of u for all data is

      φ = E[(q − a)/(φp)] / max(E[q/(φ²p)], 1)

  the scalar gain of Wiener's filter. After 20 steps q is measured at every fourth, and
  wherever it has been more than twice the form on the step's own batch on average; otherwise
  it is the form on the step's own batch times what q has been to it on average. The averages
  weigh a step by max(0.03, 1/(t + 1)) after t steps. A mean of k Newton steps has the gain 1/k,
  Kalman's where nothing but noise is left, and twice as much forgets how it began:
  2/(k + 1) ≤ φ ≤ 1 after k steps.

No step is taken back later: what the next batch says of a step changes the gain of later ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ..parts.protocols import Hides, Proposal
from ..parts.state import Attributes, Maybe, Number, Shaped, Spec

if TYPE_CHECKING:
    from ..model.model import Model

SHORT, LONG = 0.25, 0.1  # the weight of a new gradient where noise is small, and where it is large
MEMORY = 0.03  # the least weight of a step in what batches confirm
LEAST = 1e-3  # of the gain
FORMS, SELDOM = 20, 4  # steps whose form the next batch gives: the first, then every fourth
OUTLIER = 4.0  # what a single batch may confirm, in units of the promise


class Noise(Attributes):
    """The averages of a run's gradients and of what batches confirm of each other's steps.

    Attributes:
        mean: m before its normalisation, flat; None before the first batch.
        weight: the sum of the weights in it.
        newest: the weight of the last batch, before its normalisation.
        curvature: the usual xᵀBx/xᵀ(C + γ)x, 1 at least; 0 where none is known.
        largest: the size of a whole batch: the largest, slowly forgotten.
        slope: the average of (q − a)/(φp).
        form: the average of q/(φ²p).
        judged: t, how many steps have been judged.
        steps: k, how many batches there have been.
        last: the last step while it waits for the next batch; None where none does.
        promise: p of that step.
        gain: φ of that step, halved as often as a line search has halved it.
        own_form: sᵀBs of that step on its own batch, by its model or, without one, by the loss.
        own: the average of own forms over φ²p, where both forms are known.
        other: that of the forms on the next batch.
        measured: how many forms there have been on the next batch.
    """

    STATE: ClassVar[tuple[str, ...]] = (
        "mean", "weight", "newest", "curvature", "largest", "slope", "form", "judged", "steps",
        "last", "promise", "gain", "own_form", "own", "other", "measured",
    )  # fmt: skip

    def __init__(self) -> None:
        self.mean: Tensor | None = None
        self.weight = self.newest = self.curvature = self.largest = 0.0
        self.slope = self.form = 1.0
        self.judged = self.steps = 0
        self.last: Tensor | None = None
        self.promise = self.own_form = self.own = self.other = 0.0
        self.gain, self.measured = 1.0, 0

    def state_spec(self, model: Model) -> Mapping[str, Spec]:
        """Returns the specification of the averages and of the step that waits."""
        flat = Maybe(Shaped((model.layout.numel,), model.dtype))
        counts = {"judged", "steps", "measured"}
        numbers = {name: Number(int, 0) if name in counts else Number() for name in self.STATE}
        return {**numbers, "mean": flat, "last": flat}

    @property
    def confirmed(self) -> float:
        """The gain φ of the coming step."""
        least = max(LEAST, 2.0 / (self.steps + 1))
        return min(max(self.slope / max(self.form, 1.0), least), 1.0)

    def averaged(self, gradient: Tensor, samples: float) -> Tensor:
        """Takes in the gradient of a batch of so many samples; returns the average m.

        Where labels decide what counts, that is what the sum of its losses is divided by.
        """
        self.steps += 1
        self.largest = max(0.99 * self.largest, samples)
        weight = min(max(SHORT * self.confirmed, LONG), SHORT) * min(1.0, samples / self.largest)
        self.newest = weight
        if self.mean is None:
            self.mean = torch.zeros_like(gradient)
        self.mean = self.mean.lerp(gradient, weight)
        self.weight += weight * (1.0 - self.weight)
        return self.mean / self.weight

    @property
    def wants_form(self) -> bool:
        """Whether the next batch shall give q, for which it needs a pass of its own."""
        trusted = self.other <= 2.0 * self.own  # of curvature from a few samples it is not
        return self.judged < FORMS or self.judged % SELDOM == 0 or not trusted

    def judge(self, slope: float, form: float | None) -> None:
        """Takes in what a new batch says of the step that waits.

        Args:
            slope: a, the new gradient's product with the step.
            form: q, the step's quadratic form on the new batch; None for the form on its own batch
                times what those on the next batches have been to it.
        """
        self.last = None
        unit = self.gain**2 * self.promise
        if form is not None and math.isfinite(form):
            self.measured += 1
            weight = max(0.1, 1.0 / self.measured)
            self.own += weight * (_clipped(self.own_form / unit, 0.0, OUTLIER**2) - self.own)
            self.other += weight * (_clipped(form / unit, 0.0, OUTLIER**2) - self.other)
        ratio = _clipped(self.other / self.own, 0.5, 2 * OUTLIER) if self.own > 0.0 else 1.0
        q = max(ratio * self.own_form if form is None else form, 0.0)
        if not math.isfinite(slope + q):
            return
        self.judged += 1
        weight = max(MEMORY, 1.0 / (self.judged + 1))
        confirmed = (q - slope) / (self.gain * self.promise)
        self.slope += weight * (_clipped(confirmed, -OUTLIER, OUTLIER) - self.slope)
        self.form += weight * (_clipped(q / unit, 0.0, OUTLIER**2) - self.form)

    def shortened(
        self, proposal: Proposal, energy: float, loss: float, lowest: float | None, hides: Hides
    ) -> Proposal:
        """Returns the part of a proposal that noise leaves; zeros where that is nothing.

        Nothing is left of a step that goes uphill on its batch, or whose solver's direction does,
        and of one whose promise rounding hides.

        Args:
            proposal: the step by the batch that made it.
            energy: xᵀ(C + γ)x = mᵀx of the solver's direction x.
            loss: h of the batch.
            lowest: what h is never below; None where no such number is known.
            hides: says whether rounding hides a change of h, see `Point.hides`.

        Raises:
            NewtritonError: h is below that number.
        """
        if lowest is not None and loss < lowest and not hides(lowest - loss):
            raise NewtritonError(f"the loss is {loss:g}, its `lowest` {lowest:g}: name a lower one")
        if not math.isfinite(proposal.predicted) or proposal.norm == 0.0:
            return proposal
        part = 0.0
        if proposal.slope < 0.0 and not proposal.uphill:
            part = min(1.0 / max(proposal.along, 1.0), self._bent(proposal, energy))
            if lowest is not None:
                part *= _within(proposal.times(part), loss - lowest)
        self.promise, self.gain = -proposal.slope * part, self.confirmed
        taken = proposal.times(self.gain * part)
        if part > 0.0 and not hides(taken.predicted):
            return taken
        nothing = torch.zeros_like(proposal.step)
        return Proposal(nothing, 0.0, 0.0, bounded=proposal.bounded)

    def _bent(self, proposal: Proposal, energy: float) -> float:
        """Returns the share of a step that the usual curvature allows, and takes its own in."""
        square, usual = energy * proposal.along**2, self.curvature
        if not square > 0.0:
            return 1.0
        own = max(-2.0 * (proposal.predicted + proposal.slope) / square, 1.0)  # α ≤ 1 in any case
        if math.isfinite(own):
            self.curvature = usual * (own / usual) ** self.newest if usual else own
        return -proposal.slope / (usual * square) if usual else 1.0

    def record(self, proposal: Proposal, loss: float, new_loss: float, accepted: bool) -> None:
        """Lets a step that was taken wait for the next batch."""
        taken = accepted and proposal.norm > 0.0 and self.promise > 0.0
        self.last = proposal.step if taken else None
        self.gain *= 0.5**proposal.halvings
        by_model = -2.0 * (proposal.predicted + proposal.slope)
        by_loss = 2.0 * (new_loss - loss - proposal.slope)  # h(θ + s) = h + gᵀs + ½sᵀBs
        self.own_form = (by_model or by_loss) if taken else 0.0


def _clipped(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)


def _within(proposal: Proposal, most: float) -> float:
    """Returns the share of a step by which the model falls no further than `most` ≥ 0."""
    if proposal.predicted <= most:
        return 1.0
    slope, form = -proposal.slope, 2.0 * (-proposal.predicted - proposal.slope)
    root = math.sqrt(max(slope**2 - 2.0 * form * max(most, 0.0), 0.0))
    return min(1.0, 2.0 * max(most, 0.0) / (slope + root))

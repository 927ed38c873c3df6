"""What noise leaves of a step, and what independent batches say of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.runtime.parts.protocols import Proposal
from newtriton.runtime.rules.noise import LEAST, LONG, MEMORY, OUTLIER, SHORT, Noise

from ..problems import problem
from ..stand_in import seeded


def shown(change: float) -> bool:
    return False


def hidden(change: float) -> bool:
    return change <= 1e-9


def draw(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, generator=generator, dtype=torch.float64)


def proposed(step: Tensor, gradient: Tensor, hessian: Tensor, along: float = 1.0) -> Proposal:
    """A step and what the exact model of a batch says of it."""
    slope = float(gradient @ step)
    predicted = -slope - 0.5 * float(step @ (hessian * step))
    return Proposal(step, float(step.norm()), predicted, slope, along)


def long_ago(noise: Noise) -> Noise:
    """After so many steps that the least gain of the first ones is over."""
    noise.steps = 10**6
    return noise


# --- the gain ------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", [0.02, 0.3, 1.0, 30.0])
def test_the_gain_tends_to_wieners(signal: float) -> None:
    """At h = ½θᵀHθ, with θᵀHθ = σ² of the signal and noise ν² = E[εᵀH⁻¹ε] of gradients Hθ + ε.

    Newton's step on a noisy gradient falls most, on all data, where it is multiplied by σ²/(σ² +
    ν²).
    """
    generator, n = seeded(0), 400
    hessian = torch.logspace(-2, 2, n, dtype=torch.float64)
    noise, gains = long_ago(Noise()), []
    for k in range(600):
        theta = draw(n, generator) * (signal / n / hessian).sqrt()
        gradient = hessian * theta + draw(n, generator) * (hessian / n).sqrt()
        noise.averaged(gradient, 32)
        proposal = proposed(-gradient / hessian, gradient, hessian)
        taken = noise.shortened(proposal, 1.0, math.inf, None, shown)
        loss = float(0.5 * theta @ (hessian * theta))
        there = theta + taken.step
        noise.record(taken, loss, float(0.5 * there @ (hessian * there)), True)
        other = hessian * there + draw(n, generator) * (hessian / n).sqrt()
        noise.judge(float(other @ taken.step), float(taken.step @ (hessian * taken.step)))
        if k >= 300:
            gains.append(noise.confirmed)
    assert sum(gains) / len(gains) == pytest.approx(signal / (signal + 1.0), rel=0.03, abs=0.003)


def newton_cg(model: nt.Model) -> nt.NewtonCG:
    """Newton-CG with the curvature of the whole batch."""
    return nt.NewtonCG(model, sample=1.0)


@pytest.mark.parametrize("make", [nt.FITRE, nt.KFAC, nt.KFRA, newton_cg])
def test_a_batch_that_comes_again_confirms_all(
    make: Callable[[nt.Model], nt.SecondOrder],
) -> None:
    model, [(x, y)] = problem("quadratic", "mse")
    optimizer = make(model)
    for _ in range(15):
        optimizer.step(x, y)
        assert optimizer.noise is not None
        assert optimizer.noise.slope == pytest.approx(1.0, abs=1e-6)
        if make is not newton_cg:  # its steps are no minimisers along a line
            assert optimizer.noise.confirmed == pytest.approx(1.0, abs=1e-6)
    assert optimizer.noise.judged > 3


def test_the_least_gain_of_the_first_steps() -> None:
    noise, gradient = Noise(), torch.ones(2)
    noise.slope = -1.0
    for k in range(1, 9):
        noise.averaged(gradient, 4)
        assert noise.confirmed == min(1.0, 2.0 / (k + 1))
    assert long_ago(noise).confirmed == LEAST
    noise.slope = 7.0
    assert noise.confirmed == 1.0


def test_steps_that_bend_more_than_their_batch_says_are_shorter() -> None:
    noise = long_ago(Noise())
    noise.slope, noise.form = 1.0, 4.0
    assert noise.confirmed == 0.25
    noise.form = 0.1
    assert noise.confirmed == 1.0, "nobody is asked for more than what the batch has promised"


# --- what batches say ----------------------------------------------------------------------------


def waiting(promise: float = 2.0, gain: float = 0.5) -> Noise:
    """A step that waits for the next batch."""
    noise = Noise()
    noise.promise, noise.gain, noise.last = promise, gain, torch.ones(1)
    return noise


def test_judgements_are_averaged_plainly_and_then_forgotten() -> None:
    noise, given = waiting(), [0.3, -0.2, 0.9, 0.0, *[0.5] * 60]
    slopes = forms = 1.0
    for t, confirmed in enumerate(given, 1):
        noise.last = torch.ones(1)
        q = 0.1 * t / len(given)
        noise.judge(q - confirmed * noise.gain * noise.promise, q)
        weight = max(MEMORY, 1.0 / (t + 1))
        slopes += weight * (confirmed - slopes)
        forms += weight * (q / (noise.gain**2 * noise.promise) - forms)
        assert (noise.judged, noise.last) == (t, None)
        assert noise.slope == pytest.approx(slopes, rel=1e-12)
        assert noise.form == pytest.approx(forms, rel=1e-12)
        if t == 4:
            assert noise.slope == pytest.approx((1.0 + sum(given[:4])) / 5)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_no_single_batch_says_too_much(side: float) -> None:
    noise = waiting()
    noise.judge(-2e9 * side, 1e9)
    assert noise.slope == 0.5 + 0.5 * side * OUTLIER
    assert noise.form == 0.5 + 0.5 * OUTLIER**2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_says_nothing(bad: float) -> None:
    for slope, form in ((bad, 1.0), (1.0, bad)):
        noise = waiting()
        noise.judge(slope, form if form != -math.inf else math.nan)
        assert (noise.judged, noise.slope, noise.form, noise.last) == (0, 1.0, 1.0, None)


def test_without_a_form_it_is_what_the_steps_own_loss_has_shown() -> None:
    hessian, gradient = torch.tensor([1.0, 3.0]).double(), torch.tensor([1.0, -2.0]).double()
    step = torch.tensor([-0.5, 0.25]).double()
    proposal = proposed(step, gradient, hessian)
    noise = long_ago(Noise())
    taken = noise.shortened(proposal, 1.0, 5.0, None, shown)
    noise.record(taken, 5.0, 5.0 - taken.predicted, True)
    form = float(step @ (hessian * step))
    assert noise.own_form == pytest.approx(form)
    other = waiting(noise.promise, noise.gain)
    noise.judge(0.1, None)
    other.judge(0.1, form)
    assert noise.slope == pytest.approx(other.slope)
    assert noise.form == pytest.approx(other.form)


# --- averaged gradients --------------------------------------------------------------------------


def test_gradients_are_averaged_without_bias_to_zero() -> None:
    noise, generator = Noise(), seeded(1)
    seen, weights = list[Tensor](), list[float]()
    for gain in (1.0, 0.9, 0.5, 0.2, 0.01, 0.6):
        noise.slope, noise.steps = gain, 10**6
        gradient = draw(5, generator)
        weight = min(max(SHORT * gain, LONG), SHORT)
        weights = [w * (1.0 - weight) for w in weights] + [weight]
        seen.append(gradient)
        expected = sum(w * g for w, g in zip(weights, seen, strict=True)) / sum(weights)
        torch.testing.assert_close(noise.averaged(gradient, 16), expected)
    assert noise.weight == pytest.approx(sum(weights))


def test_the_first_gradient_stands_for_itself_and_is_not_kept_by_reference() -> None:
    noise, gradient = Noise(), torch.tensor([1.0, 2.0])
    torch.testing.assert_close(noise.averaged(gradient, 1), gradient)
    gradient.zero_()
    torch.testing.assert_close(
        noise.averaged(torch.tensor([1.0, 2.0]), 1), torch.tensor([1.0, 2.0])
    )


def test_a_small_last_batch_weighs_as_its_samples_do() -> None:
    def shift(samples: int) -> float:
        noise = Noise()
        for _ in range(40):
            noise.averaged(torch.zeros(1), 32)
        return float(noise.averaged(torch.ones(1), samples))

    assert shift(8) == pytest.approx(shift(32) / 4, rel=0.02)
    assert shift(64) == pytest.approx(shift(32))


# --- what is left of a step ----------------------------------------------------------------------

HESSIAN = torch.tensor([1.0, 4.0], dtype=torch.float64)
GRADIENT = torch.tensor([2.0, -4.0], dtype=torch.float64)
NEWTON = -GRADIENT / HESSIAN


def test_a_batch_cannot_ask_for_more_than_the_solver() -> None:
    whole = proposed(NEWTON, GRADIENT, HESSIAN)
    long = replace(whole, along=4.0)
    taken = long_ago(Noise()).shortened(long, 1.0, 9.0, None, shown)
    torch.testing.assert_close(taken.step, NEWTON / 4)
    assert taken.predicted == pytest.approx(proposed(NEWTON / 4, GRADIENT, HESSIAN).predicted)
    assert taken.along == 1.0
    short = replace(whole, along=0.3)
    assert torch.equal(long_ago(Noise()).shortened(short, 1.0, 9.0, None, shown).step, NEWTON)


def test_the_gain_multiplies_what_is_left() -> None:
    noise = long_ago(Noise())
    noise.slope = 0.3
    taken = noise.shortened(proposed(NEWTON, GRADIENT, HESSIAN), 1.0, 9.0, None, shown)
    torch.testing.assert_close(taken.step, 0.3 * NEWTON)
    assert noise.gain == pytest.approx(0.3)
    assert noise.promise == pytest.approx(-float(GRADIENT @ NEWTON)), "p is before the gain"


@pytest.mark.parametrize("lowest", [0.0, -5.0, 1.0])
def test_a_promise_below_the_losss_bound_is_shortened_to_it(lowest: float) -> None:
    proposal = proposed(NEWTON, GRADIENT, HESSIAN)  # h falls by 4
    for loss in (lowest + 0.5, lowest + 3.0, lowest + 4.5):
        taken = long_ago(Noise()).shortened(proposal, 1.0, loss, lowest, shown)
        assert taken.predicted == pytest.approx(min(4.0, loss - lowest))
        assert taken.norm == pytest.approx(float(taken.step.norm()))
    nothing = long_ago(Noise()).shortened(proposal, 1.0, lowest, lowest, hidden)
    assert (nothing.norm, nothing.predicted) == (0.0, 0.0)
    assert torch.equal(long_ago(Noise()).shortened(proposal, 1.0, 0.5, None, shown).step, NEWTON)


def test_a_loss_below_its_bound_is_an_error_and_rounding_is_none() -> None:
    proposal = proposed(NEWTON, GRADIENT, HESSIAN)
    with pytest.raises(nt.NewtritonError, match=r"the loss is -0\.5, its `lowest` 0: name a lower"):
        Noise().shortened(proposal, 1.0, -0.5, 0.0, hidden)
    assert Noise().shortened(proposal, 1.0, -1e-12, 0.0, hidden).norm == 0.0


def test_nothing_is_left_of_what_goes_uphill_or_is_hidden() -> None:
    proposal = proposed(NEWTON, GRADIENT, HESSIAN)
    for bad in (
        replace(proposal, slope=3.0),
        replace(proposal, slope=0.0),
        replace(proposal, uphill=True),
        proposal.times(1e-11),
    ):
        noise = Noise()
        taken = noise.shortened(bad, 1.0, 9.0, None, hidden)
        assert (taken.norm, taken.predicted) == (0.0, 0.0)
        assert not taken.step.any()
        noise.record(taken, 9.0, 9.0, True)
        assert noise.last is None, "nothing was done that a batch could judge"


def test_a_step_beside_the_solvers_direction_stays() -> None:
    proposal = proposed(NEWTON, GRADIENT, HESSIAN, along=0.0)
    assert torch.equal(long_ago(Noise()).shortened(proposal, 1.0, 9.0, None, shown).step, NEWTON)


def test_a_proposal_without_numbers_or_length_is_the_rules_own_matter() -> None:
    proposal = proposed(NEWTON, GRADIENT, HESSIAN)
    for own in (replace(proposal, predicted=math.nan), Proposal(0 * NEWTON, 0.0, 0.0)):
        assert Noise().shortened(own, 1.0, 9.0, 0.0, shown) is own


def test_a_step_that_a_line_search_halved_is_judged_by_what_was_taken() -> None:
    noise = long_ago(Noise())
    taken = noise.shortened(proposed(NEWTON, GRADIENT, HESSIAN), 1.0, 9.0, None, shown)
    quarter = replace(taken.times(0.25), halvings=2)
    noise.record(quarter, 9.0, 9.0 - quarter.predicted, True)
    noise.judge(float((GRADIENT + HESSIAN * quarter.step) @ quarter.step), None)
    assert noise.slope == pytest.approx(1.0), "the same batch again confirms all"


def test_a_step_that_was_refused_does_not_wait() -> None:
    noise = Noise()
    taken = noise.shortened(proposed(NEWTON, GRADIENT, HESSIAN), 1.0, 9.0, None, shown)
    noise.record(taken, 9.0, 99.0, False)
    assert noise.last is None
    noise.record(taken, 9.0, 5.0, True)
    assert noise.last is taken.step


@pytest.mark.parametrize("case", ["kfac", "kfac+gradient", "subspace"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("loss", ["ce", "mse", "bce"])
def test_every_span_of_a_trust_region_trains(case: str, momentum: float, loss: str) -> None:
    model, [(x, y)] = problem("mlp", loss)
    optimizer = nt.FITRE(model, case=case, momentum=momentum)
    reports = [optimizer.step(x[k % 3 :: 3], y[k % 3 :: 3]) for k in range(30)]
    assert sum(report.step_norm == 0.0 for report in reports) < 10
    assert model.objective(x, y) < 0.8 * reports[0].loss

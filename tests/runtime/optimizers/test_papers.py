"""Without noise the presets are the papers' methods, step by step against dense algebra."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import newtriton as nt

from ..problems import parts, problem


class Layers:
    """Averaged Kronecker factors of a perceptron, and solves with them: none of it the library's.

    Args:
        model: the model, of linear layers with biases.
    """

    def __init__(self, model: nt.Model) -> None:
        self.model, self.averages = model, dict[str, tuple[Tensor, Tensor]]()

    def gather(self, lin: nt.Linearization, weight: float) -> None:
        """Averages the factors of the labels there are."""
        for layer, new in lin.kronecker_factors("empirical").items():
            old = self.averages.get(layer, (new.A, new.G))
            pair = zip(old, (new.A, new.G), strict=True)
            a, g = ((1.0 - weight) * was + weight * now for was, now in pair)
            self.averages[layer] = a, g

    def solve(self, gradient: Tensor, damping: float) -> Tensor:
        """Returns (A + π√γ I)⁻¹ ⊗ (G + √γ/π I)⁻¹ times the gradient, with Kronecker products."""
        flat = torch.zeros_like(gradient)
        g, x = self.model.unflatten(gradient), self.model.unflatten(flat)
        for layer, (a, b) in self.averages.items():
            pi = ((a.trace() / len(a)) / (b.trace() / len(b))).sqrt()
            root = damping**0.5
            eye = torch.eye(len(a), dtype=a.dtype), torch.eye(len(b), dtype=a.dtype)
            block = torch.kron(b + root / pi * eye[1], a + pi * root * eye[0])
            m = torch.cat([g[f"{layer}.weight"], g[f"{layer}.bias"][:, None]], 1)
            solved = torch.linalg.solve(block, m.reshape(-1)).view_as(m)
            x[f"{layer}.weight"].copy_(solved[:, :-1])
            x[f"{layer}.bias"].copy_(solved[:, -1])
        return flat


def taken(model: nt.Model, before: Tensor, step: Tensor, x: Tensor, y: Tensor) -> float:
    """Takes a step; returns the loss there."""
    model.params.copy_(before + step)
    return model.objective(x, y)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_fitre_without_noise_is_algorithm_1(momentum: float) -> None:
    model, [(x, y)] = problem("mlp")
    twin, _ = problem("mlp")
    optimizer = nt.FITRE(
        model, 0.05, 2.5, factors="empirical", momentum=momentum, every=1, burn_in=2,
        moving_average=0.9, reject_below=0.25, noise=None,
    )  # fmt: skip
    layers, radius, last, outcomes = Layers(twin), 2.5, None, set[tuple[bool, bool]]()
    for k, (bx, by) in enumerate(parts(x, y, 12)):
        lin, before = twin.linearize(bx, by), twin.params.clone()
        layers.gather(lin, 1.0 / (k + 1) if k < 2 else 0.1)
        r = layers.solve(lin.gradient, 0.05 + twin.weight_decay)
        bent, slope = float(r @ lin.hvp(r)), float(lin.gradient @ r)
        longest = radius / float(r.norm())
        eta = min(slope / bent, longest) if bent > 0.0 else longest
        step = -eta * r

        def falls(s: Tensor, lin: nt.Linearization = lin) -> float:
            return -float(lin.gradient @ s + 0.5 * s @ lin.hvp(s))

        if last is not None and momentum:
            carried = step + momentum * last
            carried = carried * min(1.0, radius / float(carried.norm()))
            step = carried if falls(carried) > 0.0 else step
        predicted = falls(step)
        rho = (lin.objective - taken(twin, before, step, bx, by)) / predicted
        outcomes.add((rho >= 0.25, float(step.norm()) > 0.999 * radius))
        radius = min(2.0 * radius, 2.5) if rho >= 0.75 else radius / 2.0 if rho < 0.25 else radius
        if rho >= 0.25:
            last = step
        else:
            twin.params.copy_(before)
        report = optimizer.step(bx, by)
        assert report.rho == pytest.approx(rho, rel=1e-7)
        assert report.radius == radius
        torch.testing.assert_close(model.params, twin.params, rtol=1e-10, atol=1e-10)
    assert outcomes >= {(True, False), (True, True), (False, True)}, (
        "accepted, at the edge, refused"
    )


class EmpiricalKFAC(nt.KFAC):
    """K-FAC without draws."""

    factors = "empirical"


def test_kfac_without_noise_is_the_papers_model_of_two_directions() -> None:
    """Section 7, and section 6.5: λ follows ρ every five steps. γ stays for twenty."""
    model, [(x, y)] = problem("mlp")
    twin, _ = problem("mlp")
    optimizer = EmpiricalKFAC(model, 0.03, every=1, burn_in=4, moving_average=0.9, noise=None)
    layers, strength, last = Layers(twin), 0.03, None
    for k, (bx, by) in enumerate(parts(x, y, 15)):
        lin, before = twin.linearize(bx, by), twin.params.clone()
        layers.gather(lin, 1.0 / (k + 1) if k < 4 else 0.1)
        delta = layers.solve(lin.gradient, 0.03 + twin.weight_decay)
        span = torch.stack([delta] if last is None else [delta, last])
        products = torch.stack([lin.ggnvp(v) for v in span]) + strength * span
        b, inside = span @ lin.gradient, span @ products.T
        c = -torch.linalg.solve(inside, b)
        if last is not None and not 0.0 <= float(c[1]) <= 1.0:  # the bounds of `QuadraticModel`
            c[1] = c[1].clamp(0.0, 1.0)
            c[0] = -(b[0] + inside[0, 1] * c[1]) / inside[0, 0]
        step, predicted = c @ span, -float(b @ c + 0.5 * c @ inside @ c)
        rho = (lin.objective - taken(twin, before, step, bx, by)) / predicted
        assert rho > 0.0, "none of these is refused"
        last = step
        if (k + 1) % 5 == 0:
            strength *= 0.95**5 if rho > 0.75 else 0.95**-5 if rho < 0.25 else 1.0
        report = optimizer.step(bx, by)
        assert report.rho == pytest.approx(rho, rel=1e-7)
        assert optimizer.rule.damping == pytest.approx(strength)  # type: ignore[attr-defined]
        torch.testing.assert_close(model.params, twin.params, rtol=1e-10, atol=1e-10)
    assert strength != 0.03


def test_eacg_without_noise_takes_every_step() -> None:
    """θ ← θ + ηd, ((1 − α)(C + ηI) + αI) d = −g, whatever the loss says."""
    model, [(x, y)] = problem("mlp", weight_decay=0.01)
    twin, _ = problem("mlp", weight_decay=0.01)
    optimizer = nt.EACG(
        model, 2.5, 0.05, factors="empirical", limit=200, tolerance=1e-14, noise=None
    )
    rises = 0
    for bx, by in parts(x, y, 6):
        lin, step = twin.linearize(bx, by), torch.zeros_like(twin.params)
        factors = lin.kronecker_factors("empirical", means=["0", "2"])
        for name, g in twin.unflatten(lin.gradient).items():
            layer, kind = name.split(".")
            mean = factors[layer].mean  # type: ignore[union-attr]
            a = torch.outer(mean, mean) if kind == "weight" else torch.ones(1, 1).double()
            c = torch.kron(factors[layer].G, a)  # type: ignore[union-attr]
            eye = torch.eye(len(c), dtype=torch.float64)
            d = torch.linalg.solve(0.95 * (c + 0.01 * eye) + 0.05 * eye, -g.reshape(-1))
            twin.unflatten(step)[name].copy_(d.view_as(g))
        twin.params.add_(step, alpha=2.5)
        report = optimizer.step(bx, by)
        rises += report.new_loss > report.loss  # type: ignore[operator]
        assert report.accepted
        assert report.lr == 2.5
        torch.testing.assert_close(model.params, twin.params, rtol=1e-9, atol=1e-10)
    assert rises

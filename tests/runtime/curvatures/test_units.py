"""What relative dampings are measured in, and that scales of data and weights change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.runtime.curvatures.kronecker import KroneckerCurvature
from newtriton.runtime.curvatures.units import units
from newtriton.runtime.parts.protocols import BlockDiagonal
from newtriton.runtime.solvers.direct import KFI

from ..problems import dense
from ..stand_in import MLP, Quadratic, assert_identical, batch, positive
from ..transfers import counted


def filled(model: object, **options: object) -> KroneckerCurvature:
    """A curvature with relative dampings after one update."""
    curvature = KroneckerCurvature(model, relative=True, **options)  # type: ignore[arg-type]
    assert curvature.update(model.linearize(*batch()))  # type: ignore[attr-defined]
    return curvature


def blocks(curvature: KroneckerCurvature) -> BlockDiagonal:
    return curvature.blocks


def test_the_unit_is_the_mean_curvature_of_parameters_in_their_own_size() -> None:
    model = MLP()
    curvature = filled(model)
    views = model.layout.views(model.params)
    c, squares, sizes = [], [], []
    for block in blocks(curvature).blocks:
        if block.layer == "1":
            diagonal = block.factors.tensors["1.scale"]
            c.append(float(diagonal.mean()))
            squares.append(float(views["1.scale"].square().mean()))
            sizes.append(4)
            continue
        factors = curvature.factors[block.layer]
        size = float(factors.A.diagonal()[:-1].mean())  # of the inputs, and of the 1 by them
        c.append(size * float(factors.G.diagonal().mean()))
        weight, bias = views[f"{block.layer}.weight"], views[f"{block.layer}.bias"]
        sizes.append(weight.numel() + bias.numel())
        total = float(weight.square().sum() + bias.square().sum() / size)
        squares.append(total / sizes[-1])
    kappa = np.average(np.multiply(c, squares), weights=sizes)
    found = units(blocks(curvature).blocks, views)
    assert list(found.values()) == pytest.approx(list(kappa / np.array(squares)))
    assert found == pytest.approx({b.layer: b.unit for b in blocks(curvature).blocks})


def test_a_damping_is_relative_but_for_weight_decay() -> None:
    curvature = filled(MLP(weight_decay=0.25))
    for block in blocks(curvature).blocks:
        assert block.unit != 1.0
        assert block.share(0.75) == pytest.approx(0.5 * block.unit + 0.25)
        assert block.share(0.25) == 0.25
        assert block.share(0.1) == 0.1
    for block in blocks(KroneckerCurvature(MLP(weight_decay=0.25))).blocks:
        assert block.share(0.75) == 0.75


def test_a_solve_is_damped_by_what_inputs_and_gradients_measure() -> None:
    """(A + δ_A·diag(1, …, 1, 1/ρ²)) ⊗ (G + δ_G) with ρ² the mean square of the inputs."""
    model = MLP()
    curvature = filled(model)
    g = torch.linspace(-1.0, 1.0, model.layout.numel, dtype=torch.float64)
    found = model.layout.views(KFI().solve(curvature, 0.1, g).x)
    parts = model.layout.views(g)
    for block in blocks(curvature).blocks:
        if block.layer == "1":
            continue
        factors = curvature.factors[block.layer]
        rho = float(factors.A.diagonal()[:-1].mean())
        mean_g = float(factors.G.diagonal().mean())
        root, pi = (0.1 * block.unit) ** 0.5, (rho / mean_g) ** 0.5
        metric = torch.ones(len(factors.A), dtype=torch.float64)
        metric[-1] = 1.0 / rho
        a = factors.A + pi * root * metric.diag()
        damped_g = factors.G + root / pi * torch.eye(len(factors.G), dtype=torch.float64)
        m = torch.cat([parts[f"{block.layer}.weight"], parts[f"{block.layer}.bias"][:, None]], 1)
        x = torch.linalg.solve(damped_g, torch.linalg.solve(a, m.T).T)
        torch.testing.assert_close(found[f"{block.layer}.weight"], x[:, :-1])
        torch.testing.assert_close(found[f"{block.layer}.bias"], x[:, -1])


def test_a_layer_of_zeros_has_the_mean_size_of_the_others() -> None:
    model = MLP()
    curvature = filled(model)
    views = model.layout.views(model.params)
    views["2.weight"].zero_()
    views["2.bias"].zero_()
    found = units(blocks(curvature).blocks, views)
    one, two, scale = (block for block in blocks(curvature).blocks)
    known = {"0": float(one.mean_square(views)), "1": float(scale.mean_square(views))}
    assert two.layer == "2"
    mean = (16 * known["0"] + 4 * known["1"]) / 35
    assert found["2"] == pytest.approx(found["0"] * known["0"] / mean)


@pytest.mark.parametrize("spoilt", ["params", "factors", "infinite"])
def test_without_a_scale_the_units_are_one(spoilt: str) -> None:
    model = MLP()
    curvature = filled(model)
    if spoilt == "params":
        model.params.zero_()
    for block in blocks(curvature).blocks:
        for tensor in block.tensors.values():
            tensor.mul_({"params": 1.0, "factors": 0.0, "infinite": torch.inf}[spoilt])
    views = model.layout.views(model.params)
    assert set(units(blocks(curvature).blocks, views).values()) == {1.0}


def test_inputs_of_zero_leave_a_bias_its_own_curvature() -> None:
    model = Quadratic(positive(4), positive(3))
    curvature = filled(MLP())
    block = blocks(curvature).blocks[0]
    block.tensors["A"][..., :-1, :] = 0.0
    block.tensors["A"][..., :, :-1] = 0.0
    assert float(block.a.mean_diagonal) == 1.0  # type: ignore[attr-defined]
    assert KFI().solve(curvature, 0.1, torch.ones(35).double()).x.isfinite().all()
    assert filled(model).blocks.blocks[0].unit == 1.0, "its parameters are zero"


def test_groups_have_inputs_of_their_own_size() -> None:
    net = nt.Sequential(nt.Conv2d(4, 1, groups=2), nt.Flatten(), nt.Linear(2))
    model = nt.compile(net, (2, 3, 3), nt.MSELoss(), dtype=torch.float64, device="cpu")
    x = torch.randn(8, 2, 3, 3, dtype=torch.float64)
    x[:, 1] *= 100.0
    curvature = KroneckerCurvature(model, "empirical", relative=True)
    curvature.update(model.linearize(x, torch.zeros(8, 2, dtype=torch.float64)))
    sizes = curvature.blocks.blocks[0].a.mean_diagonal  # type: ignore[attr-defined]
    torch.testing.assert_close(sizes, x.square().mean((0, 2, 3)))


def test_units_come_over_in_one_transfer() -> None:
    model = MLP()
    curvature = filled(model)
    with counted() as transfers:
        units(blocks(curvature).blocks, model.layout.views(model.params))
    assert sum(transfers.reads.values()) == 1
    assert not sum(transfers.copies.values())


def test_units_are_saved() -> None:
    model = MLP()
    curvature = filled(model)
    other = KroneckerCurvature(model, relative=True)
    other.load_state_dict(curvature.state_dict())
    assert_identical(other.state_dict(), curvature.state_dict())
    assert [b.unit for b in blocks(other).blocks] == [b.unit for b in blocks(curvature).blocks]


def test_a_relative_curvature_is_the_same_operator() -> None:
    model = MLP()
    one, other = filled(model), KroneckerCurvature(model)
    other.update(model.linearize(*batch()))
    assert torch.equal(dense(one.mv, 35), dense(other.mv, 35))


# --- runs whose loss, data or weights are scaled -------------------------------------------------

PRESETS = [nt.FITRE, nt.KFAC, nt.KFRA]
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(128, 6, generator=GENERATOR, dtype=torch.float64)
SCORES = X @ torch.randn(6, 3, generator=GENERATOR, dtype=torch.float64)
CLASSES = (SCORES + torch.randn(128, 3, generator=GENERATOR, dtype=torch.float64)).argmax(1)
TARGETS = torch.nn.functional.one_hot(CLASSES, 3).double()


def compiled(loss: nt.MSELoss | nt.CrossEntropyLoss | nt.Scaled, decay: float = 0.0) -> nt.Model:
    net = nt.Sequential(nt.Linear(8), nt.Tanh(), nt.Linear(8), nt.SiLU(), nt.Linear(3))
    return nt.compile(net, (6,), loss, dtype=torch.float64, weight_decay=decay, device="cpu")


def curve(
    model: nt.Model, make: type[nt.SecondOrder], x: Tensor, y: Tensor, steps: int = 20
) -> Tensor:
    """The losses of steps on small batches, and before and after them that of all data."""
    optimizer, generator = make(model), torch.Generator().manual_seed(1)
    losses = [model.objective(x, y)]
    for _ in range(steps):
        rows = torch.randperm(len(x), generator=generator)[:16]
        losses.append(optimizer.step(x[rows], y[rows]).loss)
    return torch.tensor([*losses, model.objective(x, y)], dtype=torch.float64)


@pytest.mark.parametrize("c", [1e5, 1e-5])
@pytest.mark.parametrize("loss", [nt.CrossEntropyLoss(), nt.MSELoss()], ids=repr)
@pytest.mark.parametrize("make", PRESETS)
def test_a_loss_and_its_weight_decay_times_a_number(
    make: type[nt.SecondOrder], loss: nt.MSELoss | nt.CrossEntropyLoss, c: float
) -> None:
    """The curve is that of the loss itself, up to rounding: measured, 3e-13."""
    y = CLASSES if isinstance(loss, nt.CrossEntropyLoss) else TARGETS
    expected = curve(compiled(loss, 1e-3), make, X, y)
    scaled = curve(compiled(nt.Scaled(loss, c), 1e-3 * c), make, X, y)
    torch.testing.assert_close(scaled / c, expected, rtol=1e-10, atol=0.0)
    assert expected[-1] < 0.6 * expected[0]


@pytest.mark.parametrize("c", [100.0, 0.01])
@pytest.mark.parametrize("make", PRESETS)
def test_inputs_times_a_number_and_the_first_weights_divided_by_it(
    make: type[nt.SecondOrder], c: float
) -> None:
    """The network is the same, and so are its steps: their metric follows inputs and weights."""
    model, other = compiled(nt.CrossEntropyLoss()), compiled(nt.CrossEntropyLoss())
    other.layout.views(other.params)["0.weight"].div_(c)
    expected, found = curve(model, make, X, CLASSES), curve(other, make, c * X, CLASSES)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=0.0)


@pytest.mark.parametrize("c", [1e5, 1e-5])
@pytest.mark.parametrize("make", PRESETS)
def test_targets_and_the_last_layer_times_a_number(make: type[nt.SecondOrder], c: float) -> None:
    """The loss is c² times as large, the last layer c times, and all that is in front unmoved."""
    model, other = compiled(nt.MSELoss()), compiled(nt.MSELoss())
    for name in ("4.weight", "4.bias"):
        other.layout.views(other.params)[name].mul_(c)
    expected, found = curve(model, make, X, TARGETS), curve(other, make, X, c * TARGETS)
    torch.testing.assert_close(found / c**2, expected, rtol=1e-8, atol=0.0)


@pytest.mark.parametrize("make", PRESETS)
@pytest.mark.parametrize(("inputs", "targets"), [(100.0, 1.0), (1.0, 1e5)])
def test_inputs_or_targets_times_a_number_train_all_the_same(
    make: type[nt.SecondOrder], inputs: float, targets: float
) -> None:
    """The network starts where it would: saturated, or with outputs that are far too small."""
    model = compiled(nt.MSELoss())
    losses = curve(model, make, inputs * X, targets * TARGETS, 80)
    plain = curve(compiled(nt.MSELoss()), make, X, TARGETS, 80)
    assert losses[-1] / losses[0] < 2.5 * plain[-1] / plain[0]
    assert losses[-1] < 0.6 * losses[0]

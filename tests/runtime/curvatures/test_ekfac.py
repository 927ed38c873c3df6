"""EKFAC against exact curvature and curvlinops; when its basis is taken, and what that changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from curvlinops import EKFACLinearOperator
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.curvatures import ekfac
from newtriton.runtime.curvatures.ekfac import EigenbasisBlock
from newtriton.runtime.curvatures.kronecker import KroneckerCurvature
from newtriton.runtime.model.factors import EigenbasisFactors
from newtriton.runtime.parts import block as block_room
from newtriton.runtime.parts.protocols import LinearSolver, Status
from newtriton.runtime.parts.state import check_state
from newtriton.runtime.solvers.block_cg import BlockCG
from newtriton.runtime.solvers.direct import KFI, Eigen
from tests.tolerances import assert_close

from ..model.blocks import WINDOWS, compiled, convolutional, losses, perceptron
from ..problems import dense, problem
from ..stand_in import assert_identical
from ..transfers import counted

UNGROUPED = [perceptron, *(lambda w=w: convolutional(**w) for w in WINDOWS if "groups" not in w)]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def updated(model: nt.Model, kind: str, *batches: tuple[Tensor, Tensor], **options: Any) -> Any:
    curvature = KroneckerCurvature(model, kind, **options)
    for x, y in batches:
        assert curvature.update(model.linearize(x, y))
    return curvature


def blocks(curvature: KroneckerCurvature) -> dict[str, EigenbasisBlock]:
    return {b.layer: b for b in curvature.blocks.blocks if isinstance(b, EigenbasisBlock)}


def basis(curvature: KroneckerCurvature) -> dict[str, Tensor]:
    return {
        f"{layer}.{name}": block.tensors[name].clone()
        for layer, block in blocks(curvature).items()
        for name in ("basis_A", "basis_G")
    }


@pytest.mark.parametrize("kind", ["empirical", "type-2"])
@pytest.mark.parametrize(
    ("criterion", "theirs", "scale"),
    [
        (nt.CrossEntropyLoss(), nn.CrossEntropyLoss(), "1"),
        (nt.MSELoss(), nn.MSELoss(reduction="sum"), "N"),
        (nt.BCEWithLogitsLoss(), nn.BCEWithLogitsLoss(), "1/K"),
    ],
    ids=str,
)
def test_its_products_are_those_of_curvlinops(
    criterion: Any, theirs: Any, scale: str, kind: str
) -> None:
    for make in UNGROUPED:
        model, module, x, y = compiled(pair := make(), criterion, 4)
        ratio = {"1": 1.0, "N": float(len(x)), "1/K": 1 / pair.outputs}[scale]
        ours = updated(model, "ekfac-empirical" if kind == "empirical" else "ekfac-kflr", (x, y))
        if kind == "type-2" and isinstance(criterion, nt.BCEWithLogitsLoss):
            y = y.round()  # it takes no others, and B does not depend on them
        operator = EKFACLinearOperator(
            module, theirs, list(module.parameters()), [(x, y)], check_deterministic=False,
            fisher_type=kind, kfac_approx="expand", separate_weight_and_bias=False,
        )  # fmt: skip
        v = {name: torch.randn_like(p) for name, p in module.named_parameters()}
        expected: Any = operator @ list(v.values())
        found = model.unflatten(ours.mv(model.flatten(v)))
        for (name, ours_), product in zip(found.items(), expected, strict=True):
            assert_close(ratio * ours_, product, name)


@losses
def test_of_one_sample_a_linear_block_is_that_of_kfac(criterion: Any) -> None:
    model, _, x, y = compiled(perceptron(), criterion, 1)
    v = torch.randn_like(model.params)
    expected = updated(model, "empirical", (x, y)).mv(v)
    ours = updated(model, "ekfac-empirical", (x, y))
    assert_close(ours.mv(v), expected)
    for block in blocks(ours).values():
        values = [torch.linalg.eigvalsh(block.tensors[name]) for name in ("G", "A")]
        assert_close(block.tensors["S"], torch.outer(*values))


@pytest.mark.parametrize("net", ["mlp", "cnn"])
@pytest.mark.parametrize("loss", ["ce", "mse", "bce"])
def test_its_error_is_at_most_kfacs(net: str, loss: str) -> None:
    """In the Frobenius norm, layer by layer, against the exact Gauss–Newton matrix."""
    model, [(x, y)] = problem(net, loss, 0.0)
    lin, size = model.linearize(x, y), model.layout.numel
    exact = dense(lin.ggnvp, size)
    ours = dense(updated(model, "ekfac-kflr", (x, y)).mv, size)
    kfac = dense(updated(model, "kflr", (x, y)).mv, size)
    for names in model.layout.layers.values():
        at = model.layout.places(list(names))
        block = exact[at][:, at]
        errors = [float((c[at][:, at] - block).norm()) for c in (ours, kfac)]
        assert errors[0] <= errors[1] + 1e-13 * float(block.norm())
        assert_close(ours[at][:, at].trace(), block.trace())  # which no basis changes


@pytest.mark.parametrize("solver", [KFI(), Eigen(), Eigen(basis="qr"), BlockCG(1000, 1e-13)])
def test_solvers_invert_its_damped_product(solver: LinearSolver) -> None:
    model, [(x, y)] = problem("cnn")
    curvature, v = updated(model, "ekfac", (x, y)), torch.randn(model.layout.numel).double()
    solution = solver.solve(curvature, 0.1, v)
    assert solution.status is Status.SOLVED
    residual = curvature.mv(solution.x) + 0.1 * solution.x - v
    assert float(residual.norm() / v.norm()) < 1e-11


def test_without_damping_a_moment_of_zero_is_damped_above_rounding() -> None:
    model, _, x, y = compiled(perceptron(), nt.MSELoss(), 1)  # of rank one
    curvature, lin = updated(model, "ekfac-empirical", (x, y)), model.linearize(x, y)
    solution = Eigen().solve(curvature, 0.0, lin.gradient)
    assert (solution.status, solution.x.isfinite().all()) == (Status.DAMPING_RAISED, True)
    assert Eigen().solve(curvature, 1e-3, lin.gradient).status is Status.SOLVED


# --- when the basis is taken ----------------------------------------------------------------------


def test_moments_are_gathered_each_time_and_the_basis_at_refreshes() -> None:
    model, [(x, y)] = problem("cnn")
    curvature = KroneckerCurvature(model, "ekfac-empirical", every=2, burn_in=2, refresh=3)
    last, turned, gathered = {}, [], []
    for step in range(12):
        rows = slice(step, step + 12)
        moments = {k: b.tensors["S"].clone() for k, b in blocks(curvature).items() if b.is_filled}
        assert curvature.update(model.linearize(x[rows], y[rows]))
        now = basis(curvature)
        turned.append(bool(last) and not all(torch.equal(now[k], last[k]) for k in now))
        new = {k: b.tensors["S"] for k, b in blocks(curvature).items()}
        gathered.append(not moments or not any(torch.equal(new[k], moments[k]) for k in new))
        last = now
    # of these seven the two of the burn-in and then every third are refreshes
    assert [i for i, is_ in enumerate(gathered) if is_] == [0, 1, 2, 4, 6, 8, 10]
    assert [i for i, is_ in enumerate(turned) if is_] == [1, 4, 10]


def test_the_average_moves_to_a_new_basis_as_the_diagonal_of_what_it_was() -> None:
    model, [(x, y)] = problem("cnn")
    curvature = updated(model, "ekfac-empirical", (x[:8], y[:8]), burn_in=0, moving_average=0.9)
    before = dense(curvature.mv, model.layout.numel)
    lin = model.linearize(x[8:], y[8:])
    assert curvature.update(lin)
    found = lin.kronecker_factors("empirical", per_sample=True)
    for layer, block in blocks(curvature).items():
        mine = block.tensors
        moments: Tensor = found[layer].second_moments(mine["basis_A"], mine["basis_G"])  # type: ignore[union-attr]
        moved = torch.empty_like(moments)
        for i, j in torch.ones_like(moments).nonzero().tolist():
            v = torch.zeros_like(model.params)
            vector = torch.outer(mine["basis_G"][:, i], mine["basis_A"][:, j])
            block.write(model.layout.views(v), vector)
            moved[i, j] = v @ before @ v
        assert_close(mine["S"], 0.9 * moved + 0.1 * moments, layer)


@pytest.mark.parametrize("refresh", ["eigh", "qr"])
def test_a_basis_diagonalises_the_averages(refresh: str) -> None:
    """At once, or after some refinements of factors that stay the same."""
    model, [batch] = problem("mlp")
    first = (batch[0][:6], batch[1][:6])
    count = 1 if refresh == "eigh" else 300
    curvature = updated(
        model, "ekfac-empirical", first, *[batch] * count, moving_average=0.0, burn_in=0,
        basis=refresh,
    )  # fmt: skip
    for block in blocks(curvature).values():
        mine = block.tensors
        for name in ("A", "G"):
            turned = mine[f"basis_{name}"].mT @ mine[name] @ mine[f"basis_{name}"]
            rest = turned - turned.diagonal().diag()
            assert rest.norm() < 1e-8 * turned.norm()


def test_where_no_eigenvectors_are_found_the_basis_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is the identity, in which moments are the Fisher matrix's diagonal."""
    monkeypatch.setattr(block_room, "diagonalise", lambda problems: [None] * len(problems))
    model, [(x, y)] = problem("mlp")
    curvature = updated(model, "ekfac-kflr", (x, y))
    lin = model.linearize(x, y)
    exact = dense(lambda v: lin.data_product(v, "ggn"), model.layout.numel)
    assert_close(dense(curvature.mv, model.layout.numel), exact.diagonal().diag())


def test_factors_that_are_not_finite_are_left_out() -> None:
    model, [(x, y)] = problem("cnn")
    model32 = nt.compile(model.net, model.input_shape, nt.MSELoss(), dtype=torch.float32)
    y = nn.functional.one_hot(y, 3).float()
    curvature = updated(model32, "ekfac-empirical", (x.float(), y))
    before = curvature.state_dict()
    lin = model32.linearize(x.float(), 3e18 * y)
    for pair in lin.kronecker_factors("empirical").values():
        assert all(tensor.isfinite().all() for tensor in pair.tensors.values())
    assert not curvature.update(lin)  # products of their elements are beyond the range
    assert_identical(curvature.state_dict(), before)


# --- state, transfers, options --------------------------------------------------------------------


@pytest.mark.parametrize("basis", ["eigh", "qr"])
@pytest.mark.parametrize("solver", [KFI, Eigen])
def test_training_resumes_bit_for_bit(solver: type, basis: str) -> None:
    net = nt.Sequential(
        *(nt.Conv2d(4, 3, padding=1), nt.BatchNorm2d(), nt.Tanh()),
        *(nt.Conv2d(4, 3, groups=2, stride=2), nt.Flatten(), nt.Linear(3)),
    )
    _, [(x, y)] = problem("cnn")

    def made() -> tuple[nt.Model, nt.SecondOrder]:
        model = nt.compile(net, (2, 6, 6), nt.CrossEntropyLoss(), dtype=torch.float64)
        options = {"every": 2, "refresh": 2, "basis": basis}
        curvature = KroneckerCurvature(model, "ekfac", **options)
        return model, nt.SecondOrder(model, curvature, solver(2), "trust-region", 0.1)

    model, optimizer = made()
    for _ in range(3):
        optimizer.step(x, y)
    other, resumed = made()
    check_state(resumed.curvature.state_spec(), optimizer.curvature.state_dict())
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(optimizer.state_dict())
    for _ in range(5):
        assert optimizer.step(x, y) == resumed.step(x, y)
        assert torch.equal(model.params, other.params)
    assert_identical(optimizer.state_dict(), resumed.state_dict())


def test_a_gathering_reads_once_and_a_refresh_looks_at_each_shape() -> None:
    model, [(x, y)] = problem("cnn")
    curvature = updated(model, "ekfac", (x, y), burn_in=0, refresh=2)
    lin = model.linearize(x, y)
    for reads in (1, 2):
        with counted() as transfers:
            assert curvature.update(lin)
        del transfers.reads["_linalg_eigh"]
        assert sum(transfers.reads.values()) == reads, transfers.reads


def test_its_factors_are_named() -> None:
    model, [(x, y)] = problem("cnn")
    factors = updated(model, "ekfac", (x, y)).factors["0"]
    assert isinstance(factors, EigenbasisFactors)
    assert [*factors.tensors] == ["A", "G", "basis_A", "basis_G", "S"]
    assert factors.kernel == (3, 3) and not factors.homogeneous


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"inputs": "mean"}, "inputs is 'mean': one of 'gram'"),
        ({"basis": "svd"}, "basis is 'svd': one of 'eigh', 'qr'"),
        ({"refresh": 0}, "refresh is 0"),
    ],
)
def test_refuses_options(options: dict, named: str) -> None:
    model, _ = problem("mlp")
    with pytest.raises(NewtritonError, match=named):
        KroneckerCurvature(model, "ekfac", **options)


def test_presets_and_preconditioners_take_it_by_name() -> None:
    model, [(x, y)] = problem("mlp")
    fitre = nt.FITRE(model, factors="ekfac", every=(2, 5))
    assert fitre.curvature.refresh == 3  # type: ignore[attr-defined]
    newton = nt.NewtonCG(model, preconditioner="ekfac")
    for optimizer in (fitre, newton):
        reports = [optimizer.step(x, y) for _ in range(5)]
        assert reports[-1].loss < reports[0].loss


@pytest.mark.parametrize("kind", ekfac.EKFAC)
def test_of_some_layers_it_is_that_of_all_in_these(kind: str) -> None:
    model, [(x, y)] = problem("mlp")
    v = torch.randn_like(model.params)
    layer, *others = model.layout.layers
    ours, of_all = updated(model, kind, (x, y), layers=[layer]), updated(model, kind, (x, y))
    assert ours.factors.keys() == {layer}
    found, expected = model.unflatten(ours.mv(v)), model.unflatten(of_all.mv(v))
    for name in model.layout.layers[layer]:
        assert_close(found[name], expected[name], name)
    assert not any(found[name].any() for other in others for name in model.layout.layers[other])
    assert_identical(updated(model, kind, (x, y), layers=[layer]).state_dict(), ours.state_dict())


@pytest.mark.parametrize("kind", ekfac.EKFAC)
def test_of_a_loss_times_c_it_is_c_times_as_large(kind: str) -> None:
    c = 1e3
    model, _, x, y = compiled(perceptron(), nt.MSELoss(), 5)
    scaled = nt.compile(model.net, model.input_shape, nt.Scaled(nt.MSELoss(), c), dtype=model.dtype)
    scaled.load_state_dict(model.state_dict())
    v = torch.randn_like(model.params)
    assert_close(updated(scaled, kind, (x, y)).mv(v), c * updated(model, kind, (x, y)).mv(v))


def test_a_loss_without_a_distribution_draws_no_labels() -> None:
    model, _ = problem("mlp")
    plain = nt.Criterion(lambda z, y: (z - y) * (z - y))
    other = nt.compile(model.net, model.input_shape, plain)
    with pytest.raises(NewtritonError, match=r"'ekfac'.*draws labels.*defines no distribution"):
        nt.SecondOrder(other, "ekfac")
    assert ekfac.EKFAC["ekfac-empirical"] == "empirical"
    nt.SecondOrder(other, "ekfac-empirical")

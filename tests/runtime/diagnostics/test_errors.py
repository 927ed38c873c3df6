"""Errors by layer, alignment and spectra against dense matrices from PyTorch's autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import newtriton as nt
from newtriton.command import main as cli
from newtriton.compiler.curvature.factors import KINDS
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.compiler.language.models import mlp
from newtriton.runtime.diagnostics.lanczos import spectrum_edges
from newtriton.runtime.parts.cg import TruncatedCG
from newtriton.runtime.parts.kronecker import KroneckerCurvature
from newtriton.runtime.parts.matrix_free import MatrixFree

from ..problems import dense, problem

TWINS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)),
    "cnn": lambda: nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.SiLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 3, 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(12, 3)),
    ),
}


def matrices(
    model: nt.Model, twin: nn.Module, layer: str, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """A layer's blocks of Hessian and GGN by autograd, for vec([weight.flatten(1), bias])."""
    state = model.state_dict()
    weight, bias = state[f"{layer}.weight"], state.get(f"{layer}.bias")
    m = torch.cat([weight.flatten(1), *([] if bias is None else [bias[:, None]])], 1)

    def outputs(m: Tensor) -> Tensor:
        own = {f"{layer}.weight": m[:, : weight[0].numel()].view_as(weight)}
        if bias is not None:
            own[f"{layer}.bias"] = m[:, -1]
        return torch.func.functional_call(twin, {**state, **own}, x).reshape(-1)

    def loss(z: Tensor) -> Tensor:
        return nn.functional.cross_entropy(z.view(len(x), -1), y)

    hessian = torch.func.hessian(lambda m: loss(outputs(m)))(m).reshape(m.numel(), -1)
    jacobian = torch.func.jacrev(outputs)(m).reshape(-1, m.numel())
    return hessian, jacobian.T @ torch.func.hessian(loss)(outputs(m)) @ jacobian


def places(model: nt.Model, layer: str, of: str) -> Tensor:
    """Where a layer's parameters `of` stand in that vector."""
    state = model.state_dict()
    weight, has_bias = state[f"{layer}.weight"], f"{layer}.bias" in state
    at = torch.arange(len(weight) * (weight[0].numel() + has_bias)).view(len(weight), -1)
    if not has_bias:
        return at.reshape(-1)
    return {"bias": at[:, -1:], "weight": at[:, :-1], "layer": at}[of].reshape(-1)


@pytest.mark.parametrize("of", ["bias", "weight", "layer"])
@pytest.mark.parametrize("net", TWINS)
def test_errors_are_those_of_dense_blocks(net: str, of: str) -> None:
    model, [(x, y)] = problem(net, weight_decay=0.1)
    lin, twin = model.linearize(x, y), TWINS[net]().double()
    errors = nt.layer_errors(lin, of=of)
    layers = [
        b.layer for b in model.blocks if of != "bias" or f"{b.layer}.bias" in model.layout.slices
    ]
    assert list(errors.norms) == layers
    assert list(errors.absolute) == [*KINDS, "ggn"]
    for layer in layers:
        at = places(model, layer, of)
        hessian, ggn = (m[at][:, at] for m in matrices(model, twin, layer, x, y))
        values, vectors = torch.linalg.eigh(hessian)
        expected = vectors @ values.abs().diag() @ vectors.T
        assert errors.norms[layer] == pytest.approx(float(expected.norm()), rel=1e-9)
        error = float((ggn - expected).norm())
        assert errors.absolute["ggn"][layer] == pytest.approx(error, rel=1e-9)
        for kind in ("empirical", "kflr", "kfra", "pch-1", "pch-2"):
            factors = lin.kronecker_factors(kind)[layer]
            assert isinstance(factors, nt.KroneckerFactors)
            block = torch.kron(factors.G, factors.A)[at][:, at]
            error = float((block - expected).norm())
            assert errors.absolute[kind][layer] == pytest.approx(error, rel=1e-9)
            assert errors.relative[kind][layer] == pytest.approx(error / errors.norms[layer])
    for kind, by_layer in errors.absolute.items():
        assert errors.totals[kind] == pytest.approx(math.sqrt(sum(e**2 for e in by_layer.values())))


def test_the_last_layers_bias_has_its_true_hessian() -> None:
    """Its block is E[B], which Gauss–Newton's and the recursive kinds take as it is."""
    model, [(x, y)] = problem("mlp")
    relative = nt.layer_errors(model.linearize(x, y)).relative
    for kind in ("kflr", "kfra", "pch-1", "pch-2", "ggn"):
        assert relative[kind]["2"] < 1e-12
    assert relative["kfac"]["2"] > 1e-3
    assert relative["ggn"]["0"] == pytest.approx(relative["kflr"]["0"])


@pytest.mark.parametrize("of", ["bias", "weight", "layer"])
def test_one_sample_of_a_linear_network_has_kronecker_curvature(of: str) -> None:
    model, [(x, y)] = problem("quadratic")
    lin = model.linearize(x[:1], y[:1])
    errors = nt.layer_errors(lin, ("kflr", "kfra", "pch-1", "ggn", "hessian"), of=of)
    assert max(by_layer[""] for by_layer in errors.relative.values()) < 1e-12
    assert "(net)" in str(errors)


def test_pch_is_nearer_to_the_hessian_than_kfra_and_that_than_the_empirical_fisher() -> None:
    """The order of the totals in EA-CG's Table 2, on digits, averaged over the first steps."""
    (x, y), _ = nt.digits()
    model = nt.compile(mlp((32, 16)), (1, 8, 8), nt.CrossEntropyLoss(), dtype=torch.float64)
    optimizer = nt.EACG(model, lr=0.1)
    kinds = ("empirical", "kfra", "pch-1", "pch-2")
    totals = dict.fromkeys(kinds, 0.0)
    for i, batch in enumerate(nt.Batches(x.double(), y, 100)):
        optimizer.step(*batch)
        if i % 3 == 0:
            for kind, total in nt.layer_errors(model.linearize(*batch), kinds).totals.items():
                totals[kind] += total
    assert max(totals["pch-1"], totals["pch-2"]) < totals["kfra"] < totals["empirical"]


@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_cosines_are_those_of_dense_solves(net: str) -> None:
    model, [(x, y)] = problem(net, weight_decay=0.05)
    lin, layout = model.linearize(x, y), model.layout
    own = KroneckerCurvature(model, "kfac", seed=7)
    own.update(lin)
    updates = {"own": own, "gradient": -lin.gradient}
    found = nt.alignment(lin, updates, solver="eigen", damping=0.1, tolerance=1e-12)
    eye = torch.eye(layout.numel, dtype=torch.float64)
    ggn = dense(lin.ggnvp, layout.numel) + 0.1 * eye
    system = dense(own.mv, layout.numel) + 0.15 * eye
    steps = {"own": -torch.linalg.solve(system, lin.gradient), "gradient": -lin.gradient}
    whole = -torch.linalg.solve(ggn, lin.gradient)
    blocks = torch.empty_like(whole)
    for layer, names in layout.layers.items():
        at = layout.places(names)
        blocks[at] = -torch.linalg.solve(ggn[at][:, at], lin.gradient[at])
        for name, step in steps.items():
            cosine = torch.cosine_similarity(step[at], blocks[at], 0)
            assert found.layers[name][layer] == pytest.approx(float(cosine), abs=1e-9)
    for name, step in {**steps, "exact, by layer": blocks}.items():
        cosine = torch.cosine_similarity(step, whole, 0)
        assert found.whole[name] == pytest.approx(float(cosine), abs=1e-9)
    assert max(found.residuals.values()) < 1e-11
    assert list(found.residuals) == [*layout.layers, "whole"]


def test_the_exact_update_has_cosine_one() -> None:
    model, [(x, y)] = problem("quadratic")
    lin = model.linearize(x[:1], y[:1])
    found = nt.alignment(lin, ("kflr", "kfra"), solver="eigen", damping=0.1)
    assert min(found.whole.values()) > 1 - 1e-12
    ggn = MatrixFree(model)
    ggn.update(lin)
    solved = TruncatedCG(100, 1e-12).solve(ggn, 0.1 + model.weight_decay, lin.gradient)
    found = nt.alignment(lin, {"cg": -solved.x, "away": solved.x}, damping=0.1)
    assert found.whole["cg"] == pytest.approx(1.0, abs=1e-12)
    assert found.whole["away"] == pytest.approx(-1.0, abs=1e-12)
    lin.gradient.zero_()
    assert math.isnan(nt.alignment(lin, ("kflr",)).whole["kflr"])


@pytest.mark.parametrize("solver", ["kfi", "cg", "ea-cg"])
def test_solvers_by_name(solver: str) -> None:
    model, [(x, y)] = problem("cnn")
    found = nt.alignment(model.linearize(x, y), solver=solver, damping=0.1)
    assert list(found.whole) == [*KINDS, "exact, by layer"]
    assert min(found.whole.values()) > 0.5


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
@pytest.mark.parametrize("k", [1, 4])
def test_edges_are_those_of_the_dense_spectrum(matrix: str, k: int) -> None:
    model, [(x, y)] = problem("cnn", weight_decay=0.1)
    lin = model.linearize(x, y)
    product = lin.hvp if matrix == "hessian" else lin.ggnvp
    values = torch.linalg.eigvalsh(dense(product, model.layout.numel))
    found = nt.spectrum(lin, matrix, k, tolerance=1e-8, basis=32, limit=4000)
    assert found.converged
    assert found.smallest == pytest.approx(values[:k].tolist(), abs=1e-8)
    assert found.largest == pytest.approx(values.flip(0)[:k].tolist(), abs=1e-8)
    assert max(found.smallest_residuals + found.largest_residuals) <= 1e-8 * float(values.max())


def test_multiple_eigenvalues_are_seen_as_often_as_they_occur() -> None:
    torch.manual_seed(0)
    values = torch.cat([torch.zeros(100), torch.rand(46) + 0.1, torch.full((4,), 2.0)]).double()
    rotation = torch.linalg.qr(torch.randn(150, 150, dtype=torch.float64))[0]
    matrix = (rotation * values) @ rotation.T
    found = spectrum_edges(
        lambda v: matrix @ v, values, 3, tolerance=1e-10, limit=1000, basis_size=24
    )
    assert found.smallest == pytest.approx([0.0] * 3, abs=1e-12)
    assert found.largest == pytest.approx([2.0] * 3, abs=1e-12)
    assert found.products < 150


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_small_operators_are_solved_whole(n: int, dtype: torch.dtype) -> None:
    values = torch.arange(float(n), dtype=dtype)
    for k in range(1, n + 1):
        options = {"tolerance": 0.0, "limit": 1000, "basis_size": 4}
        found = spectrum_edges(lambda v: values * v, values, k, **options)
        limit = 100 * torch.finfo(dtype).eps
        assert found.smallest == pytest.approx(values[:k].tolist(), abs=limit)
        assert found.largest == pytest.approx(values.flip(0)[:k].tolist(), abs=limit)
        assert found.products == n
        assert found.converged
    zero = spectrum_edges(torch.zeros_like, values, n, **options)
    assert zero.converged
    assert zero.largest == (0.0,) * n


def test_products_that_are_not_finite_have_no_spectrum() -> None:
    model, [(x, y)] = problem("mlp")
    model.params.fill_(math.nan)
    lin = model.linearize(x, y)
    for call in (nt.spectrum, nt.layer_errors):
        with pytest.raises(NewtritonError, match="not finite"):
            call(lin)


def test_a_limit_that_is_too_low_is_told() -> None:
    model, [(x, y)] = problem("cnn")
    found = nt.spectrum(model.linearize(x, y), limit=20, tolerance=1e-10)
    assert not found.converged
    assert found.products == 21
    assert "not converged after 21 products" in str(found)
    assert len(str(found).splitlines()) == 1 + 3 + 1


def test_float32() -> None:
    (x, y), _ = nt.digits()
    model = nt.compile(nt.models.small_cnn(), (1, 8, 8), nt.CrossEntropyLoss())
    lin = model.linearize(x[:16], y[:16])
    assert nt.spectrum(lin).converged
    assert nt.alignment(lin, ("kfac",), damping=1.0).residuals["whole"] < 1e-5
    assert nt.layer_errors(lin, ("kflr",)).relative["kflr"]["7"] < 1e-5


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda lin: nt.layer_errors(lin, of="gain"), "of is 'gain'"),
        (lambda lin: nt.layer_errors(lin, ("kfac", "fisher")), "curvature is 'fisher'"),
        (lambda lin: nt.layer_errors(lin, of="weight", limit=60), "layer '0'.*72.*limit of 60"),
        (lambda lin: nt.layer_errors(lin, {"own": KroneckerCurvature(lin.model)}), "update"),
        (lambda lin: nt.alignment(lin, ("fisher",)), "curvature is 'fisher'"),
        (lambda lin: nt.alignment(lin, ("ggn",)), "Kronecker"),
        (lambda lin: nt.alignment(lin, solver="lu"), "solver is 'lu'"),
        (lambda lin: nt.alignment(lin, damping=-1), "damping is -1"),
        (lambda lin: nt.alignment(lin, {"v": torch.ones(3)}), "the update 'v' is"),
        (lambda lin: nt.spectrum(lin, "fisher"), "matrix is 'fisher'"),
        (lambda lin: nt.spectrum(lin, k=1000), "k is 1000"),
        (lambda lin: nt.spectrum(lin, tolerance=1.0), "tolerance is 1.0"),
    ],
)
def test_refusals(call: Callable[[nt.Linearization], object], named: str) -> None:
    model, [(x, y)] = problem("cnn")
    with pytest.raises(NewtritonError, match=named):
        call(model.linearize(x, y))


def test_batch_norm_and_groups() -> None:
    """The kinds that take batch statistics serve; KFRA says which do."""
    net = nt.Sequential(
        *(nt.Conv2d(4, 3, groups=2), nt.BatchNorm2d(), nt.Tanh(), nt.Flatten(), nt.Linear(3))
    )
    model = nt.compile(net, (2, 4, 4), nt.CrossEntropyLoss(), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 2, 4, 4, generator=generator, dtype=torch.float64)
    lin = model.linearize(x, torch.arange(6) % 3)
    for of in ("bias", "weight", "layer"):
        errors = nt.layer_errors(lin, ("kflr", "ggn"), of=of)
        assert list(errors.norms) == ["0", "1", "4"]
    assert list(nt.alignment(lin, ("kflr",), damping=0.1).residuals) == ["0", "1", "4", "whole"]
    with pytest.raises(NewtritonError, match="'kfac' or 'kflr'"):
        nt.layer_errors(lin)


def test_a_network_without_biases() -> None:
    net = nt.Linear(3, bias=False)
    model = nt.compile(net, (4,), nt.CrossEntropyLoss(), dtype=torch.float64)
    lin = model.linearize(torch.ones(2, 4, dtype=torch.float64), torch.tensor([0, 1]))
    with pytest.raises(NewtritonError, match="no layer has a bias"):
        nt.layer_errors(lin)


INSPECT = ["inspect", "--net", "cnn", "--data", "digits", "--batch", "8", "--diagnose"]


def test_inspect_prints_diagnoses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*INSPECT, "errors", "--of", "bias"]) == 0
    assert capsys.readouterr().out.split()[:3] == ["bias", "‖|H|‖", "kfac"]
    assert cli.main([*INSPECT, "alignment", "--damping", "1"]) == 0
    assert capsys.readouterr().out.startswith("cosine with exact GN")
    assert cli.main([*INSPECT, "spectrum"]) == 0
    first = capsys.readouterr().out
    assert first.startswith("hessian\n")
    assert "\n\nggn\n" in first
    model = nt.compile(nt.models.small_cnn(), (1, 8, 8), nt.CrossEntropyLoss(), seed=1)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "weights")
    assert cli.main([*INSPECT, "spectrum", "--weights", str(tmp_path / "weights")]) == 0
    assert capsys.readouterr().out != first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--diagnose", "spectrum"], "--data is needed with --diagnose"),
        ([], "--input is needed without --diagnose"),
        (["--input", "1x8x8", "--data", "digits"], "--data means nothing without --diagnose"),
        (["--input", "1x8x8", "--damping", "0"], "--damping means nothing without --diagnose"),
        (["--diagnose", "errors", "--graph"], "--graph means nothing with --diagnose"),
        ([*INSPECT[3:], "spectrum", "--damping", "1"], "--damping is not for spectrum"),
        ([*INSPECT[3:], "errors", "--of", "weight"], "above the limit of 4096"),
        ([*INSPECT[3:], "spectrum", "--weights", "no/such"], "no/such"),
        ([*INSPECT[3:], "spectrum", "--backend", "triton"], "triton"),
        ([*INSPECT[3:], "spectrum", "--weights", __file__], "holds no weights"),
    ],
)
def test_inspect_refuses(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(["inspect", "--net", "cnn", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1

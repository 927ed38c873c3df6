"""Losses whose B is indefinite, and users' own: roots of B, refusals, extremes, training."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.graph.ir import Node
from newtriton.compiler.graph.scalar import exp, log, softplus
from newtriton.compiler.language.loss import GAUSS_NEWTON
from tests.networks import Autograd, labels, logistic, output_curvature, torch_loss, welsch
from tests.sources import ROOT
from tests.tolerances import assert_close

F64 = torch.float64
FISHER, CLIP = nt.MixtureLoss("fisher"), nt.MixtureLoss("clip")
MARGIN = nt.SigmoidMarginLoss(root="clip")
INDEFINITE = (nt.MixtureLoss(), nt.SigmoidMarginLoss(), nt.Criterion(welsch.function))
ROOTED = (FISHER, CLIP, MARGIN, welsch, logistic)


def on_the_page(name: str) -> Any:
    """Returns a loss that the page about a user's losses defines."""
    text = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^(?:class {name}|{name} =).*\n(?:(?: .*)?\n)*", text, re.MULTILINE)
    names: dict[str, Any] = {"nt": nt}
    exec(found, names)
    return names[name]


Focal = on_the_page("FocalLoss")


def compiled(loss: nt.Loss, n: int = 6, dtype: torch.dtype = F64, **options: Any):
    """Returns a perceptron with three outputs, the same in PyTorch, and a batch."""
    torch.manual_seed(0)
    net = nt.Sequential(nt.Linear(5), nt.Tanh(), nt.Linear(3))
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    model = nt.compile(net, (4,), loss, dtype=dtype, backend="aten", device="cpu", **options)
    model.load_state_dict(module.state_dict())
    return model, module, torch.randn(n, 4, dtype=dtype), labels(loss, n, 3, dtype)


def matrix(product: Any, like: Tensor) -> Tensor:
    return torch.stack([product(e) for e in torch.eye(like.numel(), dtype=like.dtype)])


def test_the_papers_formulas():
    z = torch.tensor([[0.3, -1.2, 2.0]], dtype=F64)
    model = nt.compile(nt.Linear(3), (3,), nt.SigmoidMarginLoss(), dtype=F64)
    model.load_state_dict({"weight": torch.eye(3), "bias": torch.zeros(3)})
    p = z.softmax(1)[0, 1]
    assert_close(model.loss(z, torch.tensor([1])), 1 / (1 + torch.exp(5 * (p - 0.2))))
    mixture = nt.compile(nt.Linear(3), (3,), nt.MixtureLoss(), dtype=F64)
    mixture.load_state_dict(model.state_dict())
    s, both = z.sigmoid()[0], [mixture.loss(z, torch.tensor([k])) for k in (0, 1)]
    assert_close(torch.exp(-both[1]), s[0] * s[1] + (1 - s[0]) * s[2])
    assert_close(torch.exp(-both[0]) + torch.exp(-both[1]), torch.tensor(1.0, dtype=F64))


@pytest.mark.parametrize("loss", ROOTED, ids=repr)
def test_every_product_has_the_same_b(loss: nt.Loss):
    model, module, x, y = compiled(loss, weight_decay=0.1)
    lin = model.linearize(x, y)
    oracle = Autograd(model, module, loss, x, y)
    ggn = matrix(oracle.ggnvp, model.params)
    assert_close(matrix(lin.ggnvp, model.params), ggn)
    assert_close(matrix(lambda v: lin.ggnvp(v, "stored-jacobian"), model.params), ggn)
    assert_close(lin.quadratic_forms(list(torch.eye(len(ggn), dtype=F64)), "ggn"), ggn)
    assert_close(matrix(lin.hvp, model.params), matrix(oracle.hvp, model.params))
    assert torch.linalg.eigvalsh(ggn).min() > -1e-12


@pytest.mark.parametrize("loss", ROOTED, ids=repr)
@pytest.mark.parametrize("kind", ["kflr", "kfra", "pch-2"])
def test_a_root_is_one_of_that_b(loss: nt.Loss, kind: str):
    model, _, x, y = compiled(loss)
    lin = model.linearize(x, y)
    g = lin.kronecker_factors(kind)["2"].G  # type: ignore[union-attr]
    assert_close(g, output_curvature(loss, lin.outputs, y).mean(0))


@pytest.mark.parametrize("loss", ROOTED, ids=repr)
def test_for_one_sample_an_exact_linear_block_is_that_of_the_gauss_newton_matrix(loss: nt.Loss):
    model, _, x, y = compiled(loss, 1)
    lin = model.linearize(x, y)
    ggn = matrix(lin.ggnvp, model.params)
    at = model.unflatten(torch.arange(len(ggn)))
    for name, ours in lin.kronecker_factors("kflr").items():
        order = torch.cat([at[f"{name}.weight"], at[f"{name}.bias"][:, None]], 1).T.flatten()
        assert_close(torch.kron(ours.A, ours.G), ggn[order][:, order], name)  # type: ignore[union-attr]


@pytest.mark.parametrize("loss", [nt.MixtureLoss(), nt.SigmoidMarginLoss()], ids=repr)
def test_pch_takes_eigenvalues_of_the_mean_of_an_indefinite_b(loss: nt.Loss):
    model, _, x, y = compiled(loss)
    lin = model.linearize(x, y)
    values, vectors = torch.linalg.eigh(output_curvature(loss, lin.outputs, y).mean(0))
    assert values.min() < 0
    for kind, kept in (("pch-1", values.abs()), ("pch-2", values.clamp(min=0))):
        g = lin.kronecker_factors(kind)["2"].G  # type: ignore[union-attr]
        assert_close(g, (vectors * kept) @ vectors.mT, kind)


def test_the_readmes_criterion_is_the_logistic_one():
    ours = on_the_page("logistic")
    (model, _, x, y), (other, *_) = compiled(logistic), compiled(ours)
    assert_close(model.linearize(x, y).gradient, other.linearize(x, y).gradient)


def test_a_fisher_matrix_follows_from_the_losses_alone():
    """That of the cross-entropy, by enumerating classes, is its B."""

    class Derived(nt.CrossEntropyLoss):
        root = "fisher"
        drawn, square_root = nt.Loss.drawn, nt.Loss.square_root

    found = []
    for loss in (nt.CrossEntropyLoss(), Derived()):
        model, _, x, y = compiled(loss)
        lin = model.linearize(x, y)
        v = torch.linspace(-1, 1, model.params.numel(), dtype=F64)
        seeded = torch.Generator().manual_seed(0)
        drawn = lin.kronecker_factors("kfac", 3, seeded)["0"].G  # type: ignore[union-attr]
        found.append((lin.ggnvp(v), lin.kronecker_factors("kflr")["0"].G, drawn))  # type: ignore[union-attr]
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs)


def test_a_loss_written_in_graph_ops():
    model, module, x, _ = compiled(Focal())
    y, v = torch.randint(0, 3, (6,)), torch.randn(model.params.numel(), dtype=F64)
    lin = model.linearize(x, y)

    def focal(z: Tensor, y: Tensor) -> Tensor:
        cost = nn.functional.cross_entropy(z, y, reduction="none")
        return ((1 - torch.exp(-cost)) ** 2 * cost).mean()

    def loss(params: dict[str, Tensor]) -> Tensor:
        return focal(torch.func.functional_call(module, params, x), y)

    params = {n: p.detach() for n, p in module.named_parameters()}
    v_named = {n: t.contiguous() for n, t in model.unflatten(v).items()}
    gradient, hv = torch.func.jvp(torch.func.grad(loss), (params,), (v_named,))
    assert_close(lin.gradient, model.flatten(gradient))
    assert_close(lin.hvp(v), model.flatten(hv))
    each = torch.func.vmap(torch.func.hessian(lambda z, k: focal(z[None], k[None])))
    values, vectors = torch.linalg.eigh(each(lin.outputs, y))
    assert values.min() < 0
    b = (vectors * values.clamp(min=0)[:, None]) @ vectors.mT
    assert_close(lin.kronecker_factors("kflr")["2"].G, b.mean(0))  # type: ignore[union-attr]


def test_a_criterion_with_numbers_for_labels_draws_them():
    """The logistic distribution around z: E[B] = E[(∂ℓ)²] = 1/3."""
    loss = nt.Criterion(
        lambda z, y: softplus(z - y) + softplus(y - z),
        draw=lambda z, u: z + log(u) - log(1.0 - u),
        convex=True,
    )
    model, _, x, _ = compiled(loss)
    lin = model.linearize(x, torch.randn(6, 3, dtype=F64))
    g = lin.kronecker_factors("kfac", 20_000, torch.Generator().manual_seed(0))["2"].G  # type: ignore[union-attr]
    assert (g - torch.eye(3) / 3).abs().max() < 0.01


@pytest.mark.parametrize("loss", [*ROOTED, *INDEFINITE], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("size", [1e4, 1.0, 0.0])
def test_nothing_overflows(loss: nt.Loss, dtype: torch.dtype, size: float):
    net = nt.Linear(3)
    model = nt.compile(net, (3,), loss, dtype=dtype, backend="aten", device="cpu")
    model.load_state_dict({"weight": torch.eye(3), "bias": torch.zeros(3)})
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    x, v = (size * signs).to(dtype), torch.ones_like(model.params)
    y = labels(loss, 8, 3, dtype)
    lin = model.linearize(x, y)
    found = [lin.loss, lin.gradient, lin.hvp(v), lin.quadratic_forms([v])]
    for kind in ("kfac", "kflr", "kfra", "pch-1"):
        if kind in (*lin.programs.kinds, "pch-1") or (kind == "kfra" and loss in ROOTED):
            found.append(lin.kronecker_factors(kind)[""].G)  # type: ignore[union-attr]
    found += [lin.ggnvp(v)] if loss in ROOTED else []
    assert all(torch.isfinite(t).all() for t in found)


def test_a_confident_mixture_keeps_its_digits():
    model = nt.compile(nt.Linear(3), (3,), nt.MixtureLoss(), backend="aten", device="cpu")
    model.load_state_dict({"weight": torch.eye(3), "bias": torch.zeros(3)})
    for size in (20.0, -20.0):
        z = torch.tensor([[size, size, -size]])  # the classifier that is chosen is right or wrong
        expected = torch_loss(nt.MixtureLoss(), z.double(), torch.tensor([1]))
        assert model.loss(z, torch.tensor([1])).item() == pytest.approx(float(expected), rel=1e-5)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", INDEFINITE, ids=repr)
def test_gauss_newton_curvature_of_an_indefinite_b_is_refused_by_name(loss: nt.Loss):
    model, _, x, y = compiled(loss)
    lin, v = model.linearize(x, y), torch.ones_like(model.params)
    calls = {
        "ggn": [
            *(lambda: lin.ggnvp(v), lambda: lin.ggnvp(v, "stored-jacobian")),
            *(lambda: lin.block_ggnvp(v), lambda: lin.quadratic_forms([v], "ggn")),
            lambda: nt.SecondOrder(model, "ggn", "truncated-cg"),
            lambda: nt.SecondOrder(model, "ggn-layers", "steihaug"),
            lambda: nt.SecondOrder(model, "empirical", "kfi", "quadratic"),
            lambda: nt.NewtonCG(model),
        ],
        "kflr": [
            *(lambda: lin.kronecker_factors("kflr"), lambda: nt.KFLR(model)),
            lambda: nt.NewtonCG(model, curvature="hessian", preconditioner="kflr"),
        ],
        "kfra": [lambda: lin.kronecker_factors("kfra"), lambda: nt.KFRA(model)],
    }
    assert set(calls) == set(GAUSS_NEWTON)
    ways_out = "root='clip'.*root='fisher'"
    for kind, refused in calls.items():
        for call in refused:
            with pytest.raises(nt.NewtritonError, match=f"'{kind}' needs.*{ways_out}") as raised:
                call()
            assert repr(loss) in str(raised.value)
    assert torch.isfinite(lin.hvp(v)).all()
    assert "hvp" in model.explain()


@pytest.mark.parametrize("loss", [MARGIN, welsch, Focal()], ids=repr)
def test_without_a_distribution_no_labels_are_drawn(loss: nt.Loss):
    model, _, x, _ = compiled(loss)
    y = torch.randint(0, 3, (6,))
    refused = re.escape(repr(loss)) + " defines no distribution.*'empirical'"
    with pytest.raises(nt.NewtritonError, match=refused):
        model.linearize(x, y).kronecker_factors("kfac")
    with pytest.raises(nt.NewtritonError, match=refused):
        nt.FITRE(model)


class Unknown(Focal):
    root = "fishy"


class Uncounted(Focal):
    """A loss whose labels are numbers of a distribution, from which nothing draws."""

    distribution = True

    def labels(self, z: Node) -> Node:
        return nt.ops.input_("y", z.shape)

    def losses(self, z: Node, y: Node) -> Node:
        return nt.ops.reduce_sum(nt.ops.multiply(z, y), (1,))


class Unsummed(Focal):
    def losses(self, z: Node, y: Node) -> Node:
        return z


LOGISTIC = logistic.function
FAULTS = [
    (lambda: compiled(nt.SigmoidMarginLoss(root="fisher")), "no distribution, hence no Fisher"),
    (lambda: nt.SigmoidMarginLoss(epsilon=None), "epsilon is None"),  # type: ignore[arg-type]
    (lambda: compiled(nt.MixtureLoss("GGN")), "root is 'GGN': 'fisher', 'clip' or None"),
    (lambda: compiled(Unknown()), "root is 'fishy'"),
    (lambda: nt.compile(nt.Linear(2), (3,), nt.MixtureLoss()), "takes 3 outputs, the network has"),
    (lambda: nt.Criterion(LOGISTIC, root="fisher"), "root='fisher' is a sum over the labels"),
    (lambda: nt.Criterion(LOGISTIC, values=(0, 1)), "sums to .* over them at z"),
    (lambda: nt.Criterion(LOGISTIC, values=(-1, 1), draw=lambda z, u: z), "leave out draw"),
    (lambda: compiled(nt.Criterion(LOGISTIC, noise="cauchy")), "noise is 'cauchy'"),
    (lambda: nt.Criterion(lambda z, y: log(z), values=(0,)), "sums to nan over them at z = -3"),
    (lambda: nt.Criterion(3), "function is 3: give one of z and y"),  # type: ignore[arg-type]
    (lambda: compiled(Unsummed()), "gave losses of shape N×3: give one number a sample"),
    (lambda: nt.Criterion(lambda z, y: 1.0), "function gave 1.0"),  # type: ignore[arg-type,return-value]
    (lambda: nt.Criterion(lambda z, y: -log(1 / (1 + exp(-y * z * z * z))), (-1, 1), convex=True),
     "convex is True: ∂²f/∂z² is -"),
    (lambda: compiled(Uncounted())[0].linearize(*batch()).kronecker_factors("kfac"),
     "labels that are numbers"),
]  # fmt: skip


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(6, 4, dtype=F64), torch.rand(6, 3, dtype=F64)


@pytest.mark.parametrize(("call", "message"), FAULTS, ids=[m for _, m in FAULTS])
def test_options_that_do_not_fit_are_refused(call: Any, message: str):
    with pytest.raises(nt.NewtritonError, match=message):
        call()


def test_labels_outside_of_those_there_are():
    model, _, x, y = compiled(logistic)
    with pytest.raises(nt.NewtritonError, match=r"Criterion takes the labels -1, 1, got 0\.5"):
        model.linearize(x, torch.where(y > 0, 0.5, -1.0).to(F64))
    model, _, x, y = compiled(nt.MixtureLoss())
    with pytest.raises(nt.NewtritonError, match=r"label 2 is out of range.*MixtureLoss takes 0…1"):
        model.linearize(x, y + 2 - y)


# --- training ------------------------------------------------------------------------------------

PARTS = [
    *((loss, ("hessian", "steihaug", "trust-region")) for loss in (*INDEFINITE, Focal())),
    *((loss, ("pch-1", "kfi", "trust-region")) for loss in INDEFINITE[:2]),
    *((loss, ("kflr", "kfi", "quadratic")) for loss in (*ROOTED, Focal())),
    *((loss, ("kfac", "eigen", "trust-region")) for loss in (nt.MixtureLoss(), FISHER, logistic)),
    *((loss, ("ggn", "truncated-cg", "levenberg-marquardt")) for loss in (*ROOTED, Focal())),
    (nt.SigmoidMarginLoss(), ("pch-1", "ea-cg", "fixed")),
]


@pytest.mark.parametrize(("loss", "parts"), PARTS, ids=str)
def test_the_loss_falls(loss: nt.Loss, parts: tuple[str, str, str]):
    model, _, x, _ = compiled(loss, 60)
    y = (x.sum(1) > 0).long()
    if isinstance(loss, nt.Criterion):
        y = nn.functional.one_hot(y, 3).to(F64)
        y = 2 * y - 1 if loss is logistic else y
    form = "convex" if "ea-cg" in parts else "additive"
    optimizer = nt.SecondOrder(model, *parts, damping=0.1, form=form)
    first = model.objective(x, y)
    for _ in range(12):
        optimizer.step(x, y)
    assert model.objective(x, y) < 0.9 * first


def test_a_mixture_predicts_the_class_that_is_more_probable():
    model, _, x, _ = compiled(FISHER, 200)
    y = (x[:, 0] * x[:, 1] > 0).long()
    optimizer = nt.KFLR(model, damping=1.0, noise=None)
    for _ in range(60):
        optimizer.step(x, y)
    _, accuracy = nt.evaluate(model, [(x, y)])
    assert accuracy is not None
    assert accuracy > 0.9


BOUNDED = [
    *(nt.CrossEntropyLoss(), nt.MSELoss(), nt.BCEWithLogitsLoss(), nt.SigmoidMarginLoss()),
    *(nt.MixtureLoss("fisher"), logistic, nt.Criterion(welsch.function, root="clip", lowest=0.0)),
]


@pytest.mark.parametrize("loss", BOUNDED, ids=repr)
def test_a_loss_is_never_below_its_bound(loss: nt.Loss):
    assert loss.bound == 0.0
    model, _, x, y = compiled(loss)
    for scale in (0.0, 1.0, 30.0):
        model.params.copy_(scale * torch.randn_like(model.params))
        assert float(model.loss(x, y)) >= loss.bound
    for c in (1e5, 1e-5):
        assert nt.Scaled(loss, c).bound == 0.0


def test_a_bound_is_what_its_author_says():
    assert welsch.bound is None
    assert nt.Scaled(welsch, 2.0).bound is None
    below = nt.Criterion(lambda z, y: (z - y) * (z - y) - 3.0, convex=True, lowest=-3)
    assert below.bound == -3.0
    assert nt.Scaled(below, 1e5).bound == -3e5
    assert nt.Scaled(nt.Scaled(below, 2.0), 0.5).bound == -3.0
    for bad in ("0", math.nan, -math.inf):
        with pytest.raises(nt.NewtritonError, match="lowest is "):
            nt.Criterion(welsch.function, root="clip", lowest=bad)  # type: ignore[arg-type]

"""What a linearization can do where the network has ops or uses of parameters without a rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.derivatives.jvp import JVP
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.errors import MissingRule, NewtritonError
from newtriton.compiler.graph.ir import Node, Op
from newtriton.compiler.language.network import Scope
from newtriton.compiler.values import Hvp
from newtriton.runtime.curvatures.matrix_free import cheaper_product
from tests.networks import Autograd
from tests.tolerances import assert_close

from ..sequences import attentive


class Exponential:
    """exp(p) ⊙ x, p a number per feature: it has no Kronecker factor and no diagonal."""

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns features like those of x."""
        p = scope.parameter("scale", (x.shape[1],), "ones", (1, 1))
        return ops.multiply(x, ops.broadcast(ops.map_(scalar.exp(scalar.var(0)), p), x.shape))


class TorchExponential(nn.Module):
    """The same in PyTorch."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.exp()


def scaled(**options: object) -> tuple[nt.Model, Tensor, Tensor]:
    torch.manual_seed(0)
    net = nt.Sequential(nt.Linear(5), Exponential(), nt.Tanh(), nt.Linear(3))
    model = nt.compile(net, (4,), nt.CrossEntropyLoss(), backend="aten", device="cpu", **options)  # type: ignore[arg-type]
    return model, torch.randn(6, 4, dtype=model.dtype), torch.randint(0, 3, (6,))


def test_a_network_without_factors_has_every_product() -> None:
    model, x, y = scaled(dtype=torch.float64, weight_decay=0.1)
    module = nn.Sequential(nn.Linear(4, 5), TorchExponential(5), nn.Tanh(), nn.Linear(5, 3))
    module = module.double()
    module.load_state_dict(model.state_dict())
    oracle = Autograd(model, module, model.criterion, x, y)
    u, v = torch.randn(2, model.params.numel(), dtype=torch.float64)
    lin = model.linearize(x, y)
    assert lin.model is model
    assert_close(lin.loss, oracle.loss.detach())
    assert_close(lin.gradient, oracle.gradient)
    assert_close(lin.hvp(v), oracle.hvp(v))
    assert_close(lin.ggnvp(v), oracle.ggnvp(v))
    assert_close(lin.quadratic_forms([u, v])[0, 1], u @ oracle.hvp(v))
    assert_close(lin.quadratic_forms([u, v], "ggn")[0, 1], u @ oracle.ggnvp(v))


def test_what_is_no_samples_own_has_no_stored_jacobian() -> None:
    model, x, y = scaled()
    with pytest.raises(NewtritonError, match=r"no sample has a map.*Exponential.*r-operator"):
        model.linearize(x, y).ggnvp(model.params, "stored-jacobian")
    assert cheaper_product(model.programs[True], 100, 100) == "r-operator"


@pytest.mark.parametrize("kind", ["kfac", "empirical", "kflr", "kfra"])
def test_its_factors_are_refused_by_name_when_they_are_asked_for(kind: str) -> None:
    model, x, y = scaled()
    lin = model.linearize(x, y)
    with pytest.raises(MissingRule, match=r"no Kronecker or diagonal rule.*map.*Exponential"):
        lin.kronecker_factors(kind)
    with pytest.raises(MissingRule, match="no Kronecker or diagonal rule"):
        nt.KFAC(model).step(x, y)


def test_its_costs_are_shown_with_what_cannot_be_made() -> None:
    text = scaled()[0].explain()
    assert "hvp" in text and "factors(" not in text
    assert "\nno Kronecker or diagonal rule" in text


def pooled() -> tuple[nt.Model, Tensor, Tensor]:
    torch.manual_seed(0)
    net = nt.Sequential(
        nt.Conv2d(4, 3), nt.SiLU(), nt.AvgPool2d(2), nt.Flatten(), nt.Linear(3)
    )  # fmt: skip
    model = nt.compile(net, (2, 6, 6), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    return model, torch.randn(5, 2, 6, 6), torch.randint(0, 3, (5,))


CALLS: dict[str, Callable[[nt.Linearization, Tensor], object]] = {
    "hvp": lambda lin, v: lin.hvp(v),
    "ggnvp": lambda lin, v: lin.ggnvp(v),
    "forms": lambda lin, v: lin.quadratic_forms([v]),
}


def test_an_op_without_a_rule_is_named_when_its_product_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, y = pooled()
    expected = model.linearize(x, y)
    empirical = expected.kronecker_factors("empirical")
    monkeypatch.delitem(JVP, Op.AVG_POOL)
    model, x, y = pooled()
    lin = model.linearize(x, y)
    for name in ("loss", "outputs", "gradient"):
        assert torch.equal(getattr(lin, name), getattr(expected, name)), name
    for call in CALLS.values():
        for _ in range(2):  # an error is no answer that is kept
            with pytest.raises(MissingRule, match=r"no jvp rule for avg_pool.*AvgPool2d"):
                call(lin, model.params)
    for layer, pair in lin.kronecker_factors("empirical").items():
        assert isinstance(pair, nt.KroneckerFactors)
        assert torch.equal(pair.A, empirical[layer].A)  # type: ignore[union-attr]
        assert torch.equal(pair.G, empirical[layer].G)  # type: ignore[union-attr]


class NoCurvature(nt.Loss):
    """A loss whose B cannot be made: its labels are numbers, which no one can enumerate."""

    distribution, root = True, "fisher"

    def labels(self, z: Node) -> Node:
        """Returns N×K numbers."""
        return ops.input_("y", z.shape)

    def losses(self, z: Node, y: Node) -> Node:
        """Returns Σ_k (z_k − y_k)⁴."""
        difference = ops.map_(scalar.var(0) - scalar.var(1), z, y)
        square = ops.multiply(difference, difference)
        return ops.reduce_sum(ops.multiply(square, square), (1,))


def test_a_loss_without_a_root_of_its_curvature_has_a_hessian() -> None:
    model = nt.compile(nt.Linear(1), (2,), NoCurvature(), backend="aten", dtype=torch.float64)
    x, y = torch.randn(4, 2, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64)
    lin = model.linearize(x, y)
    a = torch.cat([x, torch.ones(4, 1).double()], 1)
    residual = model(x) - y
    assert_close(lin.gradient, (4 * residual**3 * a).mean(0))
    v = torch.randn(3, dtype=torch.float64)
    assert_close(lin.hvp(v), (12 * residual**2 * a * (a @ v)[:, None]).mean(0))
    with pytest.raises(NewtritonError, match="cannot be enumerated"):
        lin.ggnvp(v)


# --- weights at two places -----------------------------------------------------------------------


class Twice:
    """W tanh(W x + b) + b: both parameters are taken at two places."""

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns as many features as x has."""
        width = x.shape[1]
        w, b = (
            scope.parameter(name, shape, "default", (width, width))
            for name, shape in (("weight", (width, width)), ("bias", (width,)))
        )
        inner = ops.map_(scalar.tanh(scalar.var(0)), ops.matmul(x, w, b, tb=True))
        return ops.matmul(inner, w, b, tb=True)


class TorchTwice(nn.Linear):
    """The same in PyTorch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(super().forward(x).tanh())


def shared() -> tuple[nt.Model, Tensor, Tensor]:
    torch.manual_seed(0)
    net = nt.Sequential(nt.Linear(5), Twice(), nt.Tanh(), nt.Linear(3))
    model = nt.compile(
        net, (4,), nt.CrossEntropyLoss(), backend="aten", device="cpu", dtype=torch.float64,
        weight_decay=0.1,
    )  # fmt: skip
    return model, torch.randn(6, 4, dtype=torch.float64), torch.randint(0, 3, (6,))


def test_weights_at_two_places_have_every_product() -> None:
    model, x, y = shared()
    module = nn.Sequential(nn.Linear(4, 5), TorchTwice(5, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    module.load_state_dict(model.state_dict())
    oracle = Autograd(model, module, model.criterion, x, y)
    u, v = torch.randn(2, model.params.numel(), dtype=torch.float64)
    lin = model.linearize(x, y)
    assert_close(lin.loss, oracle.loss.detach())
    assert_close(lin.gradient, oracle.gradient)
    assert_close(lin.hvp(v), oracle.hvp(v))
    assert_close(lin.ggnvp(v), oracle.ggnvp(v))
    for two in (True, False):
        assert_close(lin.quadratic_forms([u, v], two_products=two)[0, 1], u @ oracle.hvp(v))
    assert_close(lin.quadratic_forms([u, v], "ggn")[0, 1], u @ oracle.ggnvp(v))


@pytest.mark.parametrize("kind", ["kfac", "empirical", "kflr", "kfra"])
def test_weights_at_two_places_have_one_pair_of_factors(kind: str) -> None:
    model, x, y = shared()
    assert model.linearize(x, y).kronecker_factors(kind).keys() == {"0", "1", "3"}
    assert nt.KFAC(model).step(x, y).accepted
    assert nt.NewtonCG(model).step(x, y)


def test_a_stored_jacobian_of_weights_at_two_places_is_refused_by_name() -> None:
    model, x, y = shared()
    with pytest.raises(NewtritonError, match=r"parameter 1\.weight is taken at 2.*r-operator"):
        model.linearize(x, y).ggnvp(model.params, "stored-jacobian")
    assert cheaper_product(model.programs[True], 100, 100) == "r-operator"


def test_forms_take_two_products_where_contractions_are_long() -> None:
    """Of 0.8 million operations a sample: a convolution of 16 channels has 1.2, two of three."""
    net = nt.Sequential(nt.Conv2d(16, 3, padding=1), nt.Tanh(), nt.Conv2d(16, 3, padding=1))
    net = nt.Sequential(net, nt.Flatten(), nt.Linear(2))
    model = nt.compile(net, (16, 16, 16), nt.MSELoss(), backend="aten", device="cpu")
    assert [model.two_products(batch) for batch in (1, 4, 64)] == [False, False, True]


# --- blocks of matrices, column by column above a layer ------------------------------------------


def convolutional() -> tuple[nt.Model, Autograd, nt.Linearization]:
    """A network with batch norm by batch statistics, groups, a pool, and its oracle."""
    torch.manual_seed(0)
    net = nt.Sequential(
        *(nt.Conv2d(4, 3, padding=1, groups=2), nt.BatchNorm2d(), nt.SiLU(), nt.MaxPool2d(2)),
        *(nt.Conv2d(2, 2), nt.Sigmoid(), nt.Flatten(), nt.Linear(3), nt.Tanh(), nt.Linear(3)),
    )
    module = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4), nn.SiLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 2, 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(8, 3), nn.Tanh()),
        nn.Linear(3, 3),
    ).double()
    model = nt.compile(
        net, (2, 6, 6), nt.CrossEntropyLoss(), dtype=torch.float64, device="cpu", weight_decay=0.1
    )
    model.load_state_dict(module.state_dict())
    x, y = torch.randn(7, 2, 6, 6, dtype=torch.float64), torch.arange(7) % 3
    oracle = Autograd(model, module.train(), model.criterion, x, y)
    return model, oracle, model.linearize(x, y)


def dense_block(model: nt.Model, product: Callable[[Tensor], Tensor], names: list[str]) -> Tensor:
    """Rows and columns of a matrix of h without its weight decay, by products of the whole."""
    columns = []
    for place in (places := model.layout.places(names)):
        unit = torch.zeros_like(model.params)
        unit[place] = 1.0
        columns.append((product(unit) - model.weight_decay * unit)[places])
    return torch.stack(columns, 1)


@pytest.mark.parametrize("memory", [1 << 24, 20000, 1])
@pytest.mark.parametrize("curvature", ["hessian", "ggn"])
@pytest.mark.parametrize(
    "names",
    [
        ["0.weight", "0.bias"],
        ["1.weight", "1.bias"],
        ["4.weight"],
        ["7.bias"],
        ["7.weight", "1.bias"],
    ],
    ids=" ".join,
)
def test_a_block_is_that_of_the_whole_matrix(names: list[str], curvature: str, memory: int) -> None:
    """In one pass, in chunks of which the last is shorter, column by column, and by autograd."""
    model, oracle, lin = convolutional()
    product = oracle.hvp if curvature == "hessian" else oracle.ggnvp
    expected = dense_block(model, product, names)
    assert_close(lin.block(names, curvature, memory=memory), expected)


@pytest.mark.parametrize(
    "names", [["attend.in.bias"], ["first.weight", "places"], ["up.weight"], ["words.weight"]]
)
def test_a_block_of_a_network_of_attention(names: list[str]) -> None:
    model, x, y = attentive(5)
    lin = model.linearize(x, y)
    assert_close(lin.block(names), dense_block(model, lin.hvp, names))


def test_a_block_needs_nothing_of_the_layers_below() -> None:
    _, _, lin = convolutional()
    program = lin.programs.columns(("7.bias",), "hessian", 3)
    names = {node["name"] for node in program.graph.nodes() if node.op is Op.PARAM}
    assert names == {"9.weight"}
    assert list(program.outputs) == [Hvp("7.bias")]
    convolutions = (Op.CONV, Op.CONV_INPUT_GRAD, Op.CONV_WEIGHT_GRAD)
    assert not [node for node in program.graph.computed() if node.op in convolutions]


def test_a_block_of_no_parameter_is_refused() -> None:
    _, _, lin = convolutional()
    with pytest.raises(NewtritonError, match=r"a parameter is '7\.gain'"):
        lin.block(["7.gain"])
    with pytest.raises(NewtritonError, match="curvature is 'fisher'"):
        lin.block(["7.bias"], "fisher")


Call = Callable[[nt.Linearization], object]
REFUSED: list[tuple[Call, str]] = [
    (lambda lin: lin.block(["weight"], memory=range(3)), "memory is range"),
    (lambda lin: lin.block("weight"), "parameters is 'weight': give a list of names"),
    (lambda lin: lin.block(["weight"] * 2), r"parameters is \('weight', 'weight'\): give some"),
    (lambda lin: lin.block([]), r"parameters is \(\): give some, each of them once"),
    (lambda lin: lin.model.freeze(0), r"names is \(0,\): give a list of names"),
    (lambda lin: lin.kronecker_factors("kfac", generator=3), "generator is 3: give a torch.Gen"),
    (lambda lin: lin.kronecker_factors("kfac", memory=[3]), r"memory is \[3\]: give a dictionary"),
    (lambda lin: lin.kronecker_factors("kfac", layers=["x"]), "layers names 'x': give layers"),
    (lambda lin: lin.kronecker_factors("kfac", means="x"), "means is 'x': give a list of names"),
    (lambda lin: lin.kronecker_factors("kfac", per_sample=1), "per_sample is 1: give True or"),
    (lambda lin: lin.quadratic_forms(3), "vs is 3, no vectors"),
    (lambda lin: lin.quadratic_forms([lin.gradient], two_products=1), "two_products is 1"),
    (lambda lin: lin.data_product(lin.gradient, by_layer=1), "by_layer is 1: give True or"),
    (lambda lin: lin.hvp(lin.gradient.to_sparse()), "v is a tensor with the layout"),
    (lambda lin: lin.hvp(lin.gradient.to("meta")), "v is on meta, the model is on cpu"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_a_call_cannot_use_is_named(call: Call, message: str) -> None:
    model = nt.compile(nt.Linear(2), (3,), nt.MSELoss(), backend="aten", device="cpu")
    lin = model.linearize(torch.ones(4, 3), torch.zeros(4, 2))
    with pytest.raises(nt.NewtritonError, match=message):
        call(lin)


def test_a_vector_that_autograd_has_made_is_its_numbers() -> None:
    net = nt.Sequential(nt.Linear(2), nt.Tanh(), nt.Linear(2))
    model = nt.compile(net, (3,), nt.MSELoss(), backend="aten", device="cpu")
    lin = model.linearize(torch.ones(4, 3), torch.zeros(4, 2))
    v = torch.ones_like(model.params)
    of_autograd = v.clone().requires_grad_() * 1.0
    for call in (lin.hvp, lin.ggnvp, lambda v: lin.data_product(v, by_layer=True)):
        found = call(of_autograd)
        assert torch.equal(found, call(v)) and not found.requires_grad

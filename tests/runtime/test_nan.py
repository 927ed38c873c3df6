"""NaN and infinity come through where PyTorch's operators let them through, on both backends."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.derivatives.jvp import jvp
from newtriton.compiler.derivatives.transpose import vjp
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node
from newtriton.compiler.graph.simplify import simplify
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context
from newtriton.runtime.fused.executor import FusedExecutor
from newtriton.runtime.fused.selection import Selection
from newtriton.runtime.fused.settings import Settings
from newtriton.runtime.inputs import data

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, in the interpreter
BACKENDS = ["aten", "triton"]
NOT_FINITE = [math.nan, math.inf, -math.inf]
CPU = torch.device("cpu")

ACTIVATIONS = {
    "relu": (nt.ReLU(), nn.ReLU()),
    "leaky": (nt.LeakyReLU(0.1), nn.LeakyReLU(0.1)),
    "sigmoid": (nt.Sigmoid(), nn.Sigmoid()),
    "tanh": (nt.Tanh(), nn.Tanh()),
    "silu": (nt.SiLU(), nn.SiLU()),
    "softplus": (nt.Softplus(), nn.Softplus()),
    "softplus 2": (nt.Softplus(2.0), nn.Softplus(2.0)),
    "gelu": (nt.GELU(), nn.GELU()),
    "gelu tanh": (nt.GELU("tanh"), nn.GELU("tanh")),
    "threshold": (nt.Threshold(0.5, 2.0), nn.Threshold(0.5, 2.0)),
    "log sigmoid": (nt.LogSigmoid(), nn.LogSigmoid()),
    "mish": (nt.Mish(), nn.Mish()),
}
POOLS = {
    "max": (nt.MaxPool2d(2), nn.MaxPool2d(2)),
    "max overlapping": (nt.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1)),
    "max dilated": (nt.MaxPool2d(2, 1, dilation=2), nn.MaxPool2d(2, 1, dilation=2)),
    "mean": (nt.AvgPool2d(2), nn.AvgPool2d(2)),
    "mean overlapping": (nt.AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1)),
    "mean inside": (
        nt.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    ),
}


def run(backend: str, outputs: dict[str, Node], feed: dict[Node, Tensor], n: int) -> list[Tensor]:
    """The values of outputs, by one of the backends."""
    graph = Graph("values", simplify(outputs))
    if backend == "aten":
        executor = AtenExecutor(graph)
    else:
        executor = FusedExecutor(
            graph, (), Selection(Settings(contractions="fused", interpreted=True))
        )
    values = executor(Context(n, torch.float32, CPU), feed)
    return [values[node] for node in graph.outputs.values()]


def derivatives(y: Node, x: Node) -> dict[str, Node]:
    """The value, the adjoint of x, and its tangent, for a cotangent and a direction."""
    ct, x_dot = ops.input_("ct", y.shape), ops.input_("x_dot", x.shape)
    x_bar = vjp({y: ct}, [x])[x]
    outputs = {"y": y, "x_bar": x_bar}
    second = jvp([x_bar], {x: x_dot})[x_bar]
    return outputs if second is None else {**outputs, "second": second}


def agree(found: Tensor, expected: Tensor, what: str) -> None:
    torch.testing.assert_close(
        found, expected, rtol=1e-5, atol=1e-6, equal_nan=True, msg=lambda m: f"{what}: {m}"
    )


def elementwise(backend: str, function: scalar.Expr, at: Tensor, ct: Tensor) -> list[Tensor]:
    """Value, derivative times ct, and its derivative times 0.7."""
    x = ops.input_("x", (N,))
    feed = {x: at, ops.input_("ct", (N,)): ct, ops.input_("x_dot", (N,)): torch.full_like(ct, 0.7)}
    return run(backend, derivatives(ops.map_(function, x), x), feed, len(at))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_their_derivatives(name: str, backend: str):
    ours, theirs = ACTIVATIONS[name]
    values = torch.tensor([*NOT_FINITE, -20.0, -2.0, 0.0, 0.5, 20.0])
    if name == "gelu":  # of infinity PyTorch's own says NaN on the CPU and infinity elsewhere
        values = values[~values.isinf()]
    grid = torch.cartesian_prod(values, torch.tensor([*NOT_FINITE, 0.0, 1.5]))
    at, ct = (column.clone().requires_grad_() for column in grid.unbind(1))
    y = theirs(at)
    (x_bar,) = torch.autograd.grad(y, at, ct, create_graph=True)
    found = elementwise(backend, ours.expr, at.detach(), ct.detach())
    agree(found[0], y.detach(), "value")
    agree(found[1], x_bar.detach(), "derivative")
    (second,) = torch.autograd.grad(x_bar, at, torch.full_like(at, 0.7), allow_unused=True)
    ordinary = ~grid.isinf().any(1)  # elsewhere it depends on the order of factors
    if second is not None and len(found) == 3:
        agree(found[2][ordinary], second[ordinary], "second derivative")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", POOLS)
def test_pools_and_their_gradients(name: str, backend: str):
    """Of several NaN in a window one takes the gradient, the same as PyTorch's."""
    ours, theirs = POOLS[name]
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(4, 3, 6, 5, generator=generator)
    odd = torch.tensor(NOT_FINITE)[torch.randint(0, 3, image.shape, generator=generator)]
    image = torch.where(torch.rand(image.shape, generator=generator) < 0.3, odd, image)
    image[3] = -math.inf
    image.requires_grad_()
    y = theirs(image)
    ct = torch.randn(y.shape, generator=generator)
    ct.view(-1)[::7] = math.nan
    (x_bar,) = torch.autograd.grad(y, image, ct)
    x = ops.input_("x", (N, 6, 5, 3))
    node = ours.build(x, None)  # type: ignore[arg-type]
    found = run(
        backend,
        {k: v for k, v in derivatives(node, x).items() if k != "second"},
        {x: nhwc(image), ops.input_("ct", node.shape): nhwc(ct)},
        4,
    )
    agree(found[0], nhwc(y), "value")
    agree(found[1], nhwc(x_bar), "gradient")


def nhwc(x: Tensor) -> Tensor:
    return x.detach().permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize("backend", BACKENDS)
def test_maxima_and_sums_of_rows(backend: str):
    z = torch.randn(9, 5)
    z[0, 2] = z[1, 0] = z[1, 4] = z[2] = math.nan
    z[3, 1], z[4, 1], z[5], z[6, 0], z[6, 1] = math.inf, -math.inf, -math.inf, math.inf, math.nan
    x = ops.input_("x", (N, 5))
    outputs = {"max": ops.row_max(x), "sum": ops.reduce_sum(x, (1,)), "lse": ops.log_sum_exp(x)}
    found = run(backend, outputs, {x: z}, len(z))
    agree(found[0], z.amax(1), "maximum")
    agree(found[1], z.sum(1), "sum")
    agree(found[2], z.logsumexp(1), "logarithm of the sum of exponentials")


x0 = scalar.var(0)
BRANCHES = {  # written in one way or the other, as users do
    "hinge": (scalar.where(1.0 - x0, 1.0 - x0, 0.0), lambda x: (1 - x).clamp(min=0)),
    "hinge turned": (scalar.where(x0 - 1.0, 0.0, 1.0 - x0), lambda x: (1 - x).clamp(min=0)),
    "capped": (scalar.where(2.0 - x0, x0, 2.0), lambda x: x.clamp(max=2)),
    "numbers": (scalar.where(x0, 1.0, 0.0), lambda x: torch.where(x > 0, 1.0, 0 * x)),
    "weighted": (3.0 * scalar.where(x0, x0, 0.0), lambda x: 3 * x.relu()),
    "inside": (scalar.exp(scalar.where(x0, -x0, 0.0)), lambda x: (-x.relu()).exp()),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", BRANCHES)
def test_every_branch_lets_nan_through(name: str, backend: str):
    expr, theirs = BRANCHES[name]
    at = torch.tensor([math.nan, -3.0, 0.0, 0.5, 1.0, 2.5])
    x = ops.input_("x", (N,))
    agree(run(backend, {"y": ops.map_(expr, x)}, {x: at}, 6)[0], theirs(at), "value")


def criteria() -> dict[str, tuple[nt.Loss, nn.Module]]:
    return {
        "ce": (nt.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="none")),
        "mse": (nt.MSELoss(), nn.MSELoss(reduction="none")),
        "bce": (nt.BCEWithLogitsLoss(), nn.BCEWithLogitsLoss(reduction="none")),
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", criteria())
def test_losses_and_their_gradients(name: str, backend: str):
    ours, theirs = criteria()[name]
    logits = torch.randn(10, 4)
    logits[0, 1] = logits[1] = math.nan
    if name != "bce":  # 0·∞ in one of its terms, in PyTorch's in another
        logits[2, 1], logits[3, 0], logits[4, 1:], logits[5] = math.inf, *3 * [-math.inf]
    classes = torch.arange(10) % 4
    y = classes if name == "ce" else nn.functional.one_hot(classes, 4).float()
    logits.requires_grad_()
    losses = theirs(logits, y)
    losses = losses if name == "ce" else losses.sum(1)
    (slopes,) = torch.autograd.grad(losses, logits, torch.ones(10))
    z = ops.input_("z", (N, 4))
    labels = ours.labels(z)
    node = ours.losses(z, labels)
    outputs = {k: v for k, v in derivatives(node, z).items() if k != "second"}
    feed = {z: logits.detach(), labels: y, ops.input_("ct", (N,)): torch.ones(10)}
    found = run(backend, outputs, feed, 10)
    agree(found[0], losses.detach(), "losses")
    agree(found[1], slopes, "gradient")


NETS = {
    "relu": lambda: nt.Sequential(
        *(nt.Conv2d(3, 3, padding=1), nt.BatchNorm2d(), nt.ReLU(), nt.MaxPool2d(2)),
        *(nt.Flatten(), nt.Linear(4), nt.LeakyReLU(), nt.Linear(3)),
    ),
    "mean": lambda: nt.Sequential(
        *(nt.Conv2d(3, 3), nt.Softplus(), nt.AvgPool2d(2), nt.Flatten(), nt.Linear(3)),
    ),
}
LOSSES = {
    "ce": nt.CrossEntropyLoss,
    "mse": nt.MSELoss,
    "bce": nt.BCEWithLogitsLoss,
    "margin": lambda: nt.SigmoidMarginLoss(root="clip"),
    "mixture": lambda: nt.MixtureLoss("fisher"),
    "hinge": lambda: nt.Criterion(lambda z, y: scalar.where(1 - z * y, 1 - z * y, 0.0)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("net", "loss"), [("mean", loss) for loss in LOSSES] + [("relu", "ce")])
def test_a_nan_in_any_parameter_makes_every_loss_nan(net: str, loss: str, backend: str):
    model = nt.compile(NETS[net](), (2, 4, 4), LOSSES[loss](), backend=backend, device="cpu")
    x, y = torch.rand(4, 2, 4, 4), torch.arange(4) % 2
    if loss == "hinge":
        y = nn.functional.one_hot(y, 3) * 2.0 - 1.0
    for name, parameter in model.named_parameters():
        first = (0,) * parameter.ndim
        value = parameter[first].clone()
        parameter[first] = math.nan
        for training in (True, False):
            assert math.isnan(model.objective(x, y, training)), name
        parameter[first] = value
    assert math.isfinite(model.objective(x, y))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_nan_that_is_let_in_is_in_the_outputs_and_the_gradient(
    backend: str, monkeypatch: pytest.MonkeyPatch
):
    """Below the check of inputs: the sample's outputs are NaN, those of others are not."""
    monkeypatch.setattr(data, "check_inputs", lambda traced, x, *_: ({"x": x}, []))
    model = nt.compile(NETS["relu"](), (2, 4, 4), LOSSES["ce"](), backend=backend, device="cpu")
    x, y = torch.rand(3, 2, 4, 4), torch.arange(3)
    x[1] = math.nan
    assert model(x).isnan().all(1).tolist() == [False, True, False]
    loss, gradient, _ = model.gradient(x, y)
    assert math.isnan(loss) and gradient.isnan().any()

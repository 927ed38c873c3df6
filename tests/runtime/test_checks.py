"""Bad input: one clear error that names the value and the way out, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.errors import NewtritonError, ShapeError


def net() -> nt.Sequential:
    return nt.Sequential(
        nt.Conv2d(4, 3), nt.BatchNorm2d(), nt.SiLU(), nt.MaxPool2d(2), nt.Flatten(), nt.Linear(3)
    )


@pytest.fixture
def model() -> nt.Model:
    return nt.compile(net(), (2, 6, 6), nt.CrossEntropyLoss(), seed=1)


X, Y = torch.randn(4, 2, 6, 6), torch.tensor([0, 1, 2, 0])


def spoilt(x: Tensor) -> Tensor:
    x = x.clone()
    x[1, 0, 0, 0] = float("nan")
    return x


BATCHES: dict[str, tuple[object, object, str]] = {
    "shape": (X[:, :1], Y, r"inputs are 4×1×6×6: the network was compiled for N×2×6×6"),
    "rank": (X.flatten(1), Y, r"inputs are 4×72"),
    "dtype": (X.double(), Y, r"inputs are torch.float64, the model computes in torch.float32"),
    "type": (X.numpy(), Y, r"inputs are ndarray: give a torch.Tensor"),
    "empty": (X[:0], Y[:0], r"the batch is empty"),
    "nan": (spoilt(X), Y, r"NaN or infinite values in 1 of 4 samples"),
    "device": (X.to("meta"), Y, r"inputs are on meta, the model is on cpu"),
    "label": (X, Y + 1, r"label 3 is out of range: the network has 3 outputs"),
    "negative label": (X, Y - 1, r"label -1 is out of range"),
    "label dtype": (X, Y.int(), r"CrossEntropyLoss takes int64 classes .* got torch.int32"),
    "label shape": (X, Y[:, None], r"int64 classes of shape \(4,\)"),
    "label count": (X, Y[:3], r"4 inputs but labels of shape \(3,\)"),
    "label type": (X, [0, 1, 2, 0], r"labels are list"),
}


@pytest.mark.parametrize("name", sorted(BATCHES))
def test_batches_are_checked_before_anything_changes(model: nt.Model, name: str) -> None:
    x, y, message = BATCHES[name]
    optimizer = nt.FITRE(model)
    before, state = model.state_dict(), optimizer.state_dict()
    calls: list[Callable[..., object]] = [
        model.linearize, model.loss, model.gradient, optimizer.step,
        nt.TorchOptimizer(model, torch.optim.SGD, lr=0.1).step,
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(NewtritonError, match=message):
            call(x, y)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key]), key
    assert optimizer.rule.state_dict() == state["rule"]
    assert optimizer.curvature.updates == 0


def test_targets_are_checked() -> None:
    model = nt.compile(nt.Linear(3), (4,), nt.MSELoss())
    x = torch.randn(5, 4)
    with pytest.raises(ShapeError, match=r"MSELoss takes labels of shape \(5, 3\), got \(5, 2\)"):
        model.linearize(x, torch.rand(5, 2))
    with pytest.raises(
        NewtritonError, match=r"torch.float32 \(or int64 classes\), got torch.float64"
    ):
        model.linearize(x, torch.rand(5, 3).double())
    with pytest.raises(NewtritonError, match="labels have NaN"):
        model.linearize(x, torch.full((5, 3), float("nan")))


def test_classes_become_rows_where_the_loss_wants_rows() -> None:
    model = nt.compile(nt.Linear(3), (4,), nt.MSELoss(), dtype=torch.float64)
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
    rows = torch.eye(3, dtype=torch.float64)[y]
    assert torch.equal(model.linearize(x, y).gradient, model.linearize(x, rows).gradient)


def test_one_value_per_channel_has_no_variance() -> None:
    net = nt.Sequential(nt.Conv2d(2, 3), nt.BatchNorm2d(), nt.Flatten(), nt.Linear(2))
    model = nt.compile(net, (1, 3, 3), nt.CrossEntropyLoss())
    with pytest.raises(NewtritonError, match="give at least 2 samples"):
        model.linearize(torch.randn(1, 1, 3, 3), torch.tensor([0]))
    assert model(torch.randn(1, 1, 3, 3)).shape == (1, 2)


SHAPES: dict[str, tuple[nt.Sequential, tuple[int, ...], str]] = {
    "flatten": (
        nt.Sequential(*[nt.ReLU() for _ in range(7)], nt.Linear(10)),
        (64, 2, 2),
        r"Linear\(10\) at layer 7 got a 64×2×2 image: add Flatten\(\) before it",
    ),
    "image": (nt.Sequential(nt.Conv2d(4, 3)), (7,), r"at layer 0 got 7 features: it needs a C×H×W"),
    "window": (
        nt.Sequential(nt.Conv2d(4, 5)),
        (1, 3, 3),
        r"a 5×5 window .* does not fit a 3×3 image",
    ),
    "groups": (nt.Sequential(nt.Conv2d(4, 3, groups=2)), (3, 8, 8), "3 input channels"),
    "nested": (
        nt.Sequential(nt.Sequential(nt.ReLU(), nt.Sequential(nt.Linear(3)))),
        (2, 4, 4),
        r"at layer 0\.1\.0 got a 2×4×4 image",
    ),
    "residual": (
        nt.Sequential(nt.Residual(nt.Conv2d(5, 3, padding=1)), nt.Flatten(), nt.Linear(2)),
        (3, 4, 4),
        r"at layer 0 got .*3×4×4 image.*5×4×4 image",
    ),
    "outputs": (nt.Sequential(nt.Conv2d(2, 3)), (1, 6, 6), r"add Flatten\(\)"),
    "padding": (
        nt.Sequential(nt.MaxPool2d(2, padding=2)),
        (1, 6, 6),
        "more than half of the window",
    ),
}


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_shapes_are_checked_when_the_network_is_built(name: str) -> None:
    layers, shape, message = SHAPES[name]
    with pytest.raises(ShapeError, match=message):
        nt.compile(layers, shape, nt.CrossEntropyLoss())


def test_a_layer_stands_once() -> None:
    layer = nt.Linear(4)
    with pytest.raises(NewtritonError, match="stands at 0 and at 1: make a second one"):
        nt.compile(nt.Sequential(layer, layer), (4,), nt.MSELoss())


def test_layers_of_other_libraries_are_named() -> None:
    with pytest.raises(NewtritonError, match=r"layer 0 is Linear\(in_features=2"):
        nt.compile(nt.Sequential(torch.nn.Linear(2, 2)), (2,), nt.MSELoss())  # type: ignore[arg-type]


OPTIONS: dict[str, tuple[Callable[[], object], str]] = {
    "loss": (lambda: nt.compile(net(), (2, 6, 6), "ce"), "loss is 'ce'"),  # type: ignore[arg-type]
    "backend": (lambda: compiled(backend="cuda"), "backend is 'cuda': one of 'auto', 'aten'"),
    "triton": (lambda: compiled(backend="triton"), "use backend='aten'"),
    "precision": (lambda: compiled(precision="fp8"), "precision is 'fp8'"),
    "bf16": (lambda: compiled(precision="bf16"), "needs the triton backend"),
    "dtype": (lambda: compiled(dtype=torch.float16), "dtype is torch.float16"),
    "device": (lambda: compiled(device="warp"), "device 'warp'"),
    "decay": (lambda: compiled(weight_decay=-1.0), "weight_decay is -1.0"),
    "shape": (lambda: nt.compile(net(), (6, 6), nt.CrossEntropyLoss()), r"input_shape is \(6, 6\)"),
    "init": (lambda: nt.Linear(3, init="he"), "init is 'he': one of default, kaiming, xavier"),
    "kernel": (lambda: nt.Conv2d(3, 0), "kernel_size is 0"),
    "same": (lambda: nt.Conv2d(3, 2, padding="same"), "padding is 'same'"),
    "channels": (lambda: nt.Conv2d(0, 3), "out_channels is 0"),
    "eps": (lambda: nt.BatchNorm2d(eps=0.0), "eps is 0.0"),
    "no parameters": (
        lambda: nt.compile(nt.Sequential(nt.ReLU()), (3,), nt.MSELoss()),
        "there is nothing to train",
    ),
    "case": (lambda: nt.FITRE(compiled(), case="newton"), "case is 'newton': one of"),
    "damping": (lambda: nt.FITRE(compiled(), damping=-1.0), "damping is -1.0"),
    "radius": (lambda: nt.FITRE(compiled(), max_radius=0.0), "give 0 < min ≤ initial ≤ max"),
    "torch": (
        lambda: nt.TorchOptimizer(compiled(), torch.optim.SGD, rate=1.0),
        r"torch\.optim\.SGD refuses",
    ),
}


def compiled(**options: object) -> nt.Model:
    return nt.compile(net(), (2, 6, 6), nt.CrossEntropyLoss(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_unknown_options_are_named(name: str) -> None:
    call, message = OPTIONS[name]
    with pytest.raises(NewtritonError, match=message):
        call()


def test_a_state_that_does_not_fit_changes_nothing(model: nt.Model) -> None:
    before = model.state_dict()
    state = {name: torch.zeros_like(t) for name, t in before.items()}
    del state["0.bias"]
    state["7.weight"] = torch.zeros(2)
    state["5.weight"] = torch.zeros(3, 9)
    state["1.running_mean"] = torch.full((4,), float("nan"))
    with pytest.raises(NewtritonError) as caught:
        model.load_state_dict(state)
    for fault in (
        "missing 0.bias",
        "unexpected 7.weight",
        "5.weight has shape (3, 9)",
        "1.running_mean has values",
    ):
        assert fault in str(caught.value)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_vectors_are_checked(model: nt.Model) -> None:
    lin = model.linearize(X, Y)
    v = torch.zeros_like(model.params)
    for call in (lin.hvp, lin.ggnvp, lambda u: lin.quadratic_forms([u])):
        with pytest.raises(NewtritonError, match=rf"flat vector of {len(v)} elements"):
            call(v[:-1])
        with pytest.raises(NewtritonError, match=r"v is torch\.float64"):
            call(v.double())
    with pytest.raises(NewtritonError, match="no vectors"):
        lin.quadratic_forms([])
    with pytest.raises(NewtritonError, match="curvature is 'fisher'"):
        lin.quadratic_forms([v], "fisher")
    with pytest.raises(NewtritonError, match=r"missing 0\.weight"):
        model.flatten({})


def test_a_linearization_knows_that_the_parameters_have_changed(model: nt.Model) -> None:
    lin = model.linearize(X, Y)
    v = torch.zeros_like(model.params)
    next(model.parameters()).add_(1.0)
    for call in (lambda: lin.hvp(v), lambda: lin.kronecker_factors("kfac")):
        with pytest.raises(NewtritonError, match="linearize again"):
            call()

"""Good calls of what describes a network, compiles it, and calls it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import torch
from torch import nn

import newtriton as nt
from newtriton.compiler.language.trees import mapped

from .calls import Call, Maker

SAMPLES = 3
# A vector may have any numbers: those of products follow from them.
NUMBERS = frozenset({("", "nan in it"), ("", "inf in it"), ("", "-inf in it")})
DESCRIBING: dict[str, Maker] = {}


def _batch(shape: tuple[int, ...], kind: str = "float") -> torch.Tensor:
    """Returns a batch, always the same."""
    generator = torch.Generator().manual_seed(1)
    if kind == "int":
        return torch.randint(0, 5, (SAMPLES, *shape), generator=generator)
    return torch.randn(SAMPLES, *shape, generator=generator)


# --- layers ---------------------------------------------------------------------------------------


def _with_layer(shape: tuple[int, ...], kind: str) -> Callable[[Any], Any]:
    """Returns what makes use of a layer: a network with it is compiled and run."""

    def use(layer: Any) -> Any:
        net = nt.Sequential(layer, nt.Flatten(), nt.Linear(2))
        spec = nt.InputSpec(shape, kind)
        model = nt.compile(net, spec, nt.MSELoss(), backend="aten", device="cpu")
        x = _batch(shape, kind)
        model.gradient(x, torch.zeros(SAMPLES, 2))
        return [repr(layer), model(x)]

    return use


def _layer(name: str, shape: tuple[int, ...], *args: Any, kind: str = "float", **options: Any):
    """Registers a layer with the shape of a sample that it takes."""
    taken = frozenset({("", "a float"), ("scale_factor", "a fraction")})
    call = Call(getattr(nt, name), args, options, _with_layer(shape, kind), taken=taken)
    DESCRIBING[name] = lambda rng: call


FEATURES, SEQUENCE, IMAGE = (6,), (4, 6), (4, 6, 6)

for _name in [
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Tanh",
    "Tanhshrink",
    "LogSigmoid",
    "Mish",
    "SELU",
    "Softsign",
    "Hardsigmoid",
    "Hardswish",
    "Identity",
]:
    _layer(_name, FEATURES)
_layer("CELU", FEATURES, alpha=0.5)
_layer("ELU", FEATURES, alpha=0.5)
_layer("GELU", FEATURES, approximate="tanh")
_layer("GLU", FEATURES, dim=-1)
_layer("Hardshrink", FEATURES, lambd=0.3)
_layer("Hardtanh", FEATURES, min_val=-0.5, max_val=0.5)
_layer("LeakyReLU", FEATURES, negative_slope=0.1)
_layer("PReLU", FEATURES, num_parameters=6, init=0.3)
_layer("Softplus", FEATURES, beta=2.0, threshold=15.0)
_layer("Softshrink", FEATURES, lambd=0.3)
_layer("Threshold", FEATURES, 0.1, 2.0)
_layer("Softmax", FEATURES, 1)
_layer("LogSoftmax", FEATURES, 1)
_layer("SelfAttention", SEQUENCE, 6, 2, dropout=0.1, bias=True, causal=True)
_layer("Linear", FEATURES, 6, 5, bias=True, init="xavier")
_layer("Embedding", (4,), 7, 3, padding_idx=1, kind="int")
_layer("Conv1d", SEQUENCE, 4, 2, 3, stride=1, padding=1, dilation=1, groups=2, padding_mode="zeros")
_layer(
    "Conv2d", IMAGE, 4, 2, (3, 3), stride=1, padding=(1, 1), dilation=1, groups=2, init="kaiming"
)
_layer("ConvTranspose1d", SEQUENCE, 4, 2, 3, stride=2, padding=1, output_padding=1, groups=2)
_layer("ConvTranspose2d", IMAGE, 4, 2, (3, 3), stride=2, padding=1, output_padding=1, dilation=1)
_layer("BatchNorm1d", SEQUENCE, 4, eps=1e-4, momentum=0.2, affine=True)
_layer("BatchNorm2d", IMAGE, 4, eps=1e-4, momentum=0.2, affine=True)
_layer("InstanceNorm1d", SEQUENCE, 4, eps=1e-4, affine=True)
_layer("InstanceNorm2d", IMAGE, 4, eps=1e-4, affine=True)
_layer("GroupNorm", IMAGE, 2, 4, eps=1e-4, affine=True)
_layer("LayerNorm", SEQUENCE, (4, 6), eps=1e-4, elementwise_affine=True, bias=True)
_layer("RMSNorm", SEQUENCE, (6,), eps=1e-4, elementwise_affine=True)
for _dim, _shape in ((1, SEQUENCE), (2, IMAGE)):
    _sides = (1,) * (2 * _dim)
    for _pad in ("Circular", "Reflection", "Replication", "Zero"):
        _layer(f"{_pad}Pad{_dim}d", _shape, _sides)
    _layer(f"ConstantPad{_dim}d", _shape, _sides, 0.5)
    _layer(f"AdaptiveAvgPool{_dim}d", _shape, 2)
    _layer(f"AdaptiveMaxPool{_dim}d", _shape, (2,) * _dim)
    _layer(f"AvgPool{_dim}d", _shape, 2, 2, 1, ceil_mode=True, count_include_pad=False)
    _layer(f"MaxPool{_dim}d", _shape, 2, 2, 1, dilation=1, ceil_mode=True)
_layer("Dropout", FEATURES, p=0.3)
_layer("Dropout1d", SEQUENCE, p=0.3)
_layer("Dropout2d", IMAGE, p=0.3)
_layer("Flatten", IMAGE, start_dim=1, end_dim=2)
_layer("Unflatten", FEATURES, 1, (2, 3))
_layer("Permute", SEQUENCE, (0, 2, 1))
_layer("Upsample", IMAGE, scale_factor=2.0, mode="bilinear", align_corners=False)


def _containers(name: str, *branches: Callable[[], Any], **options: Any) -> None:
    """Registers a layer made of layers."""

    def make(rng: Random) -> Call:
        layers = tuple(branch() for branch in branches)
        return Call(getattr(nt, name), layers, options, _with_layer(FEATURES, "float"))

    DESCRIBING[name] = make


_containers("Sequential", lambda: nt.Linear(4), nt.Tanh, lambda: nt.Linear(3))
_containers("Add", lambda: nt.Linear(3), lambda: nt.Linear(3))
_containers("Concat", lambda: nt.Linear(3), nt.Identity, dim=1)
_containers("Residual", lambda: nt.Linear(3), lambda: nt.Linear(3, bias=False))


def _freezing(rng: Random) -> Call:
    layer = nt.Linear(3)
    return Call(layer.freeze, use=repr, state=lambda: repr(layer), pure=False)


DESCRIBING["Described.freeze"] = _freezing


# --- losses ---------------------------------------------------------------------------------------


def _with_loss(outputs: int, labels: torch.Tensor) -> Callable[[Any], Any]:
    """Returns what makes use of a loss: a model with it is linearized."""

    def use(loss: Any) -> Any:
        model = nt.compile(nt.Linear(outputs), FEATURES, loss, backend="aten", device="cpu")
        lin = model.linearize(_batch(FEATURES), labels)
        return [repr(loss), lin.objective, lin.gradient]

    return use


def _loss(name: str, outputs: int, labels: torch.Tensor, *args: Any, **options: Any) -> None:
    """Registers a loss with labels that it takes."""
    call = Call(getattr(nt, name), args, options, _with_loss(outputs, labels))
    DESCRIBING[name] = lambda rng: call


CLASSES = torch.tensor([0, 2, 1])
_loss("CrossEntropyLoss", 3, CLASSES, (1.0, 2.0, 0.5), ignore_index=-1, label_smoothing=0.1)
_loss("MSELoss", 3, torch.zeros(3, 3))
_loss("BCEWithLogitsLoss", 3, torch.ones(3, 3), pos_weight=(1.0, 2.0, 3.0))
_loss("SigmoidMarginLoss", 3, CLASSES, delta=4.0, epsilon=0.3, root="clip")
_loss("MixtureLoss", 3, torch.tensor([0, 1, 1]), root="fisher")
_loss("Scaled", 3, CLASSES, nt.CrossEntropyLoss(), 2.0)
_loss(
    "Criterion", 2, torch.ones(3, 2), lambda z, y: nt.scalar.softplus(-z * y), (-1.0, 1.0),
    convex=True, root=None, lowest=0.0,
)  # fmt: skip

# --- networks of papers ---------------------------------------------------------------------------

for _name in ("vgg11", "vgg16", "vgg19"):
    DESCRIBING[f"models.{_name}"] = lambda rng, name=_name: Call(
        getattr(nt.models, name), (4,), {"batch_norm": True, "init": "xavier"}, repr
    )
for _name in ("cnn3", "cnn5", "small_cnn"):
    DESCRIBING[f"models.{_name}"] = lambda rng, name=_name: Call(
        getattr(nt.models, name), (4,), {"init": "xavier"}, repr
    )
DESCRIBING["models.autoencoder"] = lambda rng: Call(
    nt.models.autoencoder, (6, "sparse"), {"hidden": (5, 4)}, repr
)
DESCRIBING["models.mlp"] = lambda rng: Call(nt.models.mlp, ((5, 4), 3), {"init": "xavier"}, repr)


# --- what is compiled -----------------------------------------------------------------------------


class _Pair:
    """A layer of a user's own that takes two inputs."""

    def build(self, x: Any, scope: Any) -> Any:
        first, second = x.values() if isinstance(x, dict) else x
        return nt.ops.add(
            scope.build("a", nt.Linear(3), first), scope.build("b", nt.Linear(3), second)
        )


def _plain() -> Any:
    return nt.Sequential(nt.Linear(4), nt.BatchNorm1d(), nt.Tanh(), nt.Dropout(0.2), nt.Linear(3))


def _images() -> Any:
    return nt.Sequential(nt.Conv2d(2, 3), nt.BatchNorm2d(), nt.ReLU(), nt.Flatten(), nt.Linear(3))


def _numbers() -> Any:
    return nt.Sequential(nt.Embedding(5, 3), nt.Flatten(), nt.Linear(3))


# Each: the network, what it takes, its loss, a batch, labels.
NETWORKS: dict[str, Callable[[], tuple[Any, Any, Any, Any, Any]]] = {
    "features": lambda: (_plain(), (6,), nt.CrossEntropyLoss(), _batch((6,)), CLASSES),
    "image": lambda: (_images(), (1, 4, 4), nt.CrossEntropyLoss(), _batch((1, 4, 4)), CLASSES),
    "tokens": lambda: (
        _numbers(), nt.InputSpec((4,), "int"), nt.CrossEntropyLoss(label_smoothing=0.1),
        _batch((4,), "int"), CLASSES,
    ),
    "one output": lambda: (
        nt.Linear(1), (6,), nt.BCEWithLogitsLoss(), _batch((6,)), torch.tensor([0, 1, 1])
    ),
    "regression": lambda: (
        nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(2)), (6,), nt.MSELoss(), _batch((6,)),
        _batch((2,)),
    ),
    "pair": lambda: (
        _Pair(), ((6,), nt.InputSpec((4,))), nt.CrossEntropyLoss(), (_batch((6,)), _batch((4,))),
        CLASSES,
    ),
    "named": lambda: (
        _Pair(), {"left": (6,), "right": (4,)}, nt.MSELoss(),
        {"left": _batch((6,)), "right": _batch((4,))}, CLASSES,
    ),
}  # fmt: skip


def _model(rng: Random, backend: str) -> tuple[nt.Model, Any, Any]:
    """Returns a model with a batch and labels."""
    decay = rng.choice([0.0, 0.01])
    if backend == "aten" and rng.random() < 0.1:
        module, x, output = MODULES[rng.choice([*MODULES])]()
        loss = nt.CrossEntropyLoss()
        return nt.from_torch(module, x, loss, output=output, weight_decay=decay), x, CLASSES
    net, specs, loss, x, y = NETWORKS[rng.choice([*NETWORKS])]()
    where = {"backend": backend, "device": "cpu"}
    return nt.compile(net, specs, loss, **where, weight_decay=decay), x, y


def _chain() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3))


class _Fork(nn.Module):
    """A module with two inputs, weights at two places, a frozen parameter and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 3), nn.Linear(6, 3)
        self.second.weight = self.first.weight
        self.second.bias.requires_grad_(False)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": self.first(left) + self.second(right), "b": left}


# Each: a module, an example of its input, the output that counts.
MODULES: dict[str, Callable[[], tuple[nn.Module, Any, Any]]] = {
    "chain": lambda: (_chain(), _batch((6,)), None),
    "fork": lambda: (_Fork(), (_batch((6,)), _batch((6,)) + 1.0), "a"),
    "named": lambda: (_Fork(), {"right": _batch((6,)), "left": _batch((6,)) + 1.0}, "a"),
}


def _compiling(rng: Random) -> Call:
    net, specs, loss, x, y = NETWORKS[rng.choice([*NETWORKS])]()

    def use(model: Any) -> Any:
        return [model.loss(x, y), model.params]

    options = {
        "backend": "aten", "device": "cpu", "dtype": torch.float32, "precision": "ieee",
        "contractions": "auto", "cuda_graphs": True, "weight_decay": 0.01, "seed": 3,
    }  # fmt: skip
    return Call(nt.compile, (net, specs, loss), options, use)


def _capturing(rng: Random) -> Call:
    torch.manual_seed(0)
    module, x, output = MODULES[rng.choice([*MODULES])]()

    def use(model: Any) -> Any:
        return [model.loss(mapped(lambda part: part.to(model.dtype), x), CLASSES), model.params]

    options = {"output": output, "backend": "aten", "device": "cpu", "weight_decay": 0.01}
    options["dtype"] = rng.choice([torch.float32, torch.float64])
    args = (module, x, nt.CrossEntropyLoss())
    return Call(nt.from_torch, args, options, use, lambda: module_state(module), False)


DESCRIBING["compile"] = _compiling
DESCRIBING["from_torch"] = _capturing
DESCRIBING["InputSpec"] = lambda rng: Call(nt.InputSpec, ((4, 6), "float"), {}, repr)
DESCRIBING["InputSpec.of"] = lambda rng: Call(
    nt.InputSpec.of, (_batch((4,)),), {}, repr, taken=NUMBERS | {("x", "on meta")}
)


# The same calls on fused kernels, in the interpreter.
FUSED: dict[str, Maker] = {}


def _register(name: str, make: Callable[[Random, str], Call]) -> None:
    """Registers a call on both backends."""
    DESCRIBING[name] = partial(make, backend="aten")
    FUSED[name] = partial(make, backend="triton")


# --- calls of a model -----------------------------------------------------------------------------


def state_of(model: nt.Model) -> Any:
    """Returns all that a model has of its own."""
    held = [model.params, model.buffers, sorted(model.frozen), model.weight_decay]
    module = getattr(model, "module", None)
    return [*held, model.dropout.state_dict(), None if module is None else module_state(module)]


def module_state(module: nn.Module) -> Any:
    """Returns all that a module has of its own."""
    held = module.state_dict(keep_vars=True)
    modes = [part.training for part in module.modules()]
    return [dict(held), {name: id(x) for name, x in held.items()}, modes]


def _of_model(
    name: str,
    arguments: Callable[[nt.Model, Any, Any, Random], tuple[Any, ...]],
    use: Callable[[Any], Any] = lambda found: found,
    pure: bool = True,
    taken: frozenset[tuple[str, str]] = frozenset(),
    **options: Any,
) -> None:
    """Registers a method of `Model`."""

    def make(rng: Random, backend: str = "aten") -> Call:
        model, x, y = _model(rng, backend)
        call, args = getattr(model, name), arguments(model, x, y, rng)
        return Call(call, args, options, use, lambda: state_of(model), pure, taken)

    _register(f"Model.{name}", make)


def _state(model: nt.Model, x: Any, y: Any, rng: Random) -> tuple[Any, ...]:
    return ({name: values + 0 for name, values in model.state_dict().items()},)


def _parts(model: nt.Model, x: Any, y: Any, rng: Random) -> tuple[Any, ...]:
    return ({name: p.detach().clone() for name, p in _plain_parameters(model).items()},)


def _plain_parameters(model: nt.Model) -> dict[str, torch.Tensor]:
    named = {name for name, _ in model.named_parameters()}
    return {name: values for name, values in model.state_dict().items() if name in named}


_of_model("__call__", lambda m, x, y, rng: (x,))
_of_model("classes", lambda m, x, y, rng: (x,))
_of_model("loss", lambda m, x, y, rng: (x, y))
_of_model("objective", lambda m, x, y, rng: (x, y), training=False)
_of_model("gradient", lambda m, x, y, rng: (x, y), list, pure=False)
_of_model(
    "linearize", lambda m, x, y, rng: (x, y), lambda lin: [lin.objective, lin.gradient],
    pure=False, taken=frozenset({("ahead", "")}), training=True,
)  # fmt: skip
_of_model("flatten", _parts)
_of_model(
    "unflatten", lambda m, x, y, rng: (m.params.clone(),), taken=NUMBERS | {("vector", "on meta")}
)
_of_model("load_state_dict", _state, pure=False)
_of_model("state_dict", lambda m, x, y, rng: ())
_of_model("named_parameters", lambda m, x, y, rng: (), lambda found: [n for n, _ in found])
_of_model("parameters", lambda m, x, y, rng: (), lambda found: len(list(found)))
_of_model("explain", lambda m, x, y, rng: (8,), kernels=False)
_of_model(
    "freeze", lambda m, x, y, rng: (next(n for n, _ in m.named_parameters()),), pure=False,
    frozen=True,
)  # fmt: skip


# --- calls of a linearization ---------------------------------------------------------------------


def _of_linearization(
    name: str,
    arguments: Callable[[nt.Model], tuple[Any, ...]],
    use: Callable[[Any], Any] = lambda found: found,
    options: Callable[[nt.Model], dict[str, Any]] = lambda model: {},
) -> None:
    """Registers a method of `Linearization`."""

    def make(rng: Random, backend: str = "aten") -> Call:
        model, x, y = _model(rng, backend)
        lin = model.linearize(x, y, training=False)
        named = options(model)

        def held() -> Any:
            drawn = [g.get_state() for g in named.values() if isinstance(g, torch.Generator)]
            return [*state_of(model), lin.gradient, lin.outputs, drawn]

        pure = "generator" not in named
        return Call(getattr(lin, name), arguments(model), named, use, held, pure, NUMBERS)

    _register(f"Linearization.{name}", make)


def _direction(model: nt.Model) -> torch.Tensor:
    return torch.linspace(-1.0, 1.0, model.params.numel(), dtype=model.dtype)


def _first(model: nt.Model) -> str:
    return next(name for name, _ in model.named_parameters())


def _layers(model: nt.Model) -> list[str]:
    return [_first(model).rpartition(".")[0]]


def _tensors(found: Any) -> Any:
    return {name: factors.tensors for name, factors in found.items()}


_of_linearization("hvp", lambda m: (_direction(m),))
_of_linearization("ggnvp", lambda m: (_direction(m), "stored-jacobian"))
_of_linearization("block_ggnvp", lambda m: (_direction(m),))
_of_linearization(
    "data_product", lambda m: (_direction(m), "ggn", "r-operator"),
    options=lambda m: {"by_layer": True},
)  # fmt: skip
_of_linearization("block", lambda m: ([_first(m)], "ggn"), options=lambda m: {"memory": 1 << 20})
_of_linearization(
    "quadratic_forms", lambda m: ([_direction(m), m.params.clone()], "ggn"),
    options=lambda m: {"two_products": True},
)  # fmt: skip
_of_linearization(
    "kronecker_factors", lambda m: ("kfac", 2),
    _tensors,
    lambda m: {
        "generator": torch.Generator().manual_seed(3), "means": _layers(m), "layers": _layers(m),
        "per_sample": False, "memory": None, "sharing": "expand", "max_factor": 100,
        "max_copies": 50, "pos_eig": None,
    },
)  # fmt: skip

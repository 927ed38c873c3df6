"""Networks in both forms, and what their factors are by dense constructions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.language.loss import Loss
from newtriton.compiler.language.network import Layer
from tests.networks import Pair, conv, labels, logistic, torch_loss
from tests.tolerances import assert_close

CRITERIA: list[Loss] = [
    *(nt.CrossEntropyLoss(), nt.MSELoss(), nt.BCEWithLogitsLoss()),
    *(nt.MixtureLoss("fisher"), logistic),
]
losses = pytest.mark.parametrize("criterion", CRITERIA, ids=repr)


def compiled(pair: Pair, criterion: Loss, batch: int) -> tuple[nt.Model, nn.Module, Tensor, Tensor]:
    """Both forms with the same random state, batch norm's included, and a batch."""
    model = nt.compile(pair.ours, pair.shape, criterion, dtype=torch.float64)
    state = {
        name: t if t.dtype == torch.int64 else (torch.rand_like(t) + 0.5 if t.ndim == 1 else t)
        for name, t in model.state_dict().items()
    }
    model.load_state_dict(state)
    module = pair.theirs.double()
    module.load_state_dict(state)
    x = torch.randn(batch, *pair.shape, dtype=torch.float64)
    return model, module, x, labels(criterion, batch, pair.outputs, torch.float64)


Seen = dict[str, tuple[Tensor, Tensor]]


def observe(module: nn.Module, criterion: Loss, x: Tensor, y: Tensor) -> Seen:
    """Inputs a and N·∂h/∂s of each layer with parameters: g of the per-sample losses."""
    seen: Seen = {}
    hooks = []
    for name, layer in module.named_modules():
        if next(layer.parameters(recurse=False), None) is not None:

            def keep(_: nn.Module, inputs: Any, output: Tensor, name: str = name) -> None:
                seen[name] = (inputs[0].detach(), output)

            hooks.append(layer.register_forward_hook(keep))
    loss = torch_loss(criterion, module(x), y)
    grads = torch.autograd.grad(loss, [s for _, s in seen.values()])
    for hook in hooks:
        hook.remove()
    return {name: (a, len(x) * g) for (name, (a, _)), g in zip(seen.items(), grads, strict=True)}


def observe_alone(module: nn.Module, criterion: Loss, x: Tensor, y: Tensor) -> Seen:
    """The same from one sample at a time, where samples do not see each other."""
    single = [observe(module, criterion, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    return {
        name: (torch.cat([s[name][0] for s in single]), torch.cat([s[name][1] for s in single]))
        for name in single[0]
    }


def dense(layer: nn.Module, a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """A = 1/(N·T) Σ āāᵀ, G = 1/N Σ ggᵀ, patches by unfold; a leading axis of groups."""
    n = len(a)
    if isinstance(layer, nn.Conv2d):
        groups = layer.groups
        window: Any = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        patches = nn.functional.unfold(a, *window)
        rows = patches.unflatten(1, (groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)
        g = g.flatten(2).unflatten(1, (groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)
    else:
        groups, rows, g = 1, a[None], g[None]
    if layer.bias is not None:
        rows = torch.cat([rows, rows.new_ones(*rows.shape[:2], 1)], -1)
    big_a, big_g = rows.mT @ rows / rows.shape[1], g.mT @ g / n
    return (big_a[0], big_g[0]) if groups == 1 else (big_a, big_g)


def dense_diagonal(layer: nn.BatchNorm2d, a: Tensor, g: Tensor) -> dict[str, Tensor]:
    """Mean of (∂ℓ_n/∂p)²; in training mode N times what arrives through sample n's positions."""
    statistics = (None, None) if layer.training else (layer.running_mean, layer.running_var)
    normal = nn.functional.batch_norm(a, *statistics, training=layer.training, eps=layer.eps)
    return {
        "weight": (g * normal).sum((2, 3)).square().mean(0),
        "bias": g.sum((2, 3)).square().mean(0),
    }


def compare(factors: dict[str, Any], module: nn.Module, seen: Seen) -> None:
    """Every layer with parameters has factors, and they are the dense ones."""
    assert set(factors) == set(seen)
    for name, (a, g) in seen.items():
        layer = module.get_submodule(name)
        if isinstance(layer, nn.BatchNorm2d):
            for parameter, expected in dense_diagonal(layer, a, g).items():
                value = factors[name].diagonal[f"{name}.{parameter}"]
                assert_close(value, expected, f"diagonal of {name}.{parameter}")
        else:
            expected_a, expected_g = dense(layer, a, g)
            assert_close(factors[name].A, expected_a, f"A of {name}")
            assert_close(factors[name].G, expected_g, f"G of {name}")


def network(*layers: tuple[Layer, nn.Module], shape: tuple[int, ...], outputs: int) -> Pair:
    ours, theirs = zip(*layers, strict=True)
    return Pair(nt.Sequential(*ours), nn.Sequential(*theirs), shape, outputs)


def perceptron(bias: bool = True) -> Pair:
    return network(
        (nt.Linear(5, bias=bias), nn.Linear(4, 5, bias)), (nt.Tanh(), nn.Tanh()),
        (nt.Linear(3, bias=bias), nn.Linear(5, 3, bias)), shape=(4,), outputs=3,
    )  # fmt: skip


def convolutional(*, norm: bool = False, **options: Any) -> Pair:
    """A convolution with `options` between a plain one and a linear layer."""
    bias = options.get("bias", True)
    first, second = conv(2, 4, 3, padding=1, bias=bias), conv(4, 6, **options)
    norms = [(nt.BatchNorm2d(), nn.BatchNorm2d(4))] if norm else []
    features = second[1](torch.zeros(1, 4, 6, 5)).numel()
    return network(
        first, *norms, (nt.SiLU(), nn.SiLU()), second, (nt.Tanh(), nn.Tanh()),
        (nt.Flatten(), nn.Flatten()), (nt.Linear(3, bias=bias), nn.Linear(features, 3, bias)),
        shape=(2, 6, 5), outputs=3,
    )  # fmt: skip


WINDOWS: list[dict[str, Any]] = [
    {"kernel": 1},
    {"kernel": (3, 2)},
    {"kernel": 3, "padding": 1, "stride": 2},
    {"kernel": (2, 3), "padding": (1, 2), "dilation": (2, 1)},
    {"kernel": 3, "groups": 2, "padding": 1},
    {"kernel": 1, "groups": 2},
    {"kernel": (3, 2), "stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2},
]

"""Networks twice, in newtriton's DSL and in torch.nn under the same names; autograd's answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.language.network import Layer


class TorchResidual(nn.Module):
    """body(x) + shortcut(x)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        if shortcut is not None:
            self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + (self.shortcut(x) if hasattr(self, "shortcut") else x)


class TorchAdd(nn.ModuleList):
    """Σ branch(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return sum(branch(x) for branch in self)  # type: ignore[return-value]


@dataclass
class Pair:
    """A network in both forms, for inputs of one shape.

    Attributes:
        ours: the network in newtriton's layers.
        theirs: the same in PyTorch's modules.
        shape: the shape of one input.
        outputs: the number of outputs.
    """

    ours: Layer
    theirs: nn.Module
    shape: tuple[int, ...]
    outputs: int


ACTIVATIONS: dict[str, tuple[Callable[[], Layer], Callable[[], nn.Module]]] = {
    "relu": (nt.ReLU, nn.ReLU),
    "leaky": (lambda: nt.LeakyReLU(0.2), lambda: nn.LeakyReLU(0.2)),
    "sigmoid": (nt.Sigmoid, nn.Sigmoid),
    "tanh": (nt.Tanh, nn.Tanh),
    "silu": (nt.SiLU, nn.SiLU),
    "softplus": (lambda: nt.Softplus(2.0), lambda: nn.Softplus(2.0)),
    "gelu": (nt.GELU, nn.GELU),
    "gelu_tanh": (lambda: nt.GELU("tanh"), lambda: nn.GELU("tanh")),
}


def conv(c: int, o: int, kernel, **options) -> tuple[Layer, nn.Module]:
    """Returns a convolution in both forms."""
    return nt.Conv2d(o, kernel, **options), nn.Conv2d(c, o, kernel, **options)


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """Draws small networks of all layers, nested, with residuals and batch norm."""
    c, h, w = draw(st.sampled_from([(1, 6, 6), (2, 7, 5), (3, 5, 8)]))
    shape = (c, h, w)
    ours: list[Layer] = []
    theirs: list[nn.Module] = []

    value = torch.zeros(2, *shape)

    def append(pair: tuple[Layer, nn.Module]) -> None:
        nonlocal value
        ours.append(pair[0])
        theirs.append(pair[1])
        with torch.no_grad():
            value = pair[1](value)

    kinds = ["conv", "act", "norm", "max", "avg", "residual", "add", "nested"]
    append(conv(c, 4, 3, padding=1, bias=draw(st.booleans())))
    c = 4
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=5)):
        if kind == "conv":
            kernel, dilation = draw(
                st.sampled_from([((3, 3), 1), ((2, 3), (1, 2)), (1, 1), (3, 2)])
            )
            stride, padding = draw(st.sampled_from([(1, 1), (2, 1), ((1, 2), 2)]))
            groups = draw(st.sampled_from([1, 2]))
            options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
            probe = nn.Conv2d(c, 4, kernel, **options, bias=draw(st.booleans()))
            if min(h, w) + 2 * 1 < 6 or probe.kernel_size[0] * 2 > h + 2:
                continue
            append(conv(c, 4, kernel, **options, bias=probe.bias is not None))
        elif kind == "act":
            append(tuple(f() for f in ACTIVATIONS[draw(st.sampled_from(sorted(ACTIVATIONS)))]))  # type: ignore[arg-type]
        elif kind == "norm":
            affine = draw(st.booleans())
            append((nt.BatchNorm2d(affine=affine), nn.BatchNorm2d(c, affine=affine)))
        elif kind in ("max", "avg") and min(h, w) >= 3:
            kernel, stride, padding = draw(
                st.sampled_from([(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 1, 0)])
            )
            if kind == "max":
                append(
                    (nt.MaxPool2d(kernel, stride, padding), nn.MaxPool2d(kernel, stride, padding))
                )
            else:
                count = draw(st.booleans())
                append(
                    (
                        nt.AvgPool2d(kernel, stride, padding, count_include_pad=count),
                        nn.AvgPool2d(kernel, stride, padding, count_include_pad=count),
                    )
                )
        elif kind == "residual":
            a, b = conv(c, c, 3, padding=1)
            if draw(st.booleans()):
                p, q = conv(c, c, 1, bias=False)
                append(
                    (
                        nt.Residual(nt.Sequential(a, nt.Tanh()), p),
                        TorchResidual(nn.Sequential(b, nn.Tanh()), q),
                    )
                )
            else:
                append((nt.Residual(a), TorchResidual(b)))
        elif kind == "add":
            (a, b), (p, q) = conv(c, c, 3, padding=1), conv(c, c, 1)
            append(
                (
                    nt.Add(a, nt.Sequential(p, nt.Sigmoid())),
                    TorchAdd([b, nn.Sequential(q, nn.Sigmoid())]),
                )
            )
        elif kind == "nested":
            a, b = conv(c, c, 3, padding=1)
            append(
                (
                    nt.Sequential(nt.Sequential(a), nt.SiLU()),
                    nn.Sequential(nn.Sequential(b), nn.SiLU()),
                )
            )
        _, c, h, w = value.shape
    outputs = draw(st.sampled_from([2, 3]))
    append((nt.Flatten(), nn.Flatten()))
    if draw(st.booleans()):
        append((nt.Linear(5), nn.Linear(c * h * w, 5)))
        append((nt.Softplus(), nn.Softplus()))
        append((nt.Linear(outputs, bias=False), nn.Linear(5, outputs, bias=False)))
    else:
        append((nt.Linear(outputs), nn.Linear(c * h * w, outputs)))
    return Pair(nt.Sequential(*ours), nn.Sequential(*theirs), shape, outputs)


logistic = nt.Criterion(lambda z, y: nt.scalar.softplus(-z * y), values=(-1.0, 1.0), convex=True)
welsch = nt.Criterion(lambda z, y: 1.0 - nt.scalar.exp(-(z - y) * (z - y)), root="clip")


def torch_loss(criterion: object, z: Tensor, y: Tensor) -> Tensor:
    """Returns the mean loss in PyTorch's functions."""
    if isinstance(criterion, nt.Scaled):
        return criterion.c * torch_loss(criterion.loss, z, y)
    if isinstance(criterion, nt.SigmoidMarginLoss):
        p = z.softmax(1).gather(1, y[:, None])
        return (1 / (1 + torch.exp(criterion.delta * (p - criterion.epsilon)))).mean()
    if isinstance(criterion, nt.MixtureLoss):
        first, *others = z.sigmoid().T
        p, q = (s.where(y == 1, 1 - s) for s in others)
        return -torch.log(first * p + (1 - first) * q).mean()
    if criterion is logistic:
        return nn.functional.softplus(-z * y).sum(1).mean()
    if criterion is welsch:
        return (1 - torch.exp(-((z - y) ** 2))).sum(1).mean()
    if isinstance(criterion, nt.CrossEntropyLoss):
        return nn.functional.cross_entropy(z, y)
    if isinstance(criterion, nt.MSELoss):
        return ((z - y) ** 2).sum(1).mean()
    return nn.functional.binary_cross_entropy_with_logits(z, y, reduction="none").sum(1).mean()


def labels(criterion: object, n: int, outputs: int, dtype: torch.dtype) -> Tensor:
    """Returns random labels for a loss."""
    if isinstance(criterion, nt.Scaled):
        return labels(criterion.loss, n, outputs, dtype)
    if isinstance(criterion, (nt.CrossEntropyLoss, nt.SigmoidMarginLoss)):
        return torch.randint(0, outputs, (n,))
    if isinstance(criterion, nt.MixtureLoss):
        return torch.randint(0, 2, (n,))
    if criterion is logistic:
        return 2.0 * torch.randint(0, 2, (n, outputs)).to(dtype) - 1.0
    return torch.rand(n, outputs, dtype=dtype)


def output_curvature(criterion: nt.Loss, z: Tensor, y: Tensor) -> Tensor:
    """Returns what stands for B of every sample by the loss's root, N×K×K.

    Of the losses with a Fisher root only MixtureLoss is known here.
    """
    if isinstance(criterion, nt.Scaled):
        return criterion.c * output_curvature(criterion.loss, z, y)

    def loss(row: Tensor, label: Tensor) -> Tensor:
        return torch_loss(criterion, row[None], label[None])

    hessian = torch.func.vmap(torch.func.hessian(loss))
    if criterion.root == "fisher":
        likelihood = torch.func.vmap(lambda row, label: torch.exp(-loss(row, label)))
        given = [torch.full((len(z),), k) for k in (0, 1)]
        return sum(likelihood(z, k)[:, None, None] * hessian(z, k) for k in given)  # type: ignore[return-value]
    if criterion.root is None:
        return hessian(z, y)
    values, vectors = torch.linalg.eigh(hessian(z, y))
    return (vectors * values.clamp(min=0)[:, None]) @ vectors.mT


class Autograd:
    """The oracle of h, its gradient, and products with its Hessian and Gauss–Newton matrix."""

    def __init__(
        self, model: nt.Model, module: nn.Module, criterion: nt.Loss, x: Tensor, y: Tensor
    ) -> None:
        self.model, self.criterion, self.y = model, criterion, y
        self.names, self.params = zip(*module.named_parameters(), strict=True)
        self.z = module(x)
        decay = 0.5 * model.weight_decay * sum((p * p).sum() for p in self.params)
        self.loss = torch_loss(criterion, self.z, y) + decay
        self.grads = torch.autograd.grad(self.loss, self.params, create_graph=True)

    def _flat(self, tensors: tuple[Tensor | None, ...]) -> Tensor:
        filled = (
            torch.zeros_like(p) if t is None else t
            for t, p in zip(tensors, self.params, strict=True)
        )
        return self.model.flatten({n: t.detach() for n, t in zip(self.names, filled, strict=True)})

    def _split(self, v: Tensor) -> list[Tensor]:
        named = self.model.unflatten(v)
        return [named[n] for n in self.names]

    @property
    def gradient(self) -> Tensor:
        """The gradient ∇h, flat in the model's layout."""
        return self._flat(self.grads)

    def hvp(self, v: Tensor) -> Tensor:
        """Returns H v."""
        inner = sum((g * w).sum() for g, w in zip(self.grads, self._split(v), strict=True))
        return self._flat(
            torch.autograd.grad(inner, self.params, retain_graph=True, allow_unused=True)
        )  # type: ignore[arg-type]

    def ggnvp(self, v: Tensor) -> Tensor:
        """Returns Jᵀ B J v + λv, where J v is found by double backward."""
        u = torch.zeros_like(self.z, requires_grad=True)
        pulled = torch.autograd.grad(self.z, self.params, u, create_graph=True)
        inner = sum((p * w).sum() for p, w in zip(pulled, self._split(v), strict=True))
        (jv,) = torch.autograd.grad(inner, u, retain_graph=True)  # type: ignore[arg-type]
        b = output_curvature(self.criterion, self.z.detach(), self.y)
        bjv = (b @ jv[:, :, None])[:, :, 0] / len(jv)
        product = torch.autograd.grad(self.z, self.params, bjv, retain_graph=True)
        return self._flat(product) + self.model.weight_decay * v

"""Networks on N×K and on sequences, whose positions meet, twice; losses with options by PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import newtriton as nt
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N, Node
from newtriton.compiler.language.network import Scope

F64 = torch.float64
T, K = 3, 3  # positions of a sequence, and outputs of each


class Split:
    """N×(T·2) → N×T×2."""

    def build(self, x: Node, scope: Scope) -> Node:
        return ops.reshape(x, (N, T, 2))


class Rows:
    """A linear layer along the last axis."""

    def __init__(self, out: int) -> None:
        self.out = out

    def build(self, x: Node, scope: Scope) -> Node:
        fans = x.shape[-1], self.out
        weight = scope.parameter("weight", (self.out, x.shape[-1]), "default", fans)
        return ops.matmul(x, weight, scope.parameter("bias", (self.out,), "zeros", fans), tb=True)


class Meeting:
    """x plus its mean over the positions, so that these meet."""

    def build(self, x: Node, scope: Scope) -> Node:
        mean = ops.scale(ops.reduce_sum(x, (1,)), 1.0 / T)
        return ops.total([x, ops.broadcast(mean, x.shape, (1,))])


class TorchMeeting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(1, keepdim=True)


def compiled(loss: nt.Loss, sequences: bool, outputs: int = K, **options: Any):
    """Returns a model, the same in PyTorch, and inputs of six samples."""
    torch.manual_seed(0)
    if sequences:
        net = nt.Sequential(Split(), Rows(4), nt.Tanh(), Meeting(), nt.Tanh(), Rows(outputs))
        module = nn.Sequential(
            nn.Unflatten(1, (T, 2)), nn.Linear(2, 4), nn.Tanh(), TorchMeeting(), nn.Tanh(),
            nn.Linear(4, outputs),
        )  # fmt: skip
    else:
        net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(outputs))
        module = nn.Sequential(nn.Linear(2 * T, 4), nn.Tanh(), nn.Linear(4, outputs))
    options = {"dtype": F64, "backend": "aten", "device": "cpu", **options}
    model = nt.compile(net, (2 * T,), loss, **options)
    model.load_state_dict(module.double().state_dict())
    return model, module, torch.randn(6, 2 * T, dtype=F64)


def torch_loss(loss: nt.Loss, z: Tensor, y: Tensor) -> Tensor:
    """Returns the mean loss by PyTorch's own function."""
    if isinstance(loss, nt.Scaled):
        return loss.c * torch_loss(loss.loss, z, y)
    if isinstance(loss, nt.CrossEntropyLoss):
        weight = None if loss.weight is None else torch.tensor(loss.weight, dtype=z.dtype)
        ignored = -100 if loss.ignore_index is None else loss.ignore_index
        return functional.cross_entropy(
            z.reshape(-1, z.shape[-1]), y.reshape(-1), weight, ignore_index=ignored,
            label_smoothing=loss.label_smoothing,
        )  # fmt: skip
    if isinstance(loss, nt.BCEWithLogitsLoss):
        weight = None if loss.pos_weight is None else torch.tensor(loss.pos_weight, dtype=z.dtype)
        each = functional.binary_cross_entropy_with_logits(
            z, y, pos_weight=weight, reduction="none"
        )
        return each.sum() / len(z)
    return functional.mse_loss(z, y, reduction="sum") / len(z)


class Oracle:
    """Dense derivatives by autograd at a linearization."""

    def __init__(
        self, model: nt.Model, module: nn.Module, loss: nt.Loss, x: Tensor, y: Tensor
    ) -> None:
        def output(flat: Tensor) -> Tensor:
            return torch.func.functional_call(module, model.unflatten(flat), (x,))

        def h(flat: Tensor) -> Tensor:
            return torch_loss(loss, output(flat), y)

        at = model.params.clone()
        self.loss, self.gradient = h(at), torch.func.grad(h)(at)
        self.hessian = torch.func.hessian(h)(at)
        z = output(at).detach()
        self.b = torch.func.hessian(lambda rows: torch_loss(loss, rows.view_as(z), y))(z.flatten())
        jacobian = torch.func.jacrev(lambda flat: output(flat).flatten())(at)
        self.ggn = jacobian.mT @ self.b @ jacobian


def labels(loss: nt.Loss, sequences: bool, seed: int) -> Tensor:
    """Returns random labels of six samples, some of which do not count where a loss has it so."""
    generator = torch.Generator().manual_seed(seed)
    shape = (6, T) if sequences else (6,)
    plain = loss.loss if isinstance(loss, nt.Scaled) else loss
    if not isinstance(plain, nt.CrossEntropyLoss):
        return torch.rand(*shape, K, dtype=F64, generator=generator)
    y = torch.randint(0, K, shape, generator=generator)
    if plain != nt.CrossEntropyLoss() or sequences:
        none = -100 if plain.ignore_index is None else plain.ignore_index
        y.view(-1)[[1, 4]] = none
    counted = [k for k, w in enumerate(plain.weight or (1.0,) * K) if w and k != plain.ignore_index]
    y.view(-1)[0] = counted[0] if counted else 0
    return y

"""Eager PyTorch's gradient and Hessian product of VGG11: the bytes that it moves and holds."""

import weakref
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import newtriton as nt


class Bytes(TorchDispatchMode):
    """Counts the bytes that PyTorch's operators move and hold.

    Attributes:
        moved: what operators read and wrote, views apart.
        held: what is alive of the tensors that they made.
        peak: the most that was alive of them.
        seen: the storages that have been counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moved = self.held = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if not func.is_view and not any(a.alias_info for a in func._schema.returns):
            self.moved += sum(t.numel() * t.element_size() for t in (*given, *made))
        for storage in (t.untyped_storage() for t in made):
            if storage._cdata not in self.seen:
                self.seen.add(storage._cdata)
                self.held += storage.nbytes()
                self.peak = max(self.peak, self.held)
                weakref.finalize(storage, self.freed, storage._cdata, storage.nbytes())
        return result

    def freed(self, key: int, nbytes: int) -> None:
        self.seen.discard(key)
        self.held -= nbytes


@cache
def double_backward(batch: int) -> Bytes:
    """Counts the bytes of gradient and Hessian product, without computing anything."""
    layers: list[nn.Module] = []
    channels = 3
    for width in nt.models.VGG[11]:
        if isinstance(width, int):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.SiLU()]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, 10)).to("meta")
    x, y = torch.empty(batch, 3, 32, 32, device="meta"), torch.arange(batch, device="meta")
    params = list(module.parameters())
    vectors = [torch.randn_like(p) for p in params]
    with Bytes() as counted:
        loss = nn.functional.cross_entropy(module(x), y)
        grads = torch.autograd.grad(loss, params, create_graph=True)
        inner = sum((g * v).sum() for g, v in zip(grads, vectors, strict=True))
        torch.autograd.grad(inner, params)
    return counted

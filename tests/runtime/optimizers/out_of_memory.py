"""Memory that ends in the middle of a step: at any operator that asks for some."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import newtriton as nt

SENTENCE = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"
Make = Callable[[nt.Model], Any]


def second_order(*parts: str, **options: Any) -> Make:
    return lambda model: nt.SecondOrder(model, *parts, **options)


def of_torch(cls: type[torch.optim.Optimizer], **options: Any) -> Make:
    return lambda model: nt.TorchOptimizer(model, cls, **options)


OPTIMIZERS: dict[str, Make] = {
    "FITRE": nt.FITRE,
    "KFAC": nt.KFAC,
    "KFRA": nt.KFRA,
    "KFLR": lambda model: nt.KFLR(model, average=0.9, noise=None),
    "EACG": nt.EACG,
    "NewtonCG": lambda model: nt.NewtonCG(model, preconditioner="kfac", sample=0.5),
    "ekfac": second_order("ekfac", "eigen", "trust-region"),
    "layers": second_order("ggn-layers", "truncated-cg", "levenberg-marquardt"),
    "pieces": lambda model: nt.KFAC(model, micro_batch=3),
    "SGD": of_torch(torch.optim.SGD, lr=0.1, momentum=0.9),
    "Adam": of_torch(torch.optim.Adam),
    "Adafactor": of_torch(torch.optim.Adafactor),
    "LBFGS": of_torch(torch.optim.LBFGS, max_iter=3),
    "Preconditioned": lambda model: nt.Preconditioned(model, torch.optim.AdamW, lr=0.01),
}


class Ending(TorchDispatchMode):
    """Raises PyTorch's error at one of the calls that ask for memory.

    Args:
        at: how many of them are made before.
    """

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        views = any(r.alias_info is not None for r in func._schema.returns)
        self.left -= not views  # results that are operands, or look at them, take nothing
        if self.left == -1 and not views:
            raise RuntimeError(SENTENCE)
        return func(*args, **(kwargs or {}))


def everything(optimizer: Any) -> dict[str, Any]:
    """Returns all that the coming steps depend on."""
    model = optimizer.model
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Returns where two states differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = [*dict.fromkeys([*one, *other])]
        return [
            found
            for key in keys
            for found in differences(one.get(key), other.get(key), f"{path}.{key}")
        ]
    if isinstance(one, (list, tuple)):
        pairs = zip(one, other, strict=False)
        found = [d for i, pair in enumerate(pairs) for d in differences(*pair, f"{path}[{i}]")]
        return found + ([] if len(one) == len(other) else [path])
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = one.shape == other.shape and one.dtype == other.dtype
        bits = same and torch.equal(one.nan_to_num(), other.nan_to_num())
        return [] if bits else [path]
    return [] if repr(one) == repr(other) else [path]  # of NaN too


def trial(seed: int, folder: Path) -> str:
    """Makes a step fail at a call that the seed decides, and compares what there is then.

    Returns:
        "as before", or "stepped" where the step has fewer calls.
    """
    draw = random.Random(seed)
    name = draw.choice([*OPTIMIZERS])
    norm = [] if name in ("KFRA", "EACG", "pieces") else [nt.BatchNorm1d()]
    net = nt.Sequential(nt.Linear(4), *norm, nt.Tanh(), nt.Dropout(0.2), nt.Linear(3))
    model = nt.compile(net, (5,), nt.CrossEntropyLoss(), backend="aten", device="cpu", seed=seed)
    optimizer = OPTIMIZERS[name](model)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 5, generator=generator)
    y = torch.randint(0, 3, (8,), generator=generator)
    for _ in range(draw.choice([0, 1, 3, 6])):
        optimizer.step(x, y)
    before, at = everything(optimizer), int(600 ** draw.random())
    try:
        with Ending(at):
            optimizer.step(x, y)
    except RuntimeError as error:
        assert SENTENCE in str(error), f"seed {seed}: {name} at call {at}: {error!r}"
    else:
        return "stepped"
    found = differences(before, everything(optimizer))
    assert not found, f"seed {seed}: {name} at call {at} changed {', '.join(found)}"
    optimizer.step(x, y)
    return "as before"

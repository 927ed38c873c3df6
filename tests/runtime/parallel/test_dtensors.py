"""Modules whose parameters are DTensors, beside the same modules without."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

import newtriton as nt
from newtriton.runtime.parallel.dtensors import gathered
from tests.tolerances import assert_close

from .workers import Workers, equal_everywhere, workers

Values = dict[str, Tensor]


class Tied(nn.Module):
    """A table of words that are read and written with the same weight, and a part used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden = nn.Embedding(7, 5), nn.Linear(5, 5)
        self.out = nn.Linear(5, 7)
        self.out.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        z = self.words(x).mean(1)
        return self.out(self.hidden(torch.tanh(self.hidden(z))))


def convolutional() -> nn.Module:
    """Odd numbers of channels, and batch norm."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 1, 2), nn.Flatten(),
        nn.Linear(4, 5),
    )  # fmt: skip


MODULES: dict[str, Callable[[], nn.Module]] = {"convolutional": convolutional, "tied": Tied}
FITS = torch.float64


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODULES[name]().double()


def samples(name: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(5, (11,), generator=generator)
    if name == "tied":
        return torch.randint(7, (11, 4), generator=generator), y
    return torch.randn(11, 2, 5, 5, generator=generator, dtype=torch.float64), y


def mesh() -> Any:
    return init_device_mesh("cpu", (torch.distributed.get_world_size(),))


def sharded(module: nn.Module) -> nn.Module:
    """By FSDP, part by part where nothing is tied."""
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415

    for part in () if isinstance(module, Tied) else list(module.children())[::2]:
        fully_shard(part, mesh=mesh())
    return fully_shard(module, mesh=mesh())


def replicated(module: nn.Module) -> nn.Module:
    """All tensors on all ranks, buffers too."""
    from torch.distributed.tensor import distribute_module  # noqa: PLC0415

    return distribute_module(module, mesh())


def in_columns(module: nn.Module) -> nn.Module:
    """Along the last axis, with hooks that make DTensors of what goes in and out."""
    import torch.distributed.tensor as dt  # noqa: PLC0415

    known = dict[nn.Parameter, nn.Parameter]()  # tied ones stay so

    def partition(_: str, part: nn.Module, mesh: Any) -> None:
        for key, p in list(part._parameters.items()):
            if p is not None and not isinstance(p, dt.DTensor):
                cut = dt.distribute_tensor(p.data, mesh, [dt.Shard(p.dim() - 1)])
                part._parameters[key] = known.setdefault(p, nn.Parameter(cut))

    def into(_: nn.Module, inputs: Any, mesh: Any) -> Any:
        return tuple(
            dt.DTensor.from_local(x, mesh, [dt.Replicate()], run_check=False) for x in inputs
        )

    return dt.distribute_module(module, mesh(), partition, into, lambda _, y, __: y.to_local())


def imported(_: nt.DataParallel) -> None:
    """Imports what takes its time."""
    import torch.distributed.fsdp  # noqa: PLC0415
    import torch.distributed.tensor.parallel  # noqa: F401, PLC0415


@pytest.fixture(scope="module")
def two() -> Workers:
    found = workers(2)
    found(imported)
    return found


WAYS = {"fully_shard": sharded, "replicated": replicated, "in columns": in_columns}
PRESETS = {"FITRE": nt.FITRE, "KFAC": nt.KFAC}


def trained(parallel: nt.DataParallel | None, name: str, way: str | None) -> dict[str, Values]:
    """Returns gradient, a product and what steps make of the parameters, by name."""
    module = made(name)
    if way is not None:
        module = WAYS[way](module)
    x, y = samples(name)
    if parallel is not None:
        x, y = (t.tensor_split(parallel.ranks.size)[parallel.ranks.rank] for t in (x, y))
    model = nt.from_torch(
        module, x, nt.CrossEntropyLoss(), backend="aten", weight_decay=0.01, parallel=parallel
    )
    v = torch.randn(model.params.numel(), generator=torch.Generator().manual_seed(3), dtype=FITS)
    lin = model.linearize(x, y)
    found = {"gradient": model.unflatten(lin.gradient), "product": model.unflatten(lin.hvp(v))}
    for n, p in module.named_parameters() if way else ():
        own = found["gradient"][n]
        assert own.placements == p.placements and own.to_local().shape == p.to_local().shape
    for preset, make in PRESETS.items():
        before = dict(module.named_parameters())
        report = make(model).step(x, y)
        assert report.accepted
        assert all(before[n] is p for n, p in module.named_parameters())
        assert parallel is None or equal_everywhere(parallel.ranks, model.params)
        found[preset] = {n: gathered(p.detach()).clone() for n, p in module.named_parameters()}
    found["state"] = model.state_dict()
    with torch.no_grad():
        module.eval()
        whole = samples(name)[0]
        found["outputs"] = {"": model(whole)}
        if way == "fully_shard":
            assert_close(module(whole), model(whole), "outputs")
    return {kind: {n: gathered(t) for n, t in values.items()} for kind, values in found.items()}


@cache
def alone(name: str) -> dict[str, Values]:
    """Returns the same of one process and plain tensors."""
    return trained(None, name, None)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("convolutional", "fully_shard"),
        ("tied", "fully_shard"),
        ("convolutional", "replicated"),
        ("tied", "in columns"),
    ],
)
def test_a_module_of_dtensors_is_the_module_without(two: Workers, name: str, way: str) -> None:
    expected = alone(name)
    for found in two(trained, name, way):
        assert found.keys() == expected.keys()
        for kind, values in expected.items():
            assert found[kind].keys() == values.keys()
            for n, value in values.items():
                assert_close(found[kind][n].double(), value.double(), f"{kind} {n}")

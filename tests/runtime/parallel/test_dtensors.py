"""Modules whose parameters are DTensors, beside the same modules without."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

import newtriton as nt
from newtriton.runtime.parallel.dtensors import gathered
from tests.sources import FILES
from tests.tolerances import assert_close, relative_error

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


def test_nothing_imports_dtensors_for_those_who_have_none() -> None:
    kinds = "torch.distributed.tensor", "torch.distributed.fsdp"
    texts = (path.read_text(encoding="utf-8") for path in FILES.values())
    for node in (n for t in texts if "torch.distributed" in t for n in ast.parse(t).body):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
        assert not [name for name in names if name.startswith(kinds)]


# --- states ---------------------------------------------------------------------------------------


def perceptron(parallel: nt.DataParallel | None, shard: bool = True) -> nt.Model:
    """Returns a small model; of FSDP's DTensors on several ranks."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()
    module = sharded(module) if shard and parallel is not None else module
    x = torch.zeros(2, 3, dtype=torch.float64)
    return nt.from_torch(module, x, nt.CrossEntropyLoss(), backend="aten", parallel=parallel)


def batches(parallel: nt.DataParallel | None) -> nt.Batches:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(36, 3, generator=generator, dtype=torch.float64)
    return nt.Batches(x, x.argmax(1), batch_size=12, parallel=parallel)


def fitted(parallel: nt.DataParallel | None, folder: str, epochs: int) -> Values:
    """Returns the state that a run has after some epochs: it is begun, or goes on."""
    model = perceptron(parallel)
    options: Any = {"checkpoint": folder, "resume": "auto", "progress": False}
    nt.fit(model, nt.FITRE(model), batches(parallel), epochs=epochs, **options)
    written = {n: gathered(x) for n, x in model.to_torch().state_dict().items()}
    state = model.state_dict()
    assert state.keys() == written.keys()
    assert all(torch.equal(state[n], written[n]) for n in state)
    return state


def test_a_run_goes_on_with_other_numbers_of_ranks(two: Workers, tmp_path: Path) -> None:
    expected = fitted(None, str(tmp_path / "alone"), 3)
    folder = str(tmp_path / "run")
    two(fitted, folder, 1)
    fitted(None, folder, 2)
    for state in two(fitted, folder, 3):
        for n, value in expected.items():
            assert relative_error(state[n].double(), value.double()) < 1e-8, n


def given(parallel: nt.DataParallel) -> None:
    """Gives DTensors of states, vectors and batches."""
    import torch.distributed.tensor as dt  # noqa: PLC0415

    model, whole = perceptron(parallel), perceptron(parallel, shard=False)
    module = model.to_torch()
    moved = {n: x + 1 for n, x in model.state_dict().items()}
    whole.load_state_dict(moved)
    x, y = next(iter(batches(None)))
    own = [t.tensor_split(2)[parallel.ranks.rank] for t in (x, y)]
    with torch.no_grad():
        module.eval()
        module(x)  # FSDP keeps whole parameters of the root
    model.load_state_dict(moved)
    assert_close(model(x), whole(x))
    with torch.no_grad():
        assert_close(module(x), whole(x), "after load_state_dict")
    v = model.unflatten(whole.gradient(*own)[1])
    assert_close(model.flatten(v), whole.gradient(*own)[1], "flattened")
    whole.load_state_dict(module.state_dict())
    assert torch.equal(whole.params, model.params)

    module(x).sum().backward()
    with torch.inference_mode():
        assert_close(model(x), whole(x), "after a backward pass of FSDP")
    model.params.mul_(0.5)
    assert torch.equal(
        gathered(model.to_torch()[0].weight),
        model.unflatten(model.params)["0.weight"].full_tensor(),
    )

    here = mesh()
    batch = [dt.distribute_tensor(t, here, [dt.Shard(0)], src_data_rank=None) for t in (x, y)]
    assert model.loss(*batch) == model.loss(*own)
    assert torch.equal(model.linearize(*batch).gradient, model.linearize(*own).gradient)
    assert model.count(batch[1]) == model.samples(batch[0]) == len(x)
    assert nt.KFAC(model).step(*batch).accepted
    twice = dt.distribute_tensor(x, here, [dt.Replicate()], src_data_rank=None)
    with pytest.raises(nt.NewtritonError, match=r"inputs are a DTensor.*give Shard\(0\)"):
        model.loss(twice, y)
    with pytest.raises(nt.NewtritonError, match=r"a DTensor: give the part that this rank has"):
        nt.NewtonCG(model, sample=0.5).step([batch])
    with pytest.raises(nt.NewtritonError, match="the vector is a DTensor"):
        model.unflatten(dt.distribute_tensor(model.params, here, src_data_rank=None))


def test_states_vectors_and_batches_may_be_dtensors(two: Workers) -> None:
    two(given)


def refused(parallel: nt.DataParallel) -> None:
    """Asks for what cannot be right."""
    import torch.distributed.tensor as dt  # noqa: PLC0415

    x, loss = torch.zeros(2, 3, dtype=torch.float64), nt.CrossEntropyLoss()
    model = perceptron(parallel)
    module = model.to_torch()
    hooks = dict(module._forward_pre_hooks)
    with pytest.raises(nt.NewtritonError, match=r"is a DTensor on the ranks 0, 1.*give parallel="):
        nt.from_torch(module, x, loss)
    with pytest.raises(nt.NewtritonError, match="parallel is 2: give"):
        nt.from_torch(module, x, loss, parallel=2)  # type: ignore[arg-type]
    one = [torch.distributed.new_group([rank]) for rank in range(2)][parallel.ranks.rank]
    with pytest.raises(nt.NewtritonError, match="is a DTensor on the ranks 0, 1"):
        nt.from_torch(module, x, loss, parallel=nt.DataParallel(one))
    with pytest.raises(nt.NewtritonError, match="cast the module before"):
        nt.from_torch(module, x, loss, dtype=torch.float32, parallel=parallel)
    assert dict(module._forward_pre_hooks) == hooks and type(module).__name__ == "FSDPSequential"
    assert all(isinstance(p, dt.DTensor) for p in module.parameters())
    with pytest.raises(nt.NewtritonError, match="which stay on their ranks"):
        copy.deepcopy(model)

    with torch.no_grad():
        module[3].bias.add_(1.0)
    y = torch.tensor([0, 1])
    with pytest.raises(nt.NewtritonError, match=r"3\.bias is a DTensor that has been changed"):
        model.loss(x, y)
    model.load_state_dict(module.state_dict())
    assert torch.equal(dict(model.named_parameters())["3.bias"], module[3].bias.full_tensor())
    model.loss(x, y)

    part = nn.Linear(3, 2, bias=False).double()
    summed = dt.DTensor.from_local(part.weight.detach(), mesh(), [dt.Partial()], run_check=False)
    part.weight = nn.Parameter(summed)
    with pytest.raises(nt.NewtritonError, match="cannot be written"):
        nt.from_torch(part, x, loss, parallel=parallel)
    norm = nn.BatchNorm1d(3).double()
    norm.running_mean = dt.distribute_tensor(norm.running_mean, mesh(), [dt.Shard(0)])
    with pytest.raises(nt.NewtritonError, match="running_mean is a DTensor of which a rank has"):
        nt.from_torch(norm, x, loss, parallel=parallel)


def test_what_cannot_be_right_is_refused(two: Workers) -> None:
    two(refused)

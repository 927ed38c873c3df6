"""What calls share: first values, executors made once, programs by what is fed, weight decay."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.graph.program import Input
from newtriton.compiler.values import Data, Labels, Losses, ParameterValue, RunningValue
from newtriton.runtime.aten.executor import AtenBackend
from newtriton.runtime.model.compiled import TRACKED, Compiled

CPU = torch.device("cpu")


def compiled(weight_decay: float = 0.0, seed: int = 0) -> Compiled:
    net = nt.Sequential(nt.Conv2d(4, 2), nt.BatchNorm2d(), nt.Flatten(), nt.Linear(3))
    return Compiled(
        net, (1, 3, 3), nt.CrossEntropyLoss(), AtenBackend(CPU), torch.float64, weight_decay, seed
    )


@pytest.fixture(scope="module")
def shared() -> Compiled:
    return compiled()


def batch(n: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 1, 3, 3, dtype=torch.float64, generator=generator)
    return x, torch.arange(n) % 3


def test_a_seed_gives_the_parameters() -> None:
    first, again, other = compiled(), compiled(), compiled(seed=1)
    assert torch.equal(first.params, again.params)
    assert not torch.equal(first.params, other.params)


def test_statistics_start_as_pytorchs(shared: Compiled) -> None:
    expected = nn.BatchNorm2d(4).state_dict()
    names = ("running_mean", "running_var", TRACKED)
    assert set(shared.buffers) == {f"1.{name}" for name in names}
    for name in names:
        assert torch.equal(
            shared.buffers[f"1.{name}"], expected[name].to(shared.buffers[f"1.{name}"])
        )


def test_there_is_a_block_for_each_layer_with_parameters(shared: Compiled) -> None:
    assert {block.layer for block in shared.blocks} == {"0", "1", "3"}


def test_an_executor_is_made_once(shared: Compiled) -> None:
    program = shared.programs[True].linearize
    assert shared.executor(program) is shared.executor(program)
    assert shared.executor(program, tape=True) is not shared.executor(program)


def given(model: Compiled, x: Tensor, y: Tensor) -> dict[Input, Tensor]:
    """What programs read of a batch, of the parameters and of running statistics."""
    found: dict[Input, Tensor] = {Data(): x, Labels(): y}
    found |= {ParameterValue(n): v for n, v in model.layout.views(model.params).items()}
    return found | {RunningValue(n): v for n, v in model.buffers.items() if TRACKED not in n}


def test_what_is_run_is_the_loss_of_every_sample(shared: Compiled) -> None:
    x, y = batch()
    program = shared.programs[False].evaluate
    found = shared.run(program, len(x), given(shared, x, y))
    module = nn.Sequential(nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    module.double().eval().load_state_dict(
        {**shared.layout.torch_views(shared.params), **shared.buffers}
    )
    expected = nn.functional.cross_entropy(module(x), y, reduction="none").detach()
    torch.testing.assert_close(found[Losses()], expected)
    target = torch.empty_like(expected)
    shared.run(program, len(x), given(shared, x, y), out={Losses(): target})
    assert torch.equal(target, found[Losses()])


def test_one_value_per_channel_has_no_variance() -> None:
    net = nt.Sequential(nt.Conv2d(4, 3), nt.BatchNorm2d(), nt.Flatten(), nt.Linear(3))
    make = partial(Compiled, net, (1, 3, 3), nt.CrossEntropyLoss(), AtenBackend(CPU))
    model, (x, y) = make(torch.float64, 0.0, 0), batch()
    with pytest.raises(nt.NewtritonError, match="at least 2 samples"):
        model.check(model.programs[True].traced, x[:1], y[:1])
    assert model.check(model.programs[False].traced, x[:1], y[:1]) is not None
    assert model.check(model.programs[True].traced, x, None) is None


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_weight_decay(decay: float) -> None:
    model, losses = compiled(decay), torch.tensor([1.0, 2.0, 6.0])
    expected = 3.0 + decay / 2 * float(model.params.square().sum())
    assert model.total(losses) == pytest.approx(expected)
    vector = torch.ones_like(model.params)
    assert model.decay_(vector, model.params) is vector
    torch.testing.assert_close(vector, 1.0 + decay * model.params)

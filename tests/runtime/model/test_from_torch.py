"""A module that became a model stays alive: values, names, state, flags, and what is refused."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt

from ...modules import ResNet, Written
from ...tolerances import assert_close

CROSS_ENTROPY = nt.CrossEntropyLoss()


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)
    )


def batch(samples: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, 1, 4, 4, generator=generator), torch.arange(samples) % 3


def model_of(module: nn.Module, **options: Any) -> nt.Model:
    return nt.from_torch(module, batch()[0], CROSS_ENTROPY, backend="aten", **options)


def test_parameters_are_views_of_the_models_with_their_values() -> None:
    module = small()
    before = copy.deepcopy(module.state_dict())
    model = model_of(module)
    assert all(torch.equal(before[name], p) for name, p in module.named_parameters())
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    model.params.fill_(0.5)
    assert all(bool((p == 0.5).all()) for p in module.parameters())
    with torch.no_grad():
        module[0].weight.fill_(2.0)
    assert int((model.params == 2.0).sum()) == module[0].weight.numel()


def test_after_steps_the_module_is_the_trained_network() -> None:
    module = small()
    model = model_of(module)
    (x, y), optimizer = batch(), nt.FITRE(model)
    for _ in range(3):
        optimizer.step(x, y)
    assert model.to_torch() is module
    module.eval()
    assert_close(module(x).detach(), model(x))
    assert int(module[1].num_batches_tracked) == 3
    alone = small()
    alone.load_state_dict(model.state_dict())
    assert_close(alone.eval()(x).detach(), model(x))


def test_batch_statistics_move_as_the_modules_do() -> None:
    module, alone = small(), small()
    model = model_of(module)
    x, y = batch()
    _, _, statistics = model.gradient(x, y)
    model.update_statistics(statistics)
    alone.train()(x)
    for name, buffer in alone.named_buffers():
        assert torch.allclose(module.get_buffer(name), buffer), name


def test_capture_leaves_the_module_and_its_modes_alone() -> None:
    module = small().eval()
    module[1].train()
    before = copy.deepcopy(module.state_dict())
    model_of(module)
    assert [m.training for m in module.modules()] == [m is module[1] for m in module.modules()]
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())
    assert not module._forward_hooks


def test_state_comes_back_bit_for_bit_with_prefixes_and_ties() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight
            self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0]))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.tanh(self.a(x))) * self.mask

    module = Tied()
    model = nt.from_torch(module, torch.zeros(2, 3), CROSS_ENTROPY, backend="aten")
    assert [name for name, _ in model.named_parameters()] == ["a.weight", "a.bias"]
    state = model.state_dict()
    assert list(state) == list(module.state_dict())
    model.params.zero_()
    model.load_state_dict({f"module._orig_mod.{name}": t for name, t in state.items()})
    assert all(torch.equal(state[name], t) for name, t in module.state_dict().items())
    model.params.zero_()
    model.load_state_dict({name: t for name, t in state.items() if name != "a.weight"})
    assert torch.equal(state["a.weight"], module.a.weight)
    state["mask"] = torch.zeros(3)
    state["b.weight"] = torch.zeros(3, 3)
    with pytest.raises(
        nt.NewtritonError, match=r"b.weight is tied to a.weight.*mask is a constant"
    ):
        model.load_state_dict(state)


def test_a_module_can_be_copied_saved_and_exported_afterwards() -> None:
    module = small().eval()
    model_of(module)
    x, _ = batch()
    kept = io.BytesIO()
    torch.save(module.state_dict(), kept)
    kept.seek(0)
    other = small().eval()
    other.load_state_dict(torch.load(kept))
    assert torch.equal(other(x), copy.deepcopy(module)(x))
    torch.export.export(module, (x,), strict=False)


def test_a_change_through_the_module_makes_a_linearization_stale() -> None:
    module = small()
    model = model_of(module)
    lin = model.linearize(*batch())
    with torch.no_grad():
        module[4].bias.add_(1.0)
    with pytest.raises(nt.NewtritonError, match="parameters have changed"):
        lin.hvp(torch.zeros_like(model.params))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda m: m.double(), "0.weight"),
        (lambda m: m.half(), "0.weight"),
        (lambda m: setattr(m[4], "bias", nn.Parameter(torch.zeros(3))), "4.bias"),
        (lambda m: m[1].register_buffer("running_mean", torch.zeros(2)), "1.running_mean"),
    ],
)
def test_a_tensor_that_is_replaced_is_noticed(
    change: Callable[[nn.Module], object], name: str
) -> None:
    module = small()
    model = model_of(module)
    change(module)
    with pytest.raises(nt.NewtritonError, match=f"{name} .*from_torch again"):
        model(batch()[0])


def test_a_constant_buffer_that_changes_is_noticed() -> None:
    module = Written(lambda m, x: m.f(x) * m.scale, f=nn.Linear(3, 3))
    module.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0]))
    model = nt.from_torch(module, torch.zeros(2, 3), CROSS_ENTROPY, backend="aten")
    module.scale.zero_()
    with pytest.raises(nt.NewtritonError, match="buffer scale has been changed"):
        model(torch.zeros(2, 3))


def test_frozen_parameters_have_no_gradient_and_flags_are_followed() -> None:
    module = small()
    module[0].weight.requires_grad_(False)
    model = model_of(module, weight_decay=0.1)
    x, y = batch()
    gradient = model.unflatten(model.linearize(x, y).gradient)
    assert not gradient["0.weight"].any()
    assert gradient["4.weight"].any()
    before = module[0].weight.clone()
    nt.KFAC(model).step(x, y)
    assert torch.equal(before, module[0].weight)
    module[0].weight.requires_grad_(True)
    assert model.unflatten(model.linearize(x, y).gradient)["0.weight"].any()
    model.freeze("4")
    assert [p.requires_grad for p in module.parameters()] == [True, True, True, False, False]


def test_parameters_that_nothing_depends_on_are_left_alone() -> None:
    module = Written(lambda m, x: m.f(x), f=nn.Linear(3, 2), other=nn.Linear(2, 2))
    model = nt.from_torch(module, torch.zeros(2, 3), CROSS_ENTROPY, backend="aten")
    before = module.other.weight.clone()
    optimizer = nt.FITRE(model)
    optimizer.step(torch.randn(4, 3), torch.tensor([0, 1, 1, 0]))
    assert torch.equal(before, module.other.weight)
    assert "other.weight" in model.state_dict()


# --- what may be given ----------------------------------------------------------------------------


def test_wrappers_are_taken_off() -> None:
    inner = small()
    for wrapped in (nn.DataParallel(inner), torch.compile(inner)):
        model = model_of(wrapped)
        assert next(model.named_parameters())[0] == "0.weight"
        assert model.to_torch() is wrapped


def test_the_dtype_is_the_modules_own_or_it_is_cast() -> None:
    assert model_of(small().double()).dtype is torch.float64
    module = small()
    model = model_of(module, dtype=torch.float64)
    assert model.dtype is module[1].running_mean.dtype is torch.float64
    with pytest.raises(nt.NewtritonError, match="float16: give dtype"):
        model_of(small().half())


def test_an_input_shape_stands_for_an_example() -> None:
    module = small()
    model = nt.from_torch(module, loss=CROSS_ENTROPY, input_shape=(1, 4, 4), backend="aten")
    x, _ = batch(5)
    assert_close(model(x), module.eval()(x).detach())


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = nn.Linear(3, 2), nn.Embedding(5, 2)

    def forward(self, a: Tensor, ids: Tensor, scale: float = 1.0) -> Tensor:
        return self.f(a) * self.g(ids).sum(1) * scale


def test_inputs_are_tuples_or_dictionaries() -> None:
    a, ids = torch.randn(4, 3), torch.randint(5, (4, 2))
    for given in ((a, ids), {"ids": ids, "a": a}):
        module = Two()
        model = nt.from_torch(module, given, CROSS_ENTROPY, backend="aten")
        assert_close(model(given), module(a, ids).detach())


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor


class Structured(nn.Module):
    def __init__(self, kind: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.f, self.g, self.kind = nn.Linear(3, 4), nn.Linear(4, 2), kind

    def forward(self, x: Tensor) -> object:
        hidden = self.f(x)
        return self.kind(self.g(hidden), hidden)


@pytest.mark.parametrize(
    ("kind", "output", "width"),
    [
        (Output, None, 2),
        (Output, "hidden", 4),
        (lambda z, h: {"logits": z, "h": h}, None, 2),
        (lambda z, h: (z, h), 1, 4),
        (lambda z, h: (z, None), None, 2),
        (lambda z, h: z, None, 2),
    ],
)
def test_a_structured_output_has_one_part_that_counts(
    kind: Callable[[Tensor, Tensor], object], output: str | int | None, width: int
) -> None:
    module, x = Structured(kind), torch.randn(3, 3)
    model = nt.from_torch(module, x, nt.MSELoss(), output=output, backend="aten")
    assert model(x).shape == (3, width)


@pytest.mark.parametrize(
    ("kind", "output", "match"),
    [
        (lambda z, h: (z, h), None, "give output=, one of 0, 1"),
        (lambda z, h: {"a": z, "h": h}, "logits", "output is 'logits': give output=, one of 'a'"),
        (lambda z, h: z, 0, "returns one tensor, leave it out"),
        (lambda z, h: None, None, "no tensor in it"),
    ],
)
def test_an_output_that_is_not_there_is_refused(
    kind: Callable[[Tensor, Tensor], object], output: str | int | None, match: str
) -> None:
    with pytest.raises(nt.NewtritonError, match=match):
        nt.from_torch(Structured(kind), torch.randn(3, 3), nt.MSELoss(), output=output)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"module": "resnet"}, "give a torch.nn.Module"),
        ({"loss": nn.CrossEntropyLoss()}, "of torch.nn: give e.g. newtriton.CrossEntropyLoss"),
        ({"example": None}, "an example batch or input_shape="),
        ({"input_shape": (3,)}, "one of them"),
        ({"module": nn.Tanh()}, "no parameters"),
        ({"example": torch.zeros(2, 1, 4, 4, dtype=torch.bool)}, "floats or int64"),
        ({"example": (torch.zeros(2, 3), torch.zeros(3))}, "first axis of every input"),
    ],
)
def test_what_is_no_module_loss_or_example_is_refused(given: dict[str, Any], match: str) -> None:
    options = {"module": small(), "example": batch()[0], "loss": CROSS_ENTROPY, **given}
    with pytest.raises(nt.NewtritonError, match=match):
        nt.from_torch(**options)


def test_dropout_is_drawn_once_for_a_linearization() -> None:
    module = nn.Sequential(nn.Linear(6, 40), nn.Dropout(0.5), nn.Linear(40, 3))
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    model = nt.from_torch(module, x, CROSS_ENTROPY, backend="aten", seed=3)
    first = model.linearize(x, y)
    assert model.objective(x, y) == pytest.approx(first.objective)
    assert model.linearize(x, y).objective != first.objective
    assert_close(model(x), module.eval()(x).detach())


def test_resnet20_trains_from_defaults() -> None:
    torch.manual_seed(0)
    module = ResNet(2, 1)
    x, y = torch.randn(16, 3, 8, 8), torch.arange(16) % 4
    model = nt.from_torch(module, x, CROSS_ENTROPY, backend="aten")
    optimizer = nt.KFAC(model)
    losses = [optimizer.step(x, y).loss for _ in range(6)]
    assert losses[-1] < losses[0]


def test_a_refused_capture_leaves_the_module_as_it_was() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    before = dict(module.state_dict(keep_vars=True))
    x = torch.zeros(2, 4)
    with pytest.raises(nt.NewtritonError, match="backend is 'none'"):
        nt.from_torch(module, x, nt.MSELoss(), dtype=torch.float64, backend="none")
    after = module.state_dict(keep_vars=True)
    assert all(after[name] is kept for name, kept in before.items())
    assert {values.dtype for values in after.values()} == {torch.float32, torch.int64}
    assert torch.equal(module.eval()(x), nn.Sequential(*module)(x))

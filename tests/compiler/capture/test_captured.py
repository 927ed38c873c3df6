"""Captured networks against themselves in PyTorch, how a graph is read, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import newtriton as nt
from newtriton.compiler.capture.captured import Captured, capture
from newtriton.compiler.graph.ir import Op, topological
from newtriton.compiler.language.network import Traced, trace

from ...modules import NETWORKS, Written, check_captured


@pytest.mark.parametrize("name", NETWORKS)
def test_derivatives_of_a_captured_network_are_autograds(name: str) -> None:
    check_captured(NETWORKS[name])


def traced(net: Captured, shape: tuple[int, ...], training: bool = True) -> Traced:
    return trace(net, shape, nt.CrossEntropyLoss(), training)


def layers(call: Callable[[nn.Module, Tensor], Tensor], **parts: nn.Module) -> nn.Module:
    return Written(call, **{"f": nn.Linear(3, 3), **parts})


def test_constants_are_folded_and_equal_for_all_samples() -> None:
    def call(m: nn.Module, x: Tensor) -> Tensor:
        positions = torch.arange(3).unsqueeze(0).expand(x.size(0), 3)
        return m.f(x) * positions.cos() + torch.zeros(x.size(0), 3).sin()

    found = traced(capture(layers(call), torch.zeros(2, 3)), (3,))
    (values,) = found.constants.values()
    assert torch.allclose(values.float(), torch.arange(3).float().cos())


def test_a_constant_that_samples_do_not_share_is_refused() -> None:
    net = capture(layers(lambda m, x: m.f(x) + torch.arange(x.size(0))[:, None]), torch.zeros(2, 3))
    with pytest.raises(nt.NewtritonError, match="other values for each sample"):
        traced(net, (3,))


def test_a_tied_parameter_is_one_under_its_first_name() -> None:
    module = layers(lambda m, x: m.g(m.f(x)), g=nn.Linear(3, 3))
    module.g.weight = module.f.weight
    found = traced(capture(module, torch.zeros(2, 3)), (3,))
    assert list(found.parameters) == ["f.weight", "f.bias", "g.bias"]


def test_weights_of_convolutions_lie_channels_last_unless_views_need_it() -> None:
    x = torch.zeros(2, 2, 4, 4)
    parts = {"c": nn.Conv2d(2, 3, 3), "f": nn.Linear(12, 2)}
    last = capture(Written(lambda m, x: m.f(m.c(x).flatten(1)), **parts), x)
    assert last.orders == {"c.weight": (0, 3, 1, 2)}
    first = capture(Written(lambda m, x: m.f(m.c(x).view(x.size(0), -1)), **parts), x)
    assert first.orders == {}


def test_positions_that_are_merged_with_samples_are_kept_apart_in_linear_layers() -> None:
    def call(m: nn.Module, x: Tensor) -> Tensor:
        return m.f(x.flatten(0, 1)).view(x.size(0), 4, 3).mean(1)

    found = traced(capture(layers(call), torch.zeros(2, 4, 3)), (4, 3))
    (product,) = [n for n in topological([found.z]) if n.op is Op.MATMUL]
    assert len(product.shape) == 3


def test_parts_in_evaluation_mode_stay_so_in_training() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    x = torch.zeros(2, 3)
    assert list(traced(capture(module, x), (3,)).running) == ["1.running_mean", "1.running_var"]
    module[1].eval()
    assert not traced(capture(module, x), (3,)).running


def test_batch_norm_that_averages_all_batches_has_no_momentum() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, momentum=None))
    assert traced(capture(module, torch.zeros(2, 3)), (3,)).momenta == {"1": None}
    assert module[1].momentum is None


def test_dropout_is_a_leaf_in_training_alone() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.3), nn.Dropout1d(0.2))
    net = capture(module, torch.zeros(2, 4, 3))
    sites = traced(net, (4, 3)).random.values()
    assert [node.shape[1:] for node in sites] == [(4, 3), (4, 1)]
    assert not traced(net, (4, 3), training=False).random


def test_stochastic_depth_that_is_written_out_drops_samples() -> None:
    def call(m: nn.Module, x: Tensor) -> Tensor:
        kept = (0.75 + torch.rand(x.size(0), 1)).floor_()
        more = torch.rand((x.size(0), 1)) < 0.5
        return x + m.f(x) / 0.75 * kept + m.f(x) * more

    model = nt.from_torch(layers(call), torch.randn(2, 3), nt.CrossEntropyLoss(), backend="aten")
    x, module = torch.ones(400, 3), model.module
    z = model.linearize(x, torch.zeros(400, dtype=torch.long)).outputs.detach()
    times = ((z - x) / module.f(x).detach()).mean(1)
    for count, share in ((0.0, 0.125), (1.0, 0.125), (4 / 3, 0.375), (7 / 3, 0.375)):
        found = float(torch.isclose(times, torch.tensor(count), atol=1e-3).float().mean())
        assert abs(found - share) < 0.08


# --- refusals -------------------------------------------------------------------------------------


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        return grads[0]


def branching(m: nn.Module, x: Tensor) -> Tensor:
    return m.f(x) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (branching, "branches on values at .*test_captured.py"),
        (lambda m, x: m.f(x.reshape(2, 3)), "takes the batch size for a number"),
        (lambda m, x: m.f(Straight.apply(m.f(x))), "Straight is a torch.autograd.Function"),
        (lambda m, x: m.f(x).topk(2).values, "aten.topk.default in forward .* no rule for it"),
        (lambda m, x: m.f(x) + torch.rand_like(x), "random numbers are drawn by dropout alone"),
        (lambda m, x: m.f(x) * m.f.weight.norm().item(), "keep it a tensor"),
        (lambda m, x: m.f(x).to(torch.bfloat16).float(), "a cast to torch.bfloat16"),
        (lambda m, x: m.f(x) + torch.rand(x.shape), "drawn by torch.nn.Dropout"),
        (lambda m, x: m.f(x) * ((r := torch.rand(3)) < 0.5) + (r > 0.5), "compared once with"),
        (lambda m, x: m.f(x).round(), "aten.round"),
        (lambda m, x: m.f(x).floor(), "aten.floor.* rounding"),
        (lambda m, x: m.f(x) // 2.0, "aten.floor_divide|that rounds"),
        (lambda m, x: m.f(x)[torch.arange(x.size(0)) * 0], "it takes other samples"),
        (lambda m, x: m.f(x)[:, x.argmax(1)].sum(1), "computed indices: use torch.gather"),
        (lambda m, x: m.f(x).argmax(0) + m.f(x), "samples of a batch are independent"),
        (lambda m, x: m.n(m.n(m.f(x))), "n is called twice"),
        (lambda m, x: m.i(m.f(x)[:, None])[:, 0], "set track_running_stats=False"),
    ],
)
def test_what_cannot_be_taken_is_named(
    call: Callable[[nn.Module, Tensor], Tensor], match: str
) -> None:
    parts = {"n": nn.BatchNorm1d(3), "i": nn.InstanceNorm1d(1, track_running_stats=True)}
    with pytest.raises(nt.NewtritonError, match=match):
        traced(capture(layers(call, **parts), torch.zeros(2, 3)), (3,))


def test_everything_that_cannot_be_taken_is_named_at_once() -> None:
    def call(m: nn.Module, x: Tensor) -> Tensor:
        y, _ = m.l(x)
        m.count.add_(1.0)
        return m.f(y[:, -1]).round() * m.count

    module = layers(call, l=nn.LSTM(3, 3, batch_first=True))
    module.register_buffer("count", torch.zeros(()))
    net = capture(module, torch.zeros(2, 4, 3))
    with pytest.raises(nt.NewtritonError) as caught:
        traced(net, (4, 3))
    text = str(caught.value)
    assert text.startswith("Written cannot be taken:\n")
    assert "aten.lstm.input in l (LSTM)" in text
    assert "aten.round.default in forward" in text  # of what the LSTM would give
    assert "buffer count is changed by forward" in text
    assert "modules.py:" in text


def test_hooks_on_gradients_are_refused() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    handle = module[1].weight.register_hook(lambda gradient: 2 * gradient)
    with pytest.raises(nt.NewtritonError, match=r"1\.weight has a backward hook"):
        capture(module, torch.zeros(2, 3))
    handle.remove()
    module[0].register_full_backward_hook(lambda *_: None)
    with pytest.raises(nt.NewtritonError, match="0 has a backward hook"):
        capture(module, torch.zeros(2, 3))


def test_what_is_computed_without_a_derivative_has_none() -> None:
    def call(m: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            gate = m.g(x).sigmoid()
        return m.f(x) * gate + m.g(x).detach()

    module, x = layers(call, g=nn.Linear(3, 3)), torch.randn(4, 3)
    model = nt.from_torch(module, x, nt.CrossEntropyLoss(), backend="aten")
    y = torch.tensor([0, 1, 2, 0])
    gradient = model.unflatten(model.linearize(x, y).gradient)
    functional.cross_entropy(module(x), y).backward()
    assert not gradient["g.weight"].any()
    assert torch.allclose(gradient["f.weight"], module.f.weight.grad, atol=1e-6)

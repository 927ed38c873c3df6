"""Dropout: numbers that follow from their place, one mask for all of a step, exact derivatives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Node
from newtriton.compiler.language.network import Scope
from newtriton.compiler.values import RandomNumbers
from newtriton.runtime.inputs.dropout import uniform
from tests.tolerances import assert_close

F64 = torch.float64
LIKE = torch.empty((), dtype=F64)


# --- random numbers -------------------------------------------------------------------------------


def test_numbers_are_uniform_and_independent() -> None:
    u = torch.stack([uniform((7, 1, site), (64, 512), 0, LIKE) for site in range(4)]).sub_(0.5)
    unit = 12.0 * u.numel() ** 0.5  # of a mean of products of independent ones
    assert abs(float(u.mean())) * (12.0 * u.numel()) ** 0.5 < 4.0
    assert float(u.min()) >= -0.5 and float(u.max()) < 0.5
    assert float(u.square().mean()) * 12.0 == pytest.approx(1.0, abs=0.01)
    for axis in range(3):  # sites, samples, elements
        size = u.shape[axis] - 1
        products = u.narrow(axis, 0, size) * u.narrow(axis, 1, size)
        assert abs(float(products.mean())) * unit < 5.0
    counts = torch.histc(u, 16, -0.5, 0.5) / (u.numel() / 16)
    assert (counts - 1.0).abs().max() < 0.05


def test_a_number_follows_from_its_place_alone() -> None:
    whole = uniform((3, 1), (9, 5, 2), 0, LIKE)
    assert torch.equal(uniform((3, 1), (4, 5, 2), 5, LIKE), whole[5:])
    places = torch.tensor([7, 0, 3])
    assert torch.equal(uniform((3, 1), (3, 5, 2), places, LIKE), whole[places])
    assert torch.equal(uniform((3, 1), (9, 10), 0, LIKE), whole.view(9, 10))
    assert torch.equal(uniform((3, 1), (9, 10), 0, LIKE.float()).double(), whole.view(9, 10))
    assert torch.equal(uniform((3, 1), (9, 20000), 0, LIKE)[:, :10], whole.view(9, 10))
    for place in ((4, 1), (3, 2), (1, 3)):
        assert not torch.equal(uniform(place, (9, 5, 2), 0, LIKE), whole)


# --- networks -------------------------------------------------------------------------------------


class Masked(nn.Module):
    """Dropout by a mask that is given."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask


def compiled(p: float = 0.4, backend: str = "aten", dtype: torch.dtype = F64, **options: Any):
    net = nt.Sequential(
        nt.Conv2d(3, 3, padding=1), nt.Dropout2d(0.5), nt.SiLU(), nt.Dropout(p), nt.Flatten(),
        nt.Linear(6), nt.Tanh(), nt.Dropout(p), nt.Linear(3),
    )  # fmt: skip
    return nt.compile(
        net, (2, 4, 3), nt.CrossEntropyLoss(), backend=backend, dtype=dtype, **options
    )


def batch(dtype: torch.dtype = F64, samples: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 2, 4, 3, generator=generator, dtype=dtype)
    return x, torch.randint(0, 3, (samples,), generator=generator)


def twin(model: nt.Model, samples: int, p: float) -> nn.Module:
    """The network in PyTorch, with the masks of the model's last linearization."""
    numbers = model.dropout(model.runner.context(samples))
    masks = [
        (u >= share).to(u.dtype) / (1.0 - share)
        for u, share in zip(numbers.values(), (0.5, p, p), strict=True)
    ]
    theirs = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), Masked(masks[0][:, :, None, None]), nn.SiLU(),
        Masked(masks[1].permute(0, 3, 1, 2)), nn.Flatten(), nn.Linear(36, 6), nn.Tanh(),
        Masked(masks[2]), nn.Linear(6, 3),
    ).to(model.dtype)  # fmt: skip
    theirs.load_state_dict(model.state_dict())
    return theirs


def test_derivatives_are_autograd_s_with_the_same_masks() -> None:
    model, (x, y) = compiled(), batch()
    lin = model.linearize(x, y)
    theirs = twin(model, len(x), 0.4)
    parameters = dict(theirs.named_parameters())
    v = torch.randn_like(model.params)
    parts = model.unflatten(v)

    def loss() -> Tensor:
        return nn.functional.cross_entropy(theirs(x), y)

    gradient = torch.autograd.grad(loss(), list(parameters.values()), create_graph=True)
    slope = sum((g * parts[n]).sum() for n, g in zip(parameters, gradient, strict=True))
    product = torch.autograd.grad(slope, list(parameters.values()))
    hv = model.flatten(dict(zip(parameters, product, strict=True)))
    assert_close(lin.loss, loss())
    slopes = {name: g.detach() for name, g in zip(parameters, gradient, strict=True)}
    assert_close(lin.gradient, model.flatten(slopes))
    assert_close(lin.hvp(v), hv)
    assert_close(lin.quadratic_forms([v]), torch.dot(v, hv).view(1, 1))

    def z(*values: Tensor) -> Tensor:
        return torch.func.functional_call(theirs, dict(zip(parameters, values, strict=True)), (x,))

    values, tangents = tuple(parameters.values()), tuple(parts[n] for n in parameters)
    z_dot = torch.func.jvp(z, values, tangents)[1]
    q = z(*values).softmax(1)
    form = (q * z_dot.square()).sum() - (q * z_dot).sum(1).square().sum()
    assert_close(lin.quadratic_forms([v], "ggn"), (form / len(x)).view(1, 1))


def test_evaluation_is_the_identity() -> None:
    model, (x, y) = compiled(), batch()
    theirs, before = twin(model, 8, 0.4), model.dropout.state_dict()
    for module in theirs:
        if isinstance(module, Masked):
            module.mask = torch.ones(())
    assert_close(model(x), theirs(x))
    lin = model.linearize(x, y, training=False)
    assert_close(lin.outputs, theirs(x))
    assert model.dropout.state_dict() == before


def test_the_losses_of_a_step_have_the_masks_of_its_linearization() -> None:
    model, (x, y) = compiled(), batch()
    lin = model.linearize(x, y)
    assert model.objective(x, y) == lin.objective
    _ = model(x), model.loss(x, y), model.objective(x, y, training=False)
    assert model.objective(x, y) == lin.objective
    other = model.linearize(x, y).objective
    assert other != lin.objective == compiled().linearize(x, y).objective
    loss, *_ = model.gradient(x, y)
    assert loss not in (other, lin.objective) and model.objective(x, y) == loss
    with model.dropout.kept():
        assert model.gradient(x, y)[0] == model.linearize(x, y).objective == loss


def test_a_mask_belongs_to_a_sample_of_a_step() -> None:
    model, (x, y) = compiled(), batch()
    lin = model.linearize(x, y)
    with model.dropout.kept(3):
        part = model.linearize(x[3:], y[3:])
    assert_close(part.outputs, lin.outputs[3:])


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_shares_at_the_ends(p: float) -> None:
    net = nt.Sequential(nt.Dropout(p), nt.Linear(3))
    model = nt.compile(net, (4,), nt.CrossEntropyLoss(), backend="aten", dtype=F64)
    x, y = torch.randn(5, 4, dtype=F64), torch.tensor([0, 1, 2, 0, 1])
    bias = model.unflatten(model.params)["1.bias"]
    expected = model(x) if p == 0.0 else bias.expand(5, 3)
    assert_close(model.linearize(x, y).outputs, expected)
    assert not model.dropout.sites


def test_samples_need_not_lie_on_the_first_axis() -> None:
    class Turned:
        """Drops elements of T×N×D, and of (N·T)×D with the same numbers to follow."""

        def build(self, x: Node, scope: Scope) -> Node:
            times = ops.transpose(scope.dropout(ops.transpose(x, (1, 0, 2)), 0.5), (1, 0, 2))
            rows = ops.reshape(times, (x.shape[0] * 3, 2))
            flat = ops.reshape(scope.dropout(rows, 0.5), (x.shape[0], 6))
            return scope.build("map", nt.Linear(2), flat)

    model = nt.compile(Turned(), (3, 2), nt.MSELoss(), backend="aten", dtype=F64)
    x, y = torch.ones(4, 3, 2, dtype=F64), torch.zeros(4, 2, dtype=F64)
    lin = model.linearize(x, y)
    first, second = model.dropout(model.runner.context(4)).values()
    masks = [(u >= 0.5).to(F64) / 0.5 for u in (first.reshape(4, 3, 2), second.reshape(4, 3, 2))]
    weights = model.unflatten(model.params)
    flat = (masks[0] * masks[1]).flatten(1)
    assert_close(lin.outputs, flat @ weights["map.weight"].T + weights["map.bias"])
    with model.dropout.kept(1):
        assert_close(model.linearize(x[1:], y[1:]).outputs, lin.outputs[1:])


def test_what_all_samples_share_drops_for_all() -> None:
    class Shared:
        """Adds a vector of which elements drop out, and a number that does."""

        def build(self, x: Node, scope: Scope) -> Node:
            bias = scope.dropout(scope.parameter("bias", (4,), "ones", (4, 4)), 0.5)
            scale = scope.dropout(ops.const(1.0), 0.5)
            return ops.total([x, *(ops.broadcast(part, x.shape) for part in (bias, scale))])

    model = nt.compile(Shared(), (4,), nt.MSELoss(), backend="aten", dtype=F64)
    x = torch.zeros(3, 4, dtype=F64)
    lin = model.linearize(x, x)
    assert (lin.outputs == lin.outputs[0]).all() and {*lin.outputs.flatten().tolist()} <= {0, 2, 4}
    with model.dropout.kept(2):
        assert torch.equal(model.linearize(x[2:], x[2:]).outputs, lin.outputs[2:])


def test_a_program_is_fed_the_numbers_of_every_place() -> None:
    model = compiled()
    read = {key for key in model.programs[True].linearize.inputs if isinstance(key, RandomNumbers)}
    assert read == {RandomNumbers(name) for name in model.dropout.sites} and len(read) == 3
    assert not any(isinstance(key, RandomNumbers) for key in model.programs[False].outputs.inputs)


@pytest.mark.interpreter
def test_fused_kernels_drop_the_same() -> None:
    models = [compiled(backend=b, dtype=torch.float32) for b in ("aten", "triton")]
    x, y = batch(torch.float32)
    found, expected = (model.linearize(x, y) for model in reversed(models))
    assert_close(found.gradient, expected.gradient)
    assert_close(found.hvp(models[0].params), expected.hvp(models[0].params))
    assert models[1].objective(x, y) == pytest.approx(found.objective, rel=2e-5)


def test_a_refused_batch_draws_no_seed() -> None:
    net = nt.Sequential(nt.Linear(4), nt.Dropout(0.5), nt.Linear(3))
    model = nt.compile(net, (4,), nt.MSELoss(), backend="aten", device="cpu")
    x, y = torch.full((2, 4), math.nan), torch.zeros(2, 3)
    before = model.dropout.state_dict()
    for call in (model.linearize, model.gradient, lambda x, y: nt.LinearizedData(model, [(x, y)])):
        with pytest.raises(nt.NewtritonError, match="NaN"):
            call(x, y)
        assert model.dropout.state_dict() == before

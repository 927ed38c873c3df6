"""The model: PyTorch's names, shapes, initialisation and running statistics; nothing is shared."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import newtriton as nt
from tests.tolerances import assert_close


def small() -> nt.Sequential:
    return nt.Sequential(
        nt.Conv2d(4, 3, padding=1), nt.BatchNorm2d(), nt.ReLU(), nt.MaxPool2d(2),
        nt.Residual(nt.Conv2d(4, 3, padding="same")), nt.Flatten(), nt.Linear(3),
    )  # fmt: skip


def compiled(**options: object) -> nt.Model:
    return nt.compile(small(), (2, 6, 6), nt.CrossEntropyLoss(), dtype=torch.float64, **options)  # type: ignore[arg-type]


def batch(n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(n, 2, 6, 6, dtype=torch.float64), torch.randint(0, 3, (n,))


def test_state_goes_round_through_torch() -> None:
    model = compiled()
    state = model.state_dict()
    assert state["0.weight"].shape == (4, 2, 3, 3)
    assert state["4.body.weight"].shape == (4, 4, 3, 3)
    assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} <= set(state)
    other = nt.compile(small(), (2, 6, 6), nt.CrossEntropyLoss(), dtype=torch.float64, seed=5)
    other.load_state_dict(state)
    assert torch.equal(other.params, model.params)
    state["0.weight"].zero_()
    assert model.state_dict()["0.weight"].any(), "a state dict is a copy"


def test_parameters_are_views_in_torch_shapes() -> None:
    model = compiled()
    named = dict(model.named_parameters())
    named["6.bias"].fill_(3.0)
    assert (model.state_dict()["6.bias"] == 3.0).all()
    assert [p.shape for p in model.parameters()] == [p.shape for p in named.values()]


def test_flatten_and_unflatten_are_inverse() -> None:
    model = compiled()
    v = torch.randn_like(model.params)
    assert torch.equal(model.flatten(model.unflatten(v)), v)
    assert model.params.numel() == sum(p.numel() for p in model.parameters())


def test_large_parameters_start_on_aligned_addresses() -> None:
    model = compiled()
    for name, part in model.layout.slices.items():
        if (part.stop - part.start) % 16 == 0:
            assert part.start % 16 == 0, name


def test_running_statistics_are_torchs() -> None:
    model = compiled()
    module = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)).double()
    state = {k: v for k, v in model.state_dict().items() if k[0] in "01"}
    module.load_state_dict(state)
    x, y = batch()
    for _ in range(2):
        lin = model.linearize(x, y)
        model.update_statistics(lin.statistics)
        module(x)
    for name, expected in module.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], expected)


def test_a_cumulative_average_of_statistics() -> None:
    net = nt.Sequential(nt.Conv2d(2, 1), nt.BatchNorm2d(momentum=None), nt.Flatten(), nt.Linear(2))
    model = nt.compile(net, (1, 3, 3), nt.CrossEntropyLoss(), dtype=torch.float64)
    means = []
    for seed in range(3):
        torch.manual_seed(seed)
        lin = model.linearize(
            torch.randn(4, 1, 3, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
        )
        means.append(lin.statistics["1.running_mean"])
        model.update_statistics(lin.statistics)
    torch.testing.assert_close(model.state_dict()["1.running_mean"], torch.stack(means).mean(0))


def test_linearizing_changes_nothing() -> None:
    model = compiled(weight_decay=0.1)
    before = model.state_dict()
    x, y = batch()
    lin = model.linearize(x, y)
    v = torch.randn_like(model.params)
    for call in (lambda: lin.hvp(v), lambda: lin.ggnvp(v), lambda: lin.quadratic_forms([v])):
        call()
    lin.kronecker_factors("kfac")
    model.objective(x, y)
    model(x)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_two_linearizations_live_at_once() -> None:
    model = compiled()
    x, y = batch()
    v = torch.randn_like(model.params)
    first = model.linearize(x, y)
    expected = first.hvp(v)
    second = model.linearize(x.flip(0) * 2, y)
    second.hvp(v)
    second.gradient.zero_()
    assert torch.equal(first.hvp(v), expected)
    assert first.gradient.any()


def test_returned_tensors_belong_to_the_caller() -> None:
    model = compiled()
    x, y = batch()
    lin = model.linearize(x, y)
    v = torch.randn_like(model.params)
    product, outputs = lin.hvp(v), lin.outputs.clone()
    lin.outputs.zero_()
    lin.kronecker_factors("empirical")["0"].G.zero_()  # type: ignore[union-attr]
    again = lin.hvp(v)
    assert torch.equal(again, product)
    assert outputs.any()


def test_evaluation_mode_uses_running_statistics() -> None:
    model = compiled()
    x, y = batch()
    assert_close(model(x[:1]), model(x)[:1], "one sample alone")
    assert model.loss(x, y).item() != pytest.approx(model.objective(x, y), rel=1e-6)
    assert model.loss(x, y).item() == pytest.approx(model.objective(x, y, training=False))


def test_weight_decay_is_part_of_everything() -> None:
    plain, decayed = compiled(), compiled(weight_decay=0.3)
    x, y = batch()
    a, b = plain.linearize(x, y), decayed.linearize(x, y)
    v, p = torch.randn_like(plain.params), plain.params
    assert_close(b.loss, a.loss + 0.15 * p @ p)
    assert_close(b.gradient, a.gradient + 0.3 * p)
    assert_close(b.hvp(v), a.hvp(v) + 0.3 * v)
    assert_close(b.ggnvp(v), a.ggnvp(v) + 0.3 * v)
    assert_close(b.quadratic_forms([v]), a.quadratic_forms([v]) + 0.3 * v @ v)
    assert torch.equal(
        b.kronecker_factors("empirical")["0"].G, a.kronecker_factors("empirical")["0"].G
    )  # type: ignore[union-attr]


def test_explain_counts_every_program() -> None:
    text = compiled().explain(batch=32)
    for name in (
        "evaluate",
        "linearize",
        "hvp",
        "ggnvp",
        "quadratic(1, hessian)",
        "factors(kfac, 1)",
    ):
        assert name in text
    assert "tape of a linearization" in text


def test_explain_says_what_a_step_takes_and_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWTRITON_MEMORY", "5e9")
    model = compiled()
    line = model.explain(batch=32).splitlines()[-1]
    programs = model.programs[True]
    (count,) = model.runner.footprints(programs, [programs.linearize], 32).values()
    assert line.startswith("memory of a step on 32 samples: ") and line.endswith("; 5 GB free")
    assert f" {count(32).peak / 1e6:.3g} MB while it is linearized" in line
    assert f"then {count(32).kept / 1e6:.3g} MB" in line


@pytest.mark.parametrize("make", [nt.models.vgg11, nt.models.vgg16, nt.models.vgg19])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_vgg_has_the_parameters_of_its_configuration(make: object, batch_norm: bool) -> None:
    counts = {"vgg11": 9_220_480, "vgg16": 14_714_688, "vgg19": 20_024_384}  # convolutions
    channels = {"vgg11": 2752, "vgg16": 4224, "vgg19": 5504}
    name = make.__name__  # type: ignore[attr-defined]
    model = nt.compile(make(batch_norm=batch_norm), (3, 32, 32), nt.CrossEntropyLoss())  # type: ignore[operator]
    expected = counts[name] + 512 * 10 + 10 + 2 * channels[name] * batch_norm
    assert model.params.numel() == expected


def test_the_papers_other_networks_run() -> None:
    torch.manual_seed(0)
    image = torch.randn(2, 3, 8, 8)
    for net in (nt.models.cnn3(), nt.models.cnn5(), nt.models.mlp((6, 5))):
        model = nt.compile(net, (3, 8, 8), nt.CrossEntropyLoss())
        assert model(image).shape == (2, 10)
    coder = nt.compile(nt.models.autoencoder(16), (16,), nt.BCEWithLogitsLoss())
    assert coder(torch.rand(3, 16)).shape == (3, 16)


def test_a_linearization_knows_that_its_batch_has_changed() -> None:
    model = compiled()
    x, y = batch()
    v = torch.randn_like(model.params)
    lin, again = model.linearize(x, y), model.linearize(x.clone(), y)
    x.mul_(2.0)
    with pytest.raises(nt.NewtritonError, match="the inputs have changed"):
        lin.hvp(v)
    again.hvp(v)
    evaluated = model.linearize(x, y, training=False)
    model.update_statistics(again.statistics)
    with pytest.raises(nt.NewtritonError, match=r"1\.running_mean have changed|1\.num_batches"):
        evaluated.hvp(v)


def test_what_is_called_ahead_is_a_function_that_gives_programs() -> None:
    model = nt.compile(nt.Linear(1), (2,), nt.MSELoss(), device="cpu", backend="aten")
    data = torch.zeros(2, 2), torch.zeros(2, 1)
    with pytest.raises(nt.NewtritonError, match=r"ahead is .*: give a function of the batch size"):
        model.linearize(*data, ahead=torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(nt.NewtritonError, match=r"ahead gave \(2,\): give a list of programs"):
        model.linearize(*data, ahead=lambda *given: given)  # type: ignore[arg-type,return-value]
    assert model.linearize(*data, ahead=lambda batch: [model.programs[True].hvp]).batch == 2
    for order in ([0, 1], torch.zeros(2), torch.arange(3)):
        with pytest.raises(nt.NewtritonError, match=r"order (is|are) .*: give a "):
            model.linearize(*data, order=order)  # type: ignore[arg-type]

"""TorchOptimizer against torch.optim on the same function, and what it does when numbers fail."""

from __future__ import annotations

import copy
import io
import math
from functools import partial

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.optimizers.first_order import TorchOptimizer

from ..problems import problem
from ..stand_in import MLP, Quadratic, assert_identical, batch, broken, positive

OPTIMIZERS = {
    "nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {"lr": 0.05}),
    "decay": (torch.optim.AdamW, {"lr": 0.05, "weight_decay": 0.1}),
    "lbfgs": (torch.optim.LBFGS, {"lr": 0.5, "history_size": 4, "max_iter": 5}),
    "wolfe": (torch.optim.LBFGS, {"line_search_fn": "strong_wolfe", "max_iter": 4}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_torch(name):
    cls, options = OPTIMIZERS[name]
    model = MLP(weight_decay=0.01)
    parameter = torch.nn.Parameter(model.params.clone())
    theirs = cls([parameter], **options)
    ours = TorchOptimizer(model, cls, **options)
    for n in range(6):
        x, y = batch(n)

        def closure(x=x, y=y):
            theirs.zero_grad()
            h = model.h(parameter, x, y)
            h.backward()
            return h

        start, loss = parameter.detach().clone(), theirs.step(closure).item()
        report = ours.step(x, y)
        assert report.accepted
        assert report.loss == pytest.approx(loss, rel=1e-12)
        assert report.step_norm == pytest.approx((parameter - start).norm().item())
        torch.testing.assert_close(model.params, parameter.detach(), rtol=1e-9, atol=1e-12)
    assert model.accepted == 6


def test_lbfgs_makes_no_evaluation_twice():
    model = MLP()
    counted, evaluate = [], model.gradient
    model.gradient = lambda x, y: counted.append(1) or evaluate(x, y)
    optimizer = TorchOptimizer(model, torch.optim.LBFGS, max_iter=5)
    optimizer.step(*batch())
    assert len(counted) == optimizer.optimizer.state[optimizer.flat]["func_evals"] == 5


def test_steps_on_the_models_own_memory():
    model = MLP()
    optimizer = TorchOptimizer(model, torch.optim.SGD, lr=0.1)
    version = model.params._version
    assert optimizer.flat.data_ptr() == model.params.data_ptr()
    optimizer.step(*batch())
    assert model.params._version > version, "linearizations could not tell that they are stale"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_loss_that_is_not_finite_changes_nothing_and_the_tenth_raises(name):
    cls, options = OPTIMIZERS[name]
    model = MLP()
    optimizer = TorchOptimizer(model, cls, **options)
    optimizer.step(*batch())
    before, state = model.params.clone(), optimizer.state_dict()["optimizer"]
    for n in range(1, 10):
        report = optimizer.step(*broken())
        assert (report.accepted, report.rejected, report.step_norm) == (False, n, 0.0)
        assert report.status == "loss nan"
    with pytest.raises(NewtritonError, match="10 steps in a row"):
        optimizer.step(*broken())
    assert torch.equal(model.params, before)
    assert_identical(optimizer.state_dict()["optimizer"], state)
    assert model.accepted == 1
    assert optimizer.step(*batch()).rejected == 0


@pytest.mark.parametrize("name", ["nesterov", "lbfgs"])
def test_a_step_that_overflows_is_taken_back_with_its_state(name):
    cls, options = OPTIMIZERS[name]
    model = MLP()
    optimizer = TorchOptimizer(model, cls, **options)
    optimizer.step(*batch())
    before, state = model.params.clone(), optimizer.state_dict()["optimizer"]["state"]
    group = optimizer.optimizer.param_groups[0]
    lr, group["lr"] = group["lr"], math.inf
    for n in range(1, 10):
        report = optimizer.step(*batch())
        assert (report.accepted, report.rejected) == (False, n)
        assert report.status == "a step that is not finite"
    with pytest.raises(NewtritonError, match="10 steps in a row"):
        optimizer.step(*batch())
    assert torch.equal(model.params, before)
    assert_identical(optimizer.state_dict()["optimizer"]["state"], state)
    group["lr"] = lr
    assert optimizer.step(*batch()).accepted


class Cliff(Quadratic):
    """NaN at all but its starting point."""

    def value(self, params, x, y):
        value = super().value(params, x, y)
        return value if not params.any() else value * math.nan


def test_lbfgs_does_not_end_on_a_loss_that_is_not_finite():
    model = Cliff(positive(4), positive(3))
    optimizer = TorchOptimizer(model, torch.optim.LBFGS, max_iter=5, max_eval=2)
    assert not optimizer.step(*batch()).accepted
    assert not model.params.any()


def test_an_interrupt_takes_the_step_back():
    model = MLP()
    optimizer = TorchOptimizer(model, torch.optim.LBFGS, max_iter=5)
    before, evaluate, calls = model.params.clone(), model.gradient, []

    def gradient(x, y):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(x, y)

    model.gradient = gradient
    with pytest.raises(KeyboardInterrupt):
        optimizer.step(*batch())
    assert torch.equal(model.params, before)
    assert not optimizer.optimizer.state[optimizer.flat]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_saved_state_resumes_bit_for_bit(name):
    cls, options = OPTIMIZERS[name]
    model, other_model = MLP(), MLP()
    optimizer, other = (TorchOptimizer(m, cls, **options) for m in (model, other_model))
    for n in range(3):
        optimizer.step(*batch(n))
    file = io.BytesIO()
    state = optimizer.state_dict()
    torch.save(state, file)
    file.seek(0)
    other_model.params.copy_(model.params)
    other.load_state_dict(torch.load(file, weights_only=True))
    kept = copy.deepcopy(state)
    for n in range(3, 6):
        assert optimizer.step(*batch(n)) == other.step(*batch(n))
    assert torch.equal(model.params, other_model.params)
    assert_identical(state, kept)  # a saved state does not follow the optimizer


def test_refuses_options():
    with pytest.raises(
        NewtritonError, match=r"SGD.* has no option 'momentun'.*did you mean 'momentum'"
    ):
        TorchOptimizer(MLP(), torch.optim.SGD, lr=0.1, momentun=0.9)
    with pytest.raises(NewtritonError, match="cls is 'SGD': give a class of torch"):
        TorchOptimizer(MLP(), "SGD", lr=0.1)


def test_a_schedule_may_be_made_after_the_state_that_it_left_options_in():
    optimizer, other = (TorchOptimizer(MLP(), torch.optim.SGD, lr=0.1) for _ in range(2))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer.optimizer, 1, 0.5)
    optimizer.step(*batch())
    schedule.step()
    other.load_state_dict(optimizer.state_dict())
    again = torch.optim.lr_scheduler.StepLR(other.optimizer, 1, 0.5, last_epoch=1)
    assert again.get_last_lr() == [0.025]
    with pytest.raises(NewtritonError, match="only one of the two has: initial_lr"):
        other.load_state_dict(TorchOptimizer(MLP(), torch.optim.SGD, lr=0.1).state_dict())


def falling(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1.0 / (1.0 + 0.5 * t))


def test_a_schedule_goes_on_after_each_step_that_is_made_and_is_resumed():
    """The rate η₀/(1 + γt) of Wang, Tan & Lin (2020), Algorithm 2."""
    options = {"lr": 0.1, "momentum": 0.9, "schedule": falling}
    models = [MLP(), MLP()]
    optimizer, other = (TorchOptimizer(model, torch.optim.SGD, **options) for model in models)
    assert optimizer.step(*batch()).lr == 0.1
    assert not optimizer.step(*broken()).accepted
    assert [optimizer.step(*batch(n)).lr for n in (1, 2)] == [0.1 / 1.5, 0.1 / 2.0]
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    models[1].params.copy_(models[0].params)
    other.load_state_dict(torch.load(file, weights_only=True))
    for n in range(3, 6):
        report = optimizer.step(*batch(n))
        assert report == other.step(*batch(n)) and report.lr == 0.1 * (1.0 / (1.0 + 0.5 * n))
    assert torch.equal(models[0].params, models[1].params)
    with pytest.raises(NewtritonError, match="unexpected schedule"):
        TorchOptimizer(MLP(), torch.optim.SGD, lr=0.1).load_state_dict(other.state_dict())
    stepped = partial(torch.optim.lr_scheduler.StepLR, step_size=3)
    another = TorchOptimizer(MLP(), torch.optim.SGD, lr=0.1, momentum=0.9, schedule=stepped)
    with pytest.raises(NewtritonError, match="the schedule is no StepLR"):
        another.load_state_dict(other.state_dict())


@pytest.mark.parametrize("schedule", ["StepLR", torch.optim.lr_scheduler.ReduceLROnPlateau, repr])
def test_refuses_what_is_no_schedule(schedule):
    with pytest.raises(NewtritonError, match=r"give what makes one of torch\.optim"):
        TorchOptimizer(MLP(), torch.optim.SGD, lr=0.1, schedule=schedule)


def test_lbfgs_steps_on_the_mean_over_all_batches() -> None:
    net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(2))
    torch.manual_seed(0)
    x, y = torch.randn(9, 3, dtype=torch.float64), torch.rand(9, 2, dtype=torch.float64)
    ends = []
    for data in ([(x, y)], [(x[:2], y[:2]), (x[2:], y[2:])]):
        model = nt.compile(net, (3,), nt.MSELoss(), dtype=torch.float64, weight_decay=0.1)
        optimizer = nt.TorchOptimizer(model, torch.optim.LBFGS, lr=0.5, max_iter=4)
        reports = [optimizer.step(data) for _ in range(3)]
        assert reports[-1].loss < reports[0].loss
        ends.append(model.params.clone())
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-12)


def test_data_are_for_lbfgs_and_can_be_passed_through_again() -> None:
    model = nt.compile(nt.Linear(2), (3,), nt.MSELoss())
    x, y = torch.randn(4, 3), torch.rand(4, 2)
    with pytest.raises(nt.NewtritonError, match="SGD steps on a batch"):
        nt.TorchOptimizer(model, torch.optim.SGD, lr=0.1).step([(x, y)])
    optimizer = nt.TorchOptimizer(model, torch.optim.LBFGS)
    with pytest.raises(nt.NewtritonError, match="one-shot iterator"):
        optimizer.step(iter([(x, y)]))
    with pytest.raises(nt.NewtritonError, match="no batches"):
        optimizer.step([])
    with pytest.raises(nt.NewtritonError, match="inputs without labels"):
        optimizer.step(x)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_compiled_network_follows_an_equal_module(name: str) -> None:
    cls, options = OPTIMIZERS[name]
    net = nt.Sequential(
        *(nt.Conv2d(4, 3, padding=1, bias=False), nt.BatchNorm2d(), nt.SiLU(), nt.MaxPool2d(2)),
        *(nt.Flatten(), nt.Linear(3)),
    )
    model = nt.compile(net, (2, 4, 4), nt.CrossEntropyLoss(), dtype=torch.float64)
    module = torch.nn.Sequential(
        *(
            torch.nn.Conv2d(2, 4, 3, padding=1, bias=False),
            torch.nn.BatchNorm2d(4),
            torch.nn.SiLU(),
        ),
        *(torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(16, 3)),
    ).double()
    module.load_state_dict(model.state_dict())
    theirs = cls(module.parameters(), **options)
    ours = TorchOptimizer(model, cls, **options)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        x = torch.randn(9, 2, 4, 4, generator=generator, dtype=torch.float64)
        y = torch.randint(0, 3, (9,), generator=generator)

        def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            theirs.zero_grad()
            loss = torch.nn.functional.cross_entropy(module(x), y)
            loss.backward()
            return loss

        expected = theirs.step(closure).item()
        assert ours.step(x, y).loss == pytest.approx(expected, rel=1e-10)
    parameters, state = dict(module.named_parameters()), module.state_dict()
    for key, value in model.state_dict().items():
        if key in parameters or cls is not torch.optim.LBFGS:  # whose closure runs the module more
            torch.testing.assert_close(value, state[key], rtol=1e-9, atol=1e-10, msg=key)
    assert int(model.buffers["1.num_batches_tracked"]) == 5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_linearizations_notice_a_step(name: str) -> None:
    cls, options = OPTIMIZERS[name]
    model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), dtype=torch.float64)
    lin = model.linearize(*batch())
    lin.hvp(model.params)
    TorchOptimizer(model, cls, **options).step(*batch())
    with pytest.raises(NewtritonError, match="have changed"):
        lin.hvp(model.params)


@pytest.mark.parametrize("rate", [math.nan, -1.0, math.inf, ValueError("mine")])
def test_a_schedule_that_fails_undoes_the_step(rate: float | ValueError) -> None:
    def schedule(t: int) -> float:
        if t < 3:
            return 1.0
        if isinstance(rate, ValueError):
            raise rate
        return rate

    model, [(x, y)] = problem("mlp")
    made = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=schedule)
    optimizer = nt.TorchOptimizer(model, torch.optim.Adam, lr=0.01, schedule=made)
    optimizer.step(x, y)
    optimizer.step(x, y)
    params, state = model.params.clone(), optimizer.state_dict()
    wanted = ValueError if isinstance(rate, ValueError) else nt.NewtritonError
    with pytest.raises(wanted, match=r"mine|the schedule gives the learning rate .* after step 3"):
        optimizer.step(x, y)
    assert torch.equal(model.params, params)
    assert_identical(optimizer.state_dict(), state)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (torch.optim.SGD, {"momentum": math.nan}, "momentum is nan: give a number"),
        (torch.optim.SGD, {"momentum": torch.tensor(math.nan)}, "momentum is nan: give a number"),
        (torch.optim.SGD, {"momentum": 1e300}, r"momentum is 1e\+300: give a number ≤"),
        (torch.optim.SGD, {"nesterov": {}}, "nesterov is {}: give True or False"),
        (torch.optim.Rprop, {"step_sizes": (1e-6, math.nan)}, r"step_sizes is .*: NaN is no"),
        (torch.optim.LBFGS, {"lr": 10**400}, "lr is 1000"),
    ],
)
def test_options_are_checked_whatever_their_defaults(cls, options, message):
    model = nt.compile(nt.Linear(1), (2,), nt.MSELoss(), device="cpu")
    with pytest.raises(NewtritonError, match=message):
        TorchOptimizer(model, cls, **options)


@pytest.mark.parametrize("make", [TorchOptimizer, nt.Preconditioned, nt.SecondOrder])
def test_a_missing_argument_is_one_error(make):
    with pytest.raises(
        NewtritonError, match=rf"{make.__name__}\(\) is missing a .*'model'.* model,"
    ):
        make()


@pytest.mark.parametrize("cls", [torch.optim.Adam, torch.optim.LBFGS, torch.optim.Adadelta])
def test_a_step_is_taken_back_after_which_the_state_is_not_finite(cls):
    model = nt.compile(nt.Linear(1), (2,), nt.MSELoss(), dtype=torch.float64, device="cpu")
    optimizer = TorchOptimizer(model, cls, lr=0.01)
    x, y = torch.ones(4, 2, dtype=torch.float64), torch.ones(4, 1, dtype=torch.float64)
    optimizer.step(x, y)
    before = model.state_dict(), optimizer.state_dict()
    report = optimizer.step(1e100 * x, 1e120 * y)  # the loss is 1e240, the gradient 1e220
    assert not report.accepted and "that is not finite" in report.status
    before[1]["rejected"] = 1
    assert_identical((model.state_dict(), optimizer.state_dict()), before)
    assert optimizer.step(x, y).accepted

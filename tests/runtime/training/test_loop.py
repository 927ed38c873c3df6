"""The loop's contract, on a linear model trained by automatic differentiation."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss, one_hot

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.data.samples import Batches
from newtriton.runtime.training.history import History
from newtriton.runtime.training.loop import evaluate, fit

Batch = tuple[torch.Tensor, torch.Tensor]


class LinearModel:
    """Softmax regression on two features, or least squares for floating labels."""

    device = torch.device("cpu")
    dtype = torch.float64

    def __init__(self) -> None:
        self.weight = torch.zeros(2, 2, dtype=self.dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == self.dtype
        return x @ self.weight

    def classes(self, x: torch.Tensor) -> torch.Tensor:
        return self(x).argmax(1)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.criterion(x, y, self.weight)

    def gradient(self, x: torch.Tensor, y: torch.Tensor) -> tuple[float, torch.Tensor]:
        weight = self.weight.clone().requires_grad_()
        loss = self.criterion(x, y, weight)
        return loss.item(), torch.autograd.grad(loss, weight)[0]

    @staticmethod
    def criterion(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return (mse_loss if y.is_floating_point() else cross_entropy)(x @ weight, y)


class Status(Enum):
    DONE = 1


@dataclass
class Report:
    loss: float
    lr: float
    size: torch.Tensor
    status: Status = Status.DONE
    rho: float | None = None


class Descent:
    """Gradient descent, which can stop as if by Ctrl-C."""

    def __init__(self, model: LinearModel, interrupt_at: int | None = None) -> None:
        self.model, self.interrupt_at, self.steps = model, interrupt_at, 0

    def step(self, x: torch.Tensor, y: torch.Tensor) -> Report:
        self.steps += 1
        if self.steps == self.interrupt_at:
            raise KeyboardInterrupt
        loss, gradient = self.model.gradient(x, y)
        self.model.weight -= 0.5 * gradient
        return Report(loss, 0.5, gradient.norm())


def data(n: int = 40) -> Batch:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def batches(size: int = 16) -> Batches:
    return Batches(*data(), batch_size=size)


def train(**options) -> History:
    model = LinearModel()
    arguments = {"train": batches(), "epochs": 2, "progress": False} | options
    return fit(model, Descent(model), **arguments)


def test_a_run_records_its_steps_and_epochs():
    history = train(validation=[data()], epochs=3)
    assert [epoch.number for epoch in history.epochs] == [1, 2, 3]
    assert [epoch.steps for epoch in history.epochs] == [3, 6, 9]
    assert [step["step"] for step in history.steps] == list(range(1, 10))
    assert [step["epoch"] for step in history.steps] == [1] * 3 + [2] * 3 + [3] * 3
    seconds = [step["seconds"] for step in history.steps]
    assert seconds == sorted(seconds)
    assert [epoch.seconds for epoch in history.epochs] == seconds[2::3]
    assert history.epochs[-1].validation_accuracy > 0.9
    assert history.epochs[-1].loss < history.epochs[0].loss
    assert not history.interrupted


def test_reports_become_plain_values(tmp_path):
    history = train()
    assert set(history.steps[0]) == {
        *("step", "epoch", "seconds"),
        *("loss", "lr", "size", "status", "rho"),
    }
    assert history.steps[0]["status"] == "DONE"
    history.save(tmp_path / "history.json")
    assert History.load(tmp_path / "history.json") == history


def test_an_epochs_loss_weighs_samples_not_batches():
    history = train(train=Batches(*data(), batch_size=32, shuffle=False), epochs=1)
    first, second = (step["loss"] for step in history.steps)
    assert history.epochs[0].loss == pytest.approx((32 * first + 8 * second) / 40)


def test_validation_weighs_samples_not_batches():
    model = LinearModel()
    model.weight[:] = torch.tensor([[-1.0, 1.0], [0.5, 0.0]])
    x, y = data()
    whole = evaluate(model, [(x, y)])
    parts = evaluate(model, [(x[:33], y[:33]), (x[33:], y[33:])])
    assert parts == pytest.approx(whole)


def test_floating_labels_have_no_accuracy():
    x, y = data()
    targets = one_hot(y, 2).float()
    history = train(train=[(x, targets)], validation=[(x, targets)])
    assert history.epochs[-1].validation_accuracy is None
    assert history.epochs[-1].validation_loss < history.epochs[0].validation_loss


def test_without_validation_there_is_none():
    assert train().epochs[0].validation_loss is None


def test_a_data_loader_and_arrays_serve_as_well():
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=16)
    assert len(train(train=loader).steps) == 6
    assert len(train(train=[tuple(tensor.numpy() for tensor in data())]).steps) == 2


@pytest.mark.parametrize("role", ["train", "validation"])
def test_a_one_shot_iterator_serves_one_epoch_only(role: str):
    assert len(train(**{role: iter([data()]), "epochs": 1}).epochs) == 1
    with pytest.raises(NewtritonError, match=rf"{role} is a one-shot iterator .* pass a list"):
        train(**{role: iter([data()]), "epochs": 2})


@pytest.mark.parametrize("role", ["train", "validation"])
def test_empty_data_are_refused_before_the_first_step(role: str):
    history = History()
    with pytest.raises(NewtritonError, match=f"{role} has no batches"):
        train(**{role: []}, history=history)
    assert not history.steps


@pytest.mark.parametrize("role", ["train", "validation"])
def test_a_pair_of_tensors_is_a_batch(role: str):
    pair = train(**{role: data()}, epochs=2)
    listed = train(**{role: [data()]}, epochs=2)
    assert [epoch.loss for epoch in pair.epochs] == [epoch.loss for epoch in listed.epochs]
    assert pair.epochs[-1].validation_loss == listed.epochs[-1].validation_loss


def test_what_is_no_data_is_refused():
    with pytest.raises(NewtritonError, match="validation is a int: give batches"):
        train(validation=3)


@pytest.mark.parametrize("batch", [data()[0], (*data(), data()[1]), ("x", "y"), 3])
def test_a_batch_must_be_a_pair_of_tensors(batch: object):
    with pytest.raises(NewtritonError, match=r"no pair of tensors \(x, y\)"):
        train(train=[batch])


def test_epochs_must_be_positive():
    with pytest.raises(NewtritonError, match="epochs is 0"):
        train(epochs=0)


def test_an_interrupt_keeps_what_was_done():
    model = LinearModel()
    history = fit(model, Descent(model, interrupt_at=5), batches(), epochs=3, progress=False)
    assert history.interrupted
    assert (len(history.epochs), len(history.steps)) == (1, 4)
    assert model.weight.any()


def test_a_history_is_continued():
    model = LinearModel()
    optimizer, stream = Descent(model), batches()
    history = fit(model, optimizer, stream, epochs=1, progress=False)
    assert fit(model, optimizer, stream, epochs=2, progress=False, history=history) is history
    losses = [step["loss"] for step in history.steps]
    whole = train(epochs=3)
    assert losses == [step["loss"] for step in whole.steps]
    assert [epoch.number for epoch in history.epochs] == [1, 2, 3]
    assert history.steps[3]["seconds"] >= history.steps[2]["seconds"]


def test_callbacks_see_each_epoch_and_can_end_the_training():
    seen = []

    def enough(history: History) -> bool:
        seen.append(len(history.epochs))
        return len(history.epochs) == 2

    assert len(train(epochs=5, callbacks=[enough]).epochs) == 2
    assert seen == [1, 2]


def test_an_optimizer_of_pytorch_is_refused_before_the_first_step():
    model = LinearModel()
    optimizer = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)
    for given in (optimizer, torch.optim.SGD):
        with pytest.raises(
            NewtritonError, match=r"give TorchOptimizer\(model, torch.optim.SGD, …\)"
        ):
            fit(model, given, batches(), progress=False)  # type: ignore[arg-type]


def test_the_progress_bar_shows_loss_rate_and_accuracy(capsys):
    train(progress=True, validation=[data()])
    shown = capsys.readouterr().err
    assert "epoch 2/2" in shown
    assert "6/6" in shown
    for name in ("loss=", "lr=0.5", "accuracy="):
        assert name in shown
    assert "rho" not in shown


def test_data_of_unknown_length_are_trained_on(capsys):
    class Stream:
        def __iter__(self) -> Iterator[Batch]:
            return iter([data()])

    assert len(train(train=Stream(), progress=True).steps) == 2
    assert "2step" in capsys.readouterr().err


@pytest.mark.parametrize(
    "make",
    [nt.NewtonCG, lambda model: nt.TorchOptimizer(model, torch.optim.LBFGS, max_iter=3)],
)
def test_an_optimizer_that_takes_all_data_makes_a_step_in_an_epoch(make) -> None:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    model = nt.compile(nt.Linear(3), (4,), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    data, taken = Batches(x, y, 16), []
    optimizer = make(model)
    step = optimizer.step
    optimizer.step = lambda data: (taken.append(sum(len(y) for _, y in data)), step(data))[1]
    start = model.objective(x, y)
    history = nt.fit(model, optimizer, data, [(x, y)], epochs=4, progress=False)
    assert taken == [60] * 4
    assert [(e.number, e.steps) for e in history.epochs] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert [s["epoch"] for s in history.steps] == [1, 2, 3, 4]
    assert [e.loss for e in history.epochs] == [s["loss"] for s in history.steps]
    assert history.steps[0]["loss"] == pytest.approx(start)
    assert history.epochs[-1].validation_loss < start
    assert data.state_dict() == {"epoch": 8}, "one that the test has made, and one of the step"
    with pytest.raises(NewtritonError, match=r"one-shot iterator.*several times"):
        nt.fit(model, optimizer, iter([(x, y)]), progress=False)


def _trained(average: bool) -> tuple[nt.Model, nt.KFLR, History]:
    """A small network after two epochs, validated on the average or on the parameters."""
    train, test = nt.digits()
    net = nt.Sequential(nt.Flatten(), nt.Linear(4), nt.Tanh(), nt.Linear(10))
    model = nt.compile(net, (1, 8, 8), nt.CrossEntropyLoss(), seed=2)
    optimizer = nt.KFLR(model)
    batches = nt.Batches(train.x[:300], train.y[:300], 100)
    options = {"epochs": 2, "progress": False, "average": average}
    return model, optimizer, fit(model, optimizer, batches, [test], **options)


def test_the_average_is_validated_and_training_goes_on_from_the_parameters():
    (model, optimizer, history), (plain, _, of_parameters) = _trained(True), _trained(False)
    assert torch.equal(model.params, plain.params)
    assert [s["loss"] for s in history.steps] == [s["loss"] for s in of_parameters.steps]
    _, test = nt.digits()
    with optimizer.average.in_place(model):
        expected = evaluate(model, [test])
    last = history.epochs[-1]
    assert (last.validation_loss, last.validation_accuracy) == expected
    assert last.validation_loss != of_parameters.epochs[-1].validation_loss


@pytest.mark.parametrize("make", [nt.FITRE, lambda m: nt.TorchOptimizer(m, torch.optim.SGD)])
def test_an_average_that_is_not_kept_is_refused(make):
    model = nt.compile(nt.Linear(2), (2,), nt.CrossEntropyLoss(), device="cpu")
    data = [(torch.eye(2), torch.arange(2))]
    with pytest.raises(NewtritonError, match="keeps no average of the parameters"):
        fit(model, make(model), data, data, average=True)
    with pytest.raises(NewtritonError, match="give True or False"):
        fit(model, make(model), data, data, average=0.9)


def test_a_run_that_goes_on_with_other_options_says_so_once(tmp_path: Path) -> None:
    data = [(torch.eye(3), torch.arange(3))]

    def gone_on(damping: float, epochs: int) -> list[str]:
        model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        optimizer = nt.KFAC(model, damping, every=1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(
                model, optimizer, data, epochs=epochs, progress=False, checkpoint=tmp_path,
                resume="auto",
            )  # fmt: skip
        assert {warning.filename for warning in caught} <= {__file__}
        return [str(warning.message) for warning in caught]

    assert gone_on(0.1, 1) == []
    (said,) = gone_on(0.3, 2)
    assert "(damping 0.1 → 0.3)" in said
    assert gone_on(0.3, 3) == []  # these are the run's own now

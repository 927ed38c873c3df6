"""A run that is saved and loaded goes on as if it had never stopped."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.data.samples import Batches
from newtriton.runtime.training import runs
from newtriton.runtime.training.epoch import Epoch
from newtriton.runtime.training.history import History
from newtriton.runtime.training.runs import Resumed, RunFolder

from .damage import reseal
from .kills import differing

OPTIONS = {"net": "cnn", "lr": 0.1, "damping": None}


class Stateful:
    """Stands in for a model or an optimizer."""

    def __init__(self, **state) -> None:
        self.state = state

    def state_dict(self) -> dict:
        return self.state

    def load_state_dict(self, state: dict) -> None:
        self.state = state


def batches() -> Batches:
    return Batches(torch.zeros(4, 1), torch.zeros(4), 2)


def saved(path: Path) -> tuple[Stateful, Stateful, History]:
    model = Stateful(**{"0.weight": torch.arange(6.0).reshape(2, 3).T})
    generator = torch.Generator().manual_seed(3).get_state()
    optimizer = Stateful(radius=0.5, generator=generator, velocity=None, rejected=[1, 2])
    record = {"step": 1, "epoch": 1, "seconds": 0.5, "loss": 1.0}
    history = History([Epoch(1, 2, 0.5, 1.0)], [record])
    folder = RunFolder(path, OPTIONS)
    assert folder.begin() == History()
    data = batches()
    list(data)
    folder.save(model, optimizer, data, history)
    return model, optimizer, history


def test_everything_comes_back(tmp_path: Path):
    model, optimizer, history = saved(tmp_path / "run")
    new_model, new_optimizer, data = Stateful(), Stateful(), batches()
    loaded = RunFolder(tmp_path / "run", OPTIONS).load(new_model, new_optimizer, data)
    assert loaded == Resumed(history)
    assert torch.equal(new_model.state["0.weight"], model.state["0.weight"])
    assert new_optimizer.state["radius"] == optimizer.state["radius"]
    assert new_optimizer.state["rejected"] == optimizer.state["rejected"]
    assert torch.equal(new_optimizer.state["generator"], optimizer.state["generator"])
    assert data.epoch == 1


def test_the_weights_are_a_file_of_their_own(tmp_path: Path):
    model, *_ = saved(tmp_path)
    weights = load_file(tmp_path / "weights.safetensors")
    assert torch.equal(weights["0.weight"], model.state["0.weight"])


def test_a_run_is_not_overwritten(tmp_path: Path):
    saved(tmp_path)
    with pytest.raises(NewtritonError, match="holds a run already"):
        RunFolder(tmp_path, OPTIONS).begin()


def test_a_run_without_a_complete_epoch_starts_again(tmp_path: Path):
    RunFolder(tmp_path, OPTIONS).begin()
    with pytest.raises(NewtritonError, match="no completed epoch"):
        RunFolder(tmp_path, OPTIONS).load(Stateful(), Stateful(), batches())
    assert RunFolder(tmp_path, OPTIONS).begin() == History()


def test_a_run_goes_on_under_its_own_options_only(tmp_path: Path):
    saved(tmp_path)
    with pytest.raises(NewtritonError, match=r"started with lr 0\.1, not 0\.2"):
        RunFolder(tmp_path, OPTIONS | {"lr": 0.2}).load(Stateful(), Stateful(), batches())
    with pytest.raises(NewtritonError, match="no run to resume"):
        RunFolder(tmp_path / "other", OPTIONS).load(Stateful(), Stateful(), batches())


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "state.safetensors", "state.json", "history.json"]
)
def test_a_damaged_file_is_reported_and_changes_nothing(tmp_path: Path, name: str):
    saved(tmp_path)
    (tmp_path / "last" / name).write_bytes(b"not what it was")
    parts = Stateful(), Stateful(), batches()
    with pytest.raises(NewtritonError, match=f"{name} is not what was written"):
        RunFolder(tmp_path, OPTIONS).load(*parts)
    assert [part.state_dict() for part in parts] == [{}, {}, {"epoch": 0}]


def test_damaged_options_are_reported(tmp_path: Path):
    saved(tmp_path)
    for damaged in (b"not what it was", b"[1]", b"\xff"):
        (tmp_path / "options.json").write_bytes(damaged)
        with pytest.raises(NewtritonError, match="is damaged"):
            RunFolder(tmp_path, OPTIONS).load(Stateful(), Stateful(), batches())


def test_a_run_of_an_earlier_version_is_refused_and_not_unpickled(tmp_path: Path):
    for name in ("options.json", "history.json", "weights.safetensors", "state.pt"):
        (tmp_path / name).write_bytes(b"{}")
    folder = RunFolder(tmp_path, OPTIONS)
    with pytest.raises(NewtritonError, match=r"earlier version of newtriton \(state\.pt"):
        folder.load(Stateful(), Stateful(), batches())
    with pytest.raises(NewtritonError, match="finish it with that version"):
        folder.begin()


def compiled(width: int = 4) -> nt.Model:
    net = nt.Sequential(nt.Linear(width), nt.Tanh(), nt.Linear(3))
    return nt.compile(net, (5,), nt.CrossEntropyLoss(), device="cpu")


def adam(model: nt.Model) -> nt.TorchOptimizer:
    return nt.TorchOptimizer(model, torch.optim.Adam, lr=1e-2)


def sgd(model: nt.Model) -> nt.TorchOptimizer:
    return nt.TorchOptimizer(model, torch.optim.SGD, lr=1e-2)


def gone_on_with(path: Path, first: Any, then: Any) -> str:
    """What is said where a run of one optimizer goes on with another."""
    model = compiled()
    optimizer, data = first(model), batches()
    optimizer.step(torch.ones(4, 5), torch.arange(4) % 3)
    folder = RunFolder(path)
    folder.save(model, optimizer, data, folder.begin())
    model = compiled()
    return folder.load(model, then(model), batches()).changed


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        (
            lambda m: nt.KFAC(m, 0.1),
            lambda m: nt.KFAC(m, damping=0.3),
            "KFAC is made with other options than the run was saved with (damping 0.1 → 0.3): the "
            "saved state goes on with its own damping, which a new run from its weights does not",
        ),
        (
            nt.FITRE,
            lambda m: nt.FITRE(m, max_radius=2.0, every=(1, 5)),
            "FITRE is made with other options than the run was saved with (max_radius None → 2.0, "
            "every 5 → [1, 5]): the new ones count from here on",
        ),
        (
            adam,
            lambda m: nt.TorchOptimizer(m, torch.optim.Adam, lr=0.5, micro_batch=2),
            "TorchOptimizer is made with other options than the run was saved with (micro_batch "
            "None → 2, lr 0.01 → 0.5): the saved state goes on with its own lr, which a new run "
            "from its weights does not; the new ones count from here on for the rest",
        ),
        (
            sgd,
            lambda m: nt.TorchOptimizer(m, torch.optim.SGD, lr=1e-2, momentum=0.5),
            "TorchOptimizer is made with other options than the run was saved with (momentum not "
            "given → 0.5): the saved state goes on with its own momentum, which a new run from its "
            "weights does not",
        ),
        (
            lambda m: nt.SecondOrder(m, nt.MatrixFree(m, "ggn"), "truncated-cg", nt.TrustRegion()),
            lambda m: nt.SecondOrder(
                m, nt.MatrixFree(m, "ggn"), "truncated-cg", nt.TrustRegion(2.0)
            ),
            "SecondOrder is made with other options than the run was saved with (rule "
            "TrustRegion() → TrustRegion(2.0)): the new ones count from here on",
        ),
    ],
)
def test_options_that_have_changed_are_named(tmp_path: Path, first, then, said: str):
    assert gone_on_with(tmp_path, first, then) == f"{tmp_path}: {said}"


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (nt.FITRE, lambda m: nt.FITRE(m, None, every=5)),
        (lambda m: nt.KFAC(m, 0.1), lambda m: nt.KFAC(model=m, damping=0.1)),
        (
            lambda m: nt.SecondOrder(m, nt.MatrixFree(m), nt.TruncatedCG(), "trust-region"),
            lambda m: nt.SecondOrder(m, nt.MatrixFree(m), nt.TruncatedCG(), "trust-region"),
        ),
    ],
)
def test_of_equal_options_nothing_is_said(tmp_path: Path, first, then):
    assert gone_on_with(tmp_path, first, then) == ""


@pytest.mark.parametrize(("told", "said"), [(None, ""), (["damping"], "cannot be gone on with")])
def test_options_that_a_folder_does_not_tell_are_passed_over(tmp_path: Path, told: Any, said: str):
    """As folders of earlier versions; something else in their place is damage."""
    folder, model = RunFolder(tmp_path), compiled()
    folder.save(model, nt.KFAC(model), batches(), folder.begin())
    path = tmp_path / "last" / "state.json"
    state = json.loads(path.read_bytes())
    assert state.pop("arguments") == {}
    path.write_text(json.dumps(state if told is None else {**state, "arguments": told}))
    reseal(tmp_path / "last")
    with nullcontext() if told is None else pytest.raises(NewtritonError, match=said):
        assert folder.load(model, nt.KFAC(model, samples=2), batches()).changed == said


@pytest.mark.parametrize(
    ("width", "make", "data", "message"),
    [
        (5, nt.KFAC, batches, r"0\.weight"),
        (4, nt.FITRE, batches, "trained by KFAC, not by FITRE"),
        (4, lambda m: nt.KFAC(m, average=0.5), batches, "average"),
        (4, sgd, batches, r"trained by KFAC, not by TorchOptimizer\(SGD\)"),
        (4, nt.KFAC, list, "drew from .*data, these draw from"),
        (4, nt.KFAC, lambda: nt.GrowingBatches(torch.zeros(4, 1), torch.zeros(4), 2), "step"),
    ],
)
def test_a_run_of_something_else_changes_nothing(tmp_path: Path, width, make, data, message):
    model = compiled()
    optimizer = nt.KFAC(model, average=None)
    optimizer.step(torch.randn(6, 5), torch.arange(6) % 3)
    folder = RunFolder(tmp_path)
    folder.begin()
    folder.save(model, optimizer, batches(), History([Epoch(1, 2, 0.5, 1.0)]))
    other = compiled(width)
    others = make(other)
    before = other.state_dict(), others.state_dict()
    with pytest.raises(NewtritonError, match=f"cannot be gone on with: .*{message}"):
        folder.load(other, others, data())
    assert not differing(before, (other.state_dict(), others.state_dict()))


def test_a_network_of_the_same_shapes_is_another_one(tmp_path: Path):
    def made(activation: Any, loss: nt.Loss) -> nt.Model:
        net = nt.Sequential(nt.Linear(4), activation, nt.Linear(3))
        return nt.compile(net, (5,), loss, device="cpu")

    model = made(nt.Tanh(), nt.CrossEntropyLoss())
    folder = RunFolder(tmp_path)
    folder.begin()
    folder.save(model, nt.KFAC(model), batches(), History([Epoch(1, 2, 0.5, 1.0)]))
    same = made(nt.Tanh(), nt.CrossEntropyLoss())
    folder.load(same, nt.KFAC(same), batches())
    smooth = nt.CrossEntropyLoss(label_smoothing=0.1)
    for other in (made(nt.ReLU(), nt.CrossEntropyLoss()), made(nt.Tanh(), smooth)):
        with pytest.raises(NewtritonError, match="it is of another network or loss"):
            folder.load(other, nt.KFAC(other), batches())


def test_another_format_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(runs, "FORMAT", 2)
    saved(tmp_path)
    monkeypatch.undo()
    with pytest.raises(NewtritonError, match="another version of newtriton, in format 2, not 1"):
        RunFolder(tmp_path, OPTIONS).load(Stateful(), Stateful(), batches())


@pytest.mark.parametrize("make", [adam, sgd, nt.FITRE, nt.KFAC])
def test_nothing_is_pickled(tmp_path: Path, monkeypatch, make):
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("pickle")

    model = compiled()
    optimizer = make(model)
    optimizer.step(torch.randn(6, 5), torch.arange(6) % 3)
    monkeypatch.setattr(torch, "save", refused)
    monkeypatch.setattr(torch, "load", refused)
    folder = RunFolder(tmp_path)
    folder.begin()
    folder.save(model, optimizer, batches(), History([Epoch(1, 2, 0.5, 1.0)]))
    names = {path.name for path in (tmp_path / "last").iterdir()}
    assert names == {*runs.PARTS, "checksums.json"}
    other = compiled()
    resumed = make(other)
    folder.load(other, resumed, batches())
    assert not differing(optimizer.state_dict(), resumed.state_dict())
    assert not differing(model.state_dict(), other.state_dict())


class Average:
    """Stands in for an average: doubled weights."""

    @contextmanager
    def in_place(self, model: Stateful) -> Iterator[None]:
        weights = model.state
        model.state = {name: 2 * tensor for name, tensor in weights.items()}
        yield
        model.state = weights


def test_the_weights_may_be_an_average_and_the_run_goes_on_from_the_parameters(tmp_path: Path):
    model, folder = Stateful(**{"0.weight": torch.ones(2)}), RunFolder(tmp_path, {})
    folder.begin()
    folder.save(model, Stateful(), batches(), History(), Average())
    assert load_file(tmp_path / "weights.safetensors")["0.weight"].tolist() == [2.0, 2.0]
    loaded = Stateful()
    folder.load(loaded, Stateful(), batches())
    assert loaded.state["0.weight"].tolist() == [1.0, 1.0]


def test_an_option_that_an_older_folder_lacks_is_its_default(tmp_path: Path):
    saved(tmp_path)
    more = OPTIONS | {"loss": "ce"}
    RunFolder(tmp_path, more, {"loss": "ce"}).load(Stateful(), Stateful(), batches())
    with pytest.raises(NewtritonError, match="started with loss ce, not mse"):
        wanted = RunFolder(tmp_path, more | {"loss": "mse"}, {"loss": "ce"})
        wanted.load(Stateful(), Stateful(), batches())


class Diverging(Stateful):
    """A model whose weights overflow after an epoch."""

    def load_state_dict(self, state: dict) -> None:
        if not all(tensor.isfinite().all() for tensor in state.values()):
            raise NewtritonError("not finite")
        super().load_state_dict(state)


def test_weights_that_are_not_finite_are_refused_and_the_last_finite_ones_reached(tmp_path: Path):
    model, folder = Diverging(weight=torch.ones(2)), RunFolder(tmp_path, {})
    history = History()
    folder.begin()
    for number in range(1, 6):
        history.epochs.append(Epoch(number, number, 0.1, 1.0 / number))
        folder.save(model, Stateful(), batches(), history)
        model.state = {"weight": model.state["weight"] * 1e30}
    assert not load_file(tmp_path / "weights.safetensors")["weight"].isfinite().any()
    with pytest.raises(NewtritonError, match=r"not finite in 'last': resume 'previous' or 'best'"):
        folder.load(model, Stateful(), batches())
    for which in ("previous", "best"):
        loaded = Diverging()
        assert len(folder.load(loaded, Stateful(), batches(), which).history.epochs) == 2
        assert torch.equal(loaded.state["weight"], torch.full((2,), 1e30))


def test_a_run_without_its_options_goes_on_with_the_present_ones(tmp_path: Path):
    saved(tmp_path)
    (tmp_path / "options.json").unlink()
    other = RunFolder(tmp_path, OPTIONS | {"lr": 0.2})
    assert other.load(Stateful(), Stateful(), batches()).history.epochs


def test_a_format_of_another_version_is_refused_in_a_sentence(tmp_path: Path):
    saved(tmp_path)
    path = tmp_path / "last" / "state.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 7'))
    reseal(tmp_path / "last")
    with pytest.raises(NewtritonError, match="another version of newtriton, in format 7, not 1"):
        RunFolder(tmp_path, OPTIONS).load(Stateful(), Stateful(), batches())

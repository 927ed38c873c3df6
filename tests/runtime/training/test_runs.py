"""A run that is saved and loaded goes on as if it had never stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.data.samples import Batches
from newtriton.runtime.training.epoch import Epoch
from newtriton.runtime.training.history import History
from newtriton.runtime.training.runs import RunFolder

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
    history = History([Epoch(1, 2, 0.5, 1.0)], [{"step": 1, "seconds": 0.5, "loss": 1.0}])
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
    assert loaded == history
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
    "name", ["weights.safetensors", "state.pt", "history.json", "options.json"]
)
def test_a_damaged_file_is_reported(tmp_path: Path, name: str):
    saved(tmp_path)
    (tmp_path / name).write_bytes(b"not what it was")
    with pytest.raises(NewtritonError):
        RunFolder(tmp_path, OPTIONS).load(Stateful(), Stateful(), batches())


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

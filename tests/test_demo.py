"""The demonstration picks a first-order method, compares, prints, draws and knows its goals."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import newtriton as nt
from newtriton.runtime.training.epoch import Epoch

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Returns the script as a module, with two seeds and a grid of two."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    demo = import_module("demo")
    grid = {name: demo.GRID[name] for name in ("Nesterov SGD, lr 0.1", "Adam, lr 0.01")}
    monkeypatch.setattr(demo, "GRID", grid)
    monkeypatch.setattr(import_module("problems"), "SEEDS", (0, 1))
    return demo


def small(demo: ModuleType, name: str) -> Any:
    """Returns one of its problems with few samples and epochs."""
    problem = getattr(demo, name)()
    data = tuple(nt.Samples(part.x[:200], part.y[:200]) for part in problem.data)
    return replace(problem, data=data, batch_size=100, epochs=2, first_order_epochs=1)


@pytest.mark.parametrize("name", ["digits", "curves"])
def test_presets_and_the_best_of_the_grid_run_from_all_seeds_and_are_drawn(
    demo: ModuleType, name: str, tmp_path: Path
):
    problem = small(demo, name)
    methods = demo.compare(problem)
    *presets, best = methods
    assert presets == ["FITRE", "K-FAC"]
    assert best in demo.GRID
    epochs = [[len(run.epochs) for run in runs] for runs in methods.values()]
    assert epochs == [[2, 2], [2, 2], [1, 1]]
    for row, runs in zip(demo.rows(problem, methods), methods.values(), strict=True):
        assert row["loss"] == sum(run.epochs[-1].loss for run in runs) / 2
        reached = row["epochs_to_goal"], row["seconds_to_goal"]
        for run, epoch, seconds in zip(runs, *reached, strict=True):
            assert seconds == (run.epochs[epoch - 1].seconds if epoch else None)
    demo.draw([(problem, methods)] * 2, tmp_path / "runs" / "demo.png")
    assert (tmp_path / "runs" / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_without_an_accuracy_the_goal_is_the_baselines_last_loss_from_the_same_seed(
    demo: ModuleType,
):
    def history(*losses: float) -> nt.History:
        return nt.History([Epoch(n, n, float(n), loss) for n, loss in enumerate(losses, 1)])

    methods = {"FITRE": [history(3, 2, 1)] * 2, "Adam": [history(4, 2), history(4, 0)]}
    problem = small(demo, "curves")
    assert demo.to_goal(problem, methods, "FITRE") == [2, None]
    assert demo.to_goal(problem, methods, "Adam") == [2, 2]

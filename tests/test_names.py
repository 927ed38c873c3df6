"""Names stay text: they never become code, and never leave their folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import newtriton as nt

from .names import NAMES, trial


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_hostile_names_hurt_nobody(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        folder = tmp_path / str(seed)
        folder.mkdir()
        trial(seed, folder)


class Clashing:
    """Two layers, one of which is called as what is inside the other."""

    def __init__(self, second: str) -> None:
        self.second = second

    def build(self, x: Any, scope: Any) -> Any:
        x = scope.build("a", nt.Sequential(nt.Linear(3), nt.BatchNorm1d(affine=False)), x)
        return scope.build(self.second, nt.Linear(3), x)


def test_two_layers_have_no_parameter_in_common_by_accident() -> None:
    with pytest.raises(nt.NewtritonError, match=r"two layers have a 'a\.0\.weight': build each"):
        nt.compile(Clashing("a.0"), (3,), nt.MSELoss(), device="cpu")
    nt.compile(Clashing("a.2"), (3,), nt.MSELoss(), device="cpu")


@pytest.mark.interpreter
@pytest.mark.parametrize("name", NAMES[:8])
def test_kernels_do_not_depend_on_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWTRITON_MEMORY", "8e9")  # what is free is printed, and changes

    def source(key: str) -> str:
        net = nt.Sequential(_Named(key), nt.Tanh(), nt.Linear(2))
        model = nt.compile(net, {key: (3,)}, nt.MSELoss(), backend="triton", device="cpu")
        return model.explain(4, kernels=True).split("\n\n", 1)[1]

    made = source("plain")
    assert source(name).replace(name, "plain") == made
    assert name not in made


class _Named:
    """A layer with an input and a part of one name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build(self, x: Any, scope: Any) -> Any:
        return scope.build(self.name, nt.Linear(3), x[self.name])


def test_a_name_that_no_file_has_is_one_error(tmp_path: Path) -> None:
    model = nt.compile(Clashing("\udcff"), (3,), nt.MSELoss(), device="cpu")
    optimizer = nt.TorchOptimizer(model, torch.optim.SGD, lr=0.1)
    data = [(torch.ones(4, 3), torch.zeros(4, 3))]
    with pytest.raises(nt.NewtritonError, match=r"text that is no Unicode"):
        nt.fit(model, optimizer, data, progress=False, checkpoint=tmp_path / "run")

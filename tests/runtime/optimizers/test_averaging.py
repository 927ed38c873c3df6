"""The Polyak average: a plain mean at first, then an exponential one; it leaves training alone."""

from __future__ import annotations

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.optimizers.averaging import PolyakAverage, average_of

from ..problems import problem


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95])
def test_is_the_papers_recursion(decay: float) -> None:
    average, expected = PolyakAverage(decay), torch.zeros(4, dtype=torch.float64)
    for t in range(1, 40):
        params = torch.full((4,), float(t * t), dtype=torch.float64)
        average.update(params)
        beta = min(decay, 1 - 1 / t)
        expected = beta * expected + (1 - beta) * params
        assert average.mean is not None
        torch.testing.assert_close(average.mean, expected)


def test_stands_in_for_the_parameters_and_gives_them_back_after_an_error() -> None:
    model, _ = problem("mlp")
    average, trained = PolyakAverage(), model.params.clone()
    with average.in_place(model):
        assert torch.equal(model.params, trained), "nothing has been averaged yet"
    average.update(2 * trained)
    with pytest.raises(KeyError), average.in_place(model):
        assert torch.equal(model.params, 2 * trained)
        raise KeyError
    assert torch.equal(model.params, trained)


@pytest.mark.parametrize("decay", [1.0, -0.1, None])
def test_refuses_a_decay(decay: object) -> None:
    with pytest.raises(NewtritonError, match=f"average is {decay}"):
        PolyakAverage(decay)  # type: ignore[arg-type]


def test_the_average_of_an_optimizer_is_found() -> None:
    model = nt.compile(nt.Linear(2), (2,), nt.CrossEntropyLoss(), device="cpu")
    optimizer = nt.KFAC(model, average=0.9)
    assert average_of(optimizer) is optimizer.average
    for without in (nt.KFAC(model, average=None), nt.TorchOptimizer(model, torch.optim.SGD)):
        with pytest.raises(NewtritonError, match="keeps no average of the parameters"):
            average_of(without)

"""A model that has come to where no step can be made goes back to where one could."""

from __future__ import annotations

import math

import pytest
import torch

import newtriton as nt
from newtriton.runtime.optimizers.retreat import Retreat

from ..stand_in import assert_identical


def torch_optimizer(cls, **options):
    return lambda model: nt.TorchOptimizer(model, cls, **options)


GIVING_UP = {
    "EACG": lambda model: nt.EACG(model, lr=1e6, noise=None),
    "SGD": torch_optimizer(torch.optim.SGD, lr=1e9, momentum=0.9),
    "Adam": torch_optimizer(torch.optim.Adam, lr=1e9),
    "L-BFGS": torch_optimizer(torch.optim.LBFGS, lr=1e12, max_iter=2),
}


@pytest.mark.parametrize("name", GIVING_UP)
def test_after_giving_up_the_model_is_where_a_step_could_be_made(name: str) -> None:
    layers = [nt.Linear(8), nt.Tanh()] if name == "EACG" else [nt.Conv2d(4, 3), nt.BatchNorm2d()]
    net = nt.Sequential(*layers, nt.Flatten(), nt.Linear(3), nt.Linear(3))
    shape = (5,) if name == "EACG" else (1, 5, 5)
    model = nt.compile(net, shape, nt.MSELoss(), backend="aten", device="cpu")
    x = torch.randn(16, *shape, generator=torch.Generator().manual_seed(0))
    y, optimizer = x.flatten(1)[:, :3], GIVING_UP[name](model)
    with pytest.raises(nt.NewtritonError, match="10 steps in a row"):
        for _ in range(400):
            optimizer.step(x, y)
    loss, gradient, _ = model.gradient(x, y)
    assert math.isfinite(loss) and gradient.isfinite().all()
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    state = optimizer.state_dict()
    assert state["rejected"] == 0
    again = GIVING_UP[name](model)
    again.load_state_dict(state)
    assert_identical(again.state_dict(), state)
    assert optimizer.step(x, y).rejected <= 1, "whoever goes on has ten steps again"


class Part:
    """A part that has taken in some batches."""

    def __init__(self) -> None:
        self.taken = 0

    def state_dict(self) -> dict[str, int]:
        return {"taken": self.taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.taken = state["taken"]


def test_parts_go_back_to_where_a_step_was_made_or_to_their_beginning() -> None:
    model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
    part, batches = Part(), [(torch.eye(3), torch.arange(3))]
    retreat = Retreat(model, [part])
    retreat.begin()
    part.taken = 1
    assert not retreat.go_back(batches)
    assert part.taken == 0
    part.taken = 2
    retreat.keep()
    retreat.moved()
    part.taken = 3
    assert retreat.go_back(batches)
    assert part.taken == 2
    retreat.go_back(batches)
    assert part.taken == 0, "they begin anew where no step has followed"


def test_an_error_while_going_back_leaves_the_model_where_it_is() -> None:
    model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
    retreat = Retreat(model)
    retreat.keep()
    model.params.add_(1.0)
    retreat.moved()
    here = model.params.clone()

    def data():
        yield torch.eye(3), torch.arange(3)
        raise ValueError

    with pytest.raises(ValueError):
        retreat.go_back(data())
    assert torch.equal(model.params, here)

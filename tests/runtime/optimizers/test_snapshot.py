"""A snapshot puts back what an optimizer's state was, from buffers that are made once."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import newtriton as nt
from newtriton.runtime.optimizers.snapshot import Snapshot

from ..stand_in import MLP, assert_identical, batch


class Allocations(TorchDispatchMode):
    """Counts the operators that make a new tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += str(func).startswith(("aten.empty", "aten.clone", "aten.zeros"))
        return func(*args, **(kwargs or {}))


def state() -> dict[str, object]:
    """What an optimizer might keep."""
    return {
        "step": torch.tensor(3.0),
        "average": torch.arange(4.0),
        "history": [torch.ones(4), torch.zeros(4)],
        "count": 7,
        "none": None,
    }


def test_restores_values_bit_for_bit_into_the_same_tensors() -> None:
    kept, snapshot = state(), Snapshot()
    expected, tensor, first = copy.deepcopy(kept), kept["average"], kept["history"][0]  # type: ignore[index]
    snapshot.take(kept)
    assert isinstance(tensor, Tensor)
    tensor.mul_(torch.nan)
    kept["count"] = 8
    kept["more"] = torch.ones(2)
    kept["history"].pop(0).zero_()  # type: ignore[attr-defined]
    restored = snapshot.restore()
    restored.pop("none")
    expected.pop("none")
    assert_identical(restored, expected)
    assert restored["average"] is tensor
    assert restored["history"][0] is first  # type: ignore[index]


def test_allocates_only_where_a_shape_is_new() -> None:
    snapshot, kept = Snapshot(), state()
    counted = []
    for grown in (False, False, True, True):
        if grown:
            kept["history"] = [torch.ones(4), torch.zeros(4), torch.ones(4)]
        with Allocations() as allocations:
            snapshot.take(kept)
        counted.append(allocations.count)
    assert counted == [4, 0, 1, 0]


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (torch.optim.Adam, {"lr": 0.05}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        (torch.optim.LBFGS, {"lr": 0.5, "history_size": 2, "max_iter": 4}),
    ],
)
def test_steps_make_no_new_copies_of_parameters_and_state(
    cls: type[torch.optim.Optimizer], options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MLP()
    optimizer = nt.TorchOptimizer(model, cls, **options)  # type: ignore[arg-type]
    counted: list[int] = []
    take = optimizer._snapshot.take

    def counting(of: dict) -> None:
        with Allocations() as allocations:
            take(of)
        counted.append(allocations.count)

    def refuse(tensor: Tensor, memo: dict) -> Tensor:
        raise AssertionError("a tensor of the state has been copied to new memory")

    monkeypatch.setattr(optimizer._snapshot, "take", counting)
    monkeypatch.setattr(Tensor, "__deepcopy__", refuse)
    for n in range(5):
        assert optimizer.step(*batch(n)).accepted
    assert counted[2:] == [0, 0, 0]

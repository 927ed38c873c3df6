"""What a call asks for is checked, and labels are drawn for the samples that are here."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.compiler.graph.ir import N
from newtriton.runtime.model.wanted import check_wanted, described, own_samples
from newtriton.runtime.parallel.ranks import Ranks
from newtriton.runtime.parallel.share import Share

OPTIONS: dict[str, Any] = {"sharing": "expand", "max_factor": 9, "max_copies": 9, "pos_eig": None}


def model() -> nt.Model:
    net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3))
    return nt.compile(net, (5,), nt.CrossEntropyLoss(), backend="aten", device="cpu")


def test_factors_of_some_layers_are_theirs() -> None:
    of = model()
    wanted = check_wanted(of.layout, "kfac", 1, ["0"], ["0", "2"], False, **OPTIONS)
    assert (wanted.means, wanted.layers) == ({"0"}, {"0", "2"})
    only = check_wanted(of.layout, "kfac", 1, (), ["2"], False, **OPTIONS)
    assert [block.layer for block in described(of, only)] == ["2"]


@pytest.mark.parametrize(
    ("given", "said"),
    [(("fisher", 1, (), None), "kind"), (("kfac", 1, (), ["1"]), "layers names '1'")],
)
def test_what_there_is_not_is_refused(given: Any, said: str) -> None:
    with pytest.raises(NewtritonError, match=said):
        check_wanted(model().layout, *given, False, **OPTIONS)


def test_random_numbers_are_cut_along_the_samples() -> None:
    share = Share(2, 3, 6, 1, 3, 2.0, 6.0, Ranks(None))
    leaf, numbers = ops.input_("numbers", (N, 4)), torch.arange(24.0).view(6, 4)
    assert torch.equal(own_samples(leaf, numbers, share), numbers[3:5])
    assert own_samples(leaf, numbers, None) is numbers

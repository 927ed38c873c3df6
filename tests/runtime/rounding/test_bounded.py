"""A value with its bound."""

import torch

from newtriton.runtime.rounding.bounded import Bounded


def test_an_exact_value_has_no_spread():
    x = torch.tensor([-2.0, 3.0], dtype=torch.float64)
    assert Bounded(x).exact and Bounded(x).spread.tolist() == [0.0, 0.0]
    off = Bounded(x, torch.tensor([0.5, 0.0], dtype=torch.float64))
    assert not off.exact and off.magnitude.tolist() == [2.5, 3.0]
    assert Bounded(torch.tensor([4])).spread.dtype == torch.float64

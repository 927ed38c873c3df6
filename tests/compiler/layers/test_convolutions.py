"""Options of layers: pairs, integers, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

import newtriton as nt
from newtriton.compiler.language.network import Layer


@pytest.mark.parametrize("make", [nt.Conv2d, nt.MaxPool2d, nt.AvgPool2d])
def test_windows_take_pairs_and_integers(make: type) -> None:
    sizes = [1] if make is nt.Conv2d else []

    def shape(kernel: object, stride: object) -> int:
        net: Layer = nt.Sequential(make(*sizes, kernel, stride), nt.Flatten(), nt.Linear(2))
        return nt.compile(net, (1, 7, 7), nt.MSELoss()).params.numel()

    assert shape(3, 2) == shape((3, 3), (2, 2)) == shape(np.int64(3), np.array([2, 2]).tolist())
    with pytest.raises(nt.NewtritonError, match="kernel_size is None: give an integer ≥ 1 or a"):
        make(*sizes, None)

"""At which steps a damping may move, and where to."""

from __future__ import annotations

import newtriton as nt
from newtriton.runtime.rules.following import OMEGA, Following


def following() -> Following:
    model = nt.compile(nt.Linear(2), (3,), nt.MSELoss(), backend="aten", device="cpu")
    optimizer = nt.KFAC(model)
    return Following(model, optimizer.curvature, optimizer.solver, None)


def test_neighbours_are_tried_ever_more_rarely() -> None:
    found, tried = following(), list[int]()
    for step in range(1, 60):
        if len(found.dampings(1.0, step, 8)) > 1:
            tried.append(step)
        assert found.last == (tried[-1] if tried else 0)
    assert tried == [5, 10, 15, 20, 27, 36, 48]


def test_neighbours_lie_a_ratio_apart() -> None:
    assert following().dampings(2.0, 5, 8) == (2.0, OMEGA * 2.0, 2.0 / OMEGA)

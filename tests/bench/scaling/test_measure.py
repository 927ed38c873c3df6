"""Two ranks send the bytes that the model says, to the byte; their steps are timed."""

from __future__ import annotations

import newtriton as nt
from newtriton.bench.scaling import measure
from newtriton.bench.scaling.launching import Held
from newtriton.runtime.parallel.ranks import Ranks


def test_the_bytes_that_are_counted_are_the_models() -> None:
    rows = measure.sent((2,), every=2)
    assert {row["network"] for row in rows} == {*measure.NETWORKS}
    assert all(row["counted"] == row["model"] > 0 for row in rows)


def test_a_step_and_the_work_in_it_are_timed() -> None:
    held, parallel = Held(), nt.DataParallel()
    parallel._ranks = Ranks(None)
    measure.begin(measure.perceptron, (1, 8, 8), "replicated", 2, "wiener", parallel, held)
    first = measure.step(0, parallel, held)
    assert first["factorised"] == 1 and first["sent"] == 0.0
    assert first["seconds"] > 0.0 and first["worked"] > 0.0
    found = measure.work_of(1, parallel, held)
    assert {*found} == {"linearize", "quadratic", "evaluate", "factors", "factorise", "solve"}
    assert measure.sum_of(4, 2, parallel, held) >= 0.0

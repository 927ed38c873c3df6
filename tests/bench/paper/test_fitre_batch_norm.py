"""FITRE and SGD with and without batch norm."""

from __future__ import annotations

from newtriton.bench.paper.fitre_batch_norm import BATCH_NORM
from newtriton.bench.protocol.experiment import Setting


def test_batch_norm_is_on_and_off() -> None:
    rows = BATCH_NORM.measure(Setting("smoke", (0,)))
    assert {row["batch_norm"] for row in rows} == {False, True}
    assert len(BATCH_NORM.findings(rows)) == 2
    assert len(BATCH_NORM.figure(rows).axes) == 3

"""Local maxima of the error of a two-layer network."""

from __future__ import annotations

import numpy as np
import pytest

from newtriton.bench.paper import kfra_maxima as experiment
from newtriton.bench.paper.kfra_maxima import ACTIVATIONS, MAXIMA, PLANES
from newtriton.bench.protocol.experiment import Setting


def test_only_a_curved_activation_has_indefinite_blocks() -> None:
    rows = MAXIMA.measure(Setting("smoke", (0,)))
    counts = {row["activation"]: row["indefinite_blocks"] for row in rows if "activation" in row}
    assert counts == dict.fromkeys(ACTIVATIONS, 0) | {"tanh": 3}
    assert [row["plane"] for row in rows if "plane" in row] == list(PLANES)
    assert len(MAXIMA.figure(rows).axes) == 2 * len(PLANES)
    assert [finding.verdict for finding in MAXIMA.findings(rows)] == ["agrees", "agrees"]
    rows[0] |= {"indefinite_blocks": 1, "negative_traces": 1}
    assert [finding.verdict for finding in MAXIMA.findings(rows)] == ["contradicts"] * 2


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([[0, 0, 0], [0, 1, 0], [0, 0, 0]], 1),
        ([[0, 0, 0], [0, 1, 1], [0, 0, 0]], 0),
        ([[2, 0, 0], [0, 1, 0], [0, 0, 0]], 0),
        ([[9, 9, 9, 9], [0, 0, 0, 0], [0, 0, 0, 0]], 0),
    ],
)
def test_maxima_are_above_all_their_neighbours(heights: list[list[int]], expected: int) -> None:
    assert experiment.maxima(np.array(heights, dtype=float)) == expected

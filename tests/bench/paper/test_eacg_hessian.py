"""EA-CG's tables: where errors are taken, and what rows say of them."""

from __future__ import annotations

import pytest
import torch

from newtriton.bench.paper.eacg_hessian import HESSIAN, Trajectory, batches, enlarged
from newtriton.bench.paper.eacg_training import WIDTHS
from newtriton.bench.protocol.data import choose
from newtriton.bench.protocol.experiment import Setting


def test_it_runs_and_is_judged() -> None:
    rows = HESSIAN.measure(Setting("smoke", (0,)))
    convex = [row for row in rows if row["criterion"] == "cross entropy"]
    assert [row["approximation"] for row in convex] == [
        "Fisher", "GN", "PCH-1", "PCH-2", "drawn Fisher",
    ]  # fmt: skip
    others = [row["approximation"] for row in rows if row["criterion"] == "eq. 14"]
    assert others == ["Fisher", "PCH-1", "PCH-2"]
    for row in rows:
        assert row["points"] == 2 and row["layer"] == [1, 2]
        assert row["total"] == pytest.approx(sum(e**2 for e in row["error"]) ** 0.5)
    HESSIAN.figure(rows)
    found = HESSIAN.findings(rows)
    assert len(found) == 7
    assert all(f.paper and f.ours and f.why for f in found)
    exact = next(row for row in convex if row["approximation"] == "GN")
    assert exact["error"][-1] < 1e-6 * exact["norms"][-1]


def test_images_are_enlarged_to_the_papers_size() -> None:
    x = torch.arange(64.0).view(1, 1, 8, 8)
    big = enlarged(x)
    assert big.shape == (1, 3, 32, 32)
    assert torch.equal(big[0, 2, ::4, 3::4], x[0, 0])


def test_a_trajectory_goes_on_over_epochs_in_new_orders() -> None:
    data = choose(Setting("smoke"), "cifar10")
    found = [x for x, _ in batches(data, Trajectory((4,), 20, 1), seed=0)]
    assert len(found) == 20 and {len(x) for x in found} == {100}
    assert not torch.equal(found[0], found[14])
    assert WIDTHS[0] == 1024

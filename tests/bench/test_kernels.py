"""What is timed side by side computes the same."""

import pytest
import torch

from newtriton.bench import kernels
from newtriton.runtime.fused import measurements as measure

CPU = torch.device("cpu")
LAYER = (3, 5, 4)
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def seed() -> None:
    """A form of random numbers may be next to zero, and no error relative to it."""
    torch.manual_seed(0)


@pytest.mark.parametrize("name", kernels.operations(*LAYER))
def test_both_of_ours_are_pytorchs(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "milliseconds", lambda calls, *_: dict.fromkeys(calls, 1.0))
    (case,) = [c for c in kernels.cases([LAYER], 2, "ieee", CPU) if c.name == name]
    row = kernels.measure(case, 2, 1, False, CPU, kernels.Peaks(1.0, 1.0))
    assert row["error"] < 2e-6 and row["GFLOP"] >= 0 and row["MB"] >= 0
    assert row["times_faster"] == 1.0 and "compiled_ms" not in row


def test_a_row_has_times(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "ROUNDS", 1)
    case = kernels.cases([LAYER], 2, "tf32", CPU)[0]
    row = kernels.measure(case, 2, 1, False, CPU, kernels.peaks(CPU, "tf32"))
    assert row["fused_ms"] > 0 and row["vendor_ms"] > 0 and row["eager_ms"] > 0
    assert row["error"] < 2e-6  # operands are rounded for both

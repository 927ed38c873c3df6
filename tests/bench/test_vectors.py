"""What is timed side by side computes the same."""

import pytest
import torch

from newtriton.bench import vectors
from newtriton.bench.kernels import Peaks
from newtriton.runtime.fused.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.mark.parametrize("name", vectors.OPERATIONS)
def test_ours_is_pytorchs(name: str, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    monkeypatch.setattr(vectors, "milliseconds", lambda calls, *_: dict.fromkeys(calls, 1.0))
    settings = Settings("ieee", "fused", True, 8192)
    row = vectors.measure(name, 1001, 1, False, settings, Peaks(1.0, 1.0))
    assert row["error"] < 2e-6 and row["times_faster"] == 1.0 and "compiled_ms" not in row

"""The check finds a wrong kernel, and says which."""

import pytest
import torch

from newtriton.compiler.lowering import printing
from newtriton.compiler.lowering.tile import Along
from newtriton.runtime.checking import numbers as check
from newtriton.runtime.fused.settings import Settings

from .small import small

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
INTERPRETED = Settings("ieee", "fused", True, 8192)


@pytest.mark.interpreter
@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_all_kernels_of_a_small_network_are_right(precision: str):
    errors = list(check.numbers("small", small(), 3, Settings(precision, "fused", True, 8192)))
    assert len(errors) > 30 and all(e.good for e in errors), [str(e) for e in errors if not e.good]


@pytest.mark.interpreter
def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch):
    right = printing.ALONG_ROW[Along.SUM]
    monkeypatch.setitem(printing.ALONG_ROW, Along.SUM, f"1.001 * {right}")
    wrong = [e for e in check.numbers("small", small(), 3, INTERPRETED) if not e.good]
    assert "linearize" in wrong[0].kernel and "row_max" in wrong[0].kernel
    assert str(wrong[0]).endswith("WRONG")


def test_a_nan_is_not_good():
    assert not check.Error("kernel", float("nan"), 2e-5).good


@pytest.mark.interpreter
@pytest.mark.parametrize("length", [1, 2500])
def test_all_kernels_of_vectors_are_right(length: int):
    errors = list(check.vector_numbers(length, torch.device("cpu"), INTERPRETED))
    assert len(errors) == 15 and all(e.good for e in errors), [str(e) for e in errors if not e.good]

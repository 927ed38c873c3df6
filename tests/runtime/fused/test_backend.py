"""The backend: one selection for all its graphs, measured only where that is asked for."""

from pathlib import Path

import pytest
import torch

from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Graph, N
from newtriton.runtime.fused import codecache
from newtriton.runtime.fused.backend import TritonBackend
from newtriton.runtime.fused.measurements import Trials
from newtriton.runtime.fused.settings import Settings

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(codecache.FOLDER, str(tmp_path / "cache"))


def test_contractions_are_compared_only_where_they_are_measured():
    fused, measured = (TritonBackend(Settings("ieee", w), CPU) for w in ("fused", "measured"))
    assert fused.selection.comparison is None
    assert isinstance(measured.selection.comparison, Trials)


def test_quadratic_forms_take_three_products_where_operands_are_rounded():
    found = {
        p: TritonBackend(Settings(p), CPU).two_products(1e9) for p in ("ieee", "tf32x3", "tf32")
    }
    assert found == {"ieee": True, "tf32x3": True, "tf32": False}


def test_all_graphs_share_the_selection():
    backend = TritonBackend(Settings("ieee", "fused"), CPU)
    x = ops.input_("x", (N, 3))
    graph = Graph("product", {"y": ops.matmul(x, ops.param("w", (2, 3)), tb=True)})
    assert backend.executor(graph).selection is backend.selection
    assert not backend.executor(graph).keep_made
    assert backend.executor(graph, [*graph.outputs.values()]).keep_made

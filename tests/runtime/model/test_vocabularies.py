"""Statistics of tables with tens of thousands of rows: counted, and never a matrix of words."""

from __future__ import annotations

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.ir import Op
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context
from newtriton.runtime.checking.networks import words
from newtriton.runtime.fused.chips import CHIPS
from newtriton.runtime.fused.executor import FusedExecutor
from newtriton.runtime.fused.selection import Selection
from newtriton.runtime.fused.settings import Settings
from newtriton.runtime.model.model import Model
from tests.sequences import gpt

WORDS, WIDTH, LENGTH, BATCH = 50_257, 8, 6, 4
LOGITS, TABLE = BATCH * LENGTH * WORDS, WORDS * WIDTH
NETWORKS = {
    "classes": lambda: nt.Sequential(nt.Embedding(WORDS, WIDTH), nt.Flatten(), nt.Linear(3)),
    "head": lambda: words(2, WIDTH, WORDS),
    "tied": lambda: gpt(WORDS, WIDTH, 2),
}


def compiled(name: str) -> Model:
    inputs = nt.InputSpec((LENGTH,), "int")
    net, loss = NETWORKS[name](), nt.CrossEntropyLoss()
    return nt.compile(net, inputs, loss, backend="aten", device="cpu")


def data(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, WORDS, (BATCH, LENGTH), generator=generator).clamp(max=WORDS // 2)
    return x, x[:, 0] % 3 if name == "classes" else x.flip(1)


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("kind", ["kfac", "empirical"])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_statistic_of_a_table_has_a_one_hot_or_a_matrix_of_words(
    name: str, kind: str, sharing: str
) -> None:
    graph = compiled(name).programs[True].factors(kind, sharing=sharing).graph
    most = 4 * WORDS if name == "classes" else LOGITS
    assert max(node.type.numel(BATCH) for node in graph.computed()) <= most
    looked_up = [node for node in graph.computed() if node.op is Op.SCATTER_ROWS]
    assert [node.shape for node in looked_up] == [(WORDS, 1)]
    bytes_of = 4 * (16 * WORDS if name == "classes" else 8 * LOGITS)
    aten = AtenExecutor(graph).footprint(Context(BATCH, torch.float32, torch.device("cpu")))
    selection = Selection(Settings("ieee", "fused", chip=CHIPS["sm_90"]))
    fused = FusedExecutor(graph, (), selection).plan(BATCH)
    assert max(aten.peak, fused.footprint(BATCH).peak) <= bytes_of
    if name == "classes":
        assert fused.schedule.traffic(BATCH) <= bytes_of


@pytest.mark.parametrize("name", NETWORKS)
def test_the_side_of_words_is_kept_as_its_diagonal(name: str) -> None:
    model, (x, y) = compiled(name), data(name)
    lin = model.linearize(x, y)
    factors = lin.kronecker_factors("empirical")
    sides = {tuple(side.shape) for pair in factors.values() for side in pair.tensors.values()}
    assert (WORDS,) in sides
    assert all(side == (WORDS,) for side in sides if WORDS in side)
    counts = torch.bincount(x.flatten(), minlength=WORDS) / x.numel()
    diagonals = [s for pair in factors.values() for s in pair.tensors.values() if len(s) == WORDS]
    if name != "tied":  # there the head's gradients are added
        assert torch.equal(diagonals[0], counts)


@pytest.mark.parametrize("name", ["head", "tied"])
def test_what_takes_a_copy_for_each_word_is_refused(name: str) -> None:
    lin = compiled(name).linearize(*data(name))
    with pytest.raises(nt.NewtritonError, match=f"{WORDS}·{LENGTH} = .* use 'kfac'"):
        lin.kronecker_factors("kflr")
    for curvature in ("kflr", "ekfac-kflr"):
        with pytest.raises(nt.NewtritonError, match=r"max_copies is 4096"):
            nt.SecondOrder(compiled(name), curvature, "eigen")


def test_a_matrix_of_words_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lin = compiled("head").linearize(*data("head"))
    monkeypatch.setenv("NEWTRITON_MEMORY", "4e9")
    with pytest.raises(nt.NewtritonError, match="are free"):
        lin.kronecker_factors("kfac", max_factor=WORDS)


def test_an_optimizer_in_the_eigenbasis_steps_without_a_matrix_of_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEWTRITON_MEMORY", str(64 * 4 * LOGITS))
    model = compiled("tied")
    optimizer = nt.SecondOrder(model, "ekfac", "eigen")
    before = model.params.clone()
    optimizer.step(*data("tied"))
    assert model.params.isfinite().all() and not torch.equal(model.params, before)

"""A batch of which ranks have parts: what is computed of it is what one process computes."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

import newtriton as nt
from newtriton.runtime.parallel.ranks import Ranks
from newtriton.runtime.parallel.share import own_part, share_of
from tests.tolerances import assert_close

from .cases import NETWORKS, compiled, part, samples, values
from .workers import with_options, workers

COUNT = 11
CUTS = {2: ((0, 4, 11), (0, 0, 11)), 3: ((0, 3, 5, 11), (0, 0, 5, 5 + 6))}


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_values_are_those_of_the_whole_batch(size: int, name: str) -> None:
    """Uneven parts, and empty ones."""
    (expected,) = values(None, name, [()], COUNT)
    by_rank = workers(size)(values, name, CUTS[size], COUNT)
    for cut, *found in zip(CUTS[size], *by_rank, strict=True):
        for of_rank in found:
            assert of_rank.keys() == expected.keys()
            for what, value in expected.items():
                assert_close(of_rank[what], value, f"{what} cut at {cut}")
        assert all(torch.equal(found[0][n], each[n]) for each in found for n in found[0])


def on_kernels(parallel: nt.DataParallel | None, backend: str) -> tuple[torch.Tensor, ...]:
    net = nt.Sequential(nt.Linear(4), nt.BatchNorm1d(), nt.Tanh(), nt.Linear(3))
    loss = nt.CrossEntropyLoss()
    model = nt.compile(net, (3,), loss, backend=backend, device="cpu", parallel=parallel)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    x, y = (part(parallel, t, (0, 2, 5)) for t in (x, torch.arange(5) % 3))
    lin = model.linearize(x, y)
    v = torch.ones_like(model.params)
    pair = lin.kronecker_factors("empirical")["0"]
    return lin.gradient, lin.hvp(v), pair.A, pair.G


@pytest.mark.interpreter
@pytest.mark.skipif(find_spec("triton") is None, reason="there is no Triton")
def test_fused_kernels_are_cut_where_ranks_are_summed() -> None:
    expected = on_kernels(None, "aten")
    first, second = workers(2)(on_kernels, "triton")
    for one, other, value in zip(first, second, expected, strict=True):
        assert_close(one, value)
        assert torch.equal(one, other)


class Mixing(torch.nn.Module):
    """A module that centres its features, and multiplies by their second moments."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(3, 4), torch.nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.first(x))
        h = h - h.mean(0)
        return self.last(h @ (h.T @ h / h.size(0)))


def mixed(parallel: nt.DataParallel | None, training: bool) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    x, y = torch.randn(COUNT, 3, dtype=torch.float64), torch.arange(COUNT) % 5
    model = nt.from_torch(Mixing().double(), x, nt.CrossEntropyLoss(), parallel=parallel)
    lin = model.linearize(*(part(parallel, t, (0, 4, COUNT)) for t in (x, y)), training=training)
    v = torch.linspace(0, 1, model.params.numel(), dtype=torch.float64)
    pairs = lin.kronecker_factors("empirical").values()
    return lin.gradient, lin.hvp(v), lin.quadratic_forms([v]), *(p.tensors["G"] for p in pairs)


@pytest.mark.parametrize("training", [True, False])
def test_a_module_that_mixes_samples_by_sums_mixes_those_of_the_whole_batch(training: bool) -> None:
    expected = mixed(None, training)
    for found in workers(2)(mixed, training):
        for one, value in zip(found, expected, strict=True):
            assert_close(one, value)


def of_ranks(parallel: nt.DataParallel, cut: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    model = compiled("perceptron", with_options(parallel, batch_norm="rank"))
    x, y = (part(parallel, t, cut) for t in samples("perceptron", COUNT))
    lin = model.linearize(x, y)
    return lin.loss, lin.gradient, lin.statistics["2.running_mean"]


def test_batch_norm_may_take_the_statistics_of_each_part() -> None:
    """As DistributedDataParallel does: the mean of what the parts give by themselves."""
    cut = (0, 4, 11)
    model = compiled("perceptron", None, weight_decay=0.0)
    x, y = samples("perceptron", COUNT)
    alone = [model.linearize(x[a:b], y[a:b]) for a, b in ((0, 4), (4, 11))]
    weights = torch.tensor([lin.count for lin in alone]).double()
    gradient = sum(lin.gradient * c for lin, c in zip(alone, weights, strict=True))
    mean = sum(lin.statistics["2.running_mean"] * n for lin, n in zip(alone, (4, 7), strict=True))
    for loss, found, statistic in workers(2)(of_ranks, cut):
        assert_close(found - 0.01 * model.params, gradient / weights.sum())
        assert_close(statistic, mean / COUNT)
        assert loss.isfinite()


def refused(parallel: nt.DataParallel, spoil: str) -> str:
    model = compiled("chain", parallel)
    x, y = (part(parallel, t, (0, 4, 11)).clone() for t in samples("chain", COUNT))
    if parallel.ranks.rank == 1:
        x = x[:, :1] if spoil == "shape" else x
        x[0] = torch.nan if spoil == "nan" else x[0]
    try:
        model.linearize(x, y)
    except nt.NewtritonError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("spoil", "own", "others"),
    [
        ("shape", "was compiled for", "rank 1 refused its part of the batch"),
        ("nan", "NaN or infinite values in 1 of 7", "another rank's part of the batch"),
    ],
)
def test_what_one_rank_refuses_all_refuse(spoil: str, own: str, others: str) -> None:
    first, second = workers(2)(refused, spoil)
    assert others in first and own in second


def test_a_share_of_one_rank_is_all() -> None:
    share = share_of(Ranks(None), 5, 4.0, torch.device("cpu"))
    assert (share.here, share.first, share.samples, share.normaliser) == (5, 0, 5, 4.0)
    assert own_part(Ranks(None), slice(3, 8)) == slice(3, 8)
    with pytest.raises(nt.NewtritonError, match="no label of the whole batch counts"):
        share_of(Ranks(None), 5, 0.0, torch.device("cpu"))

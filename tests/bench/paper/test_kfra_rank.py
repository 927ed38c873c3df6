"""Ranks of the Gauss–Newton matrix of a mini-batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.bench.paper import kfra_rank as experiment
from newtriton.bench.paper.kfra_rank import PROBLEMS, RANK
from newtriton.bench.protocol.experiment import Setting


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return RANK.measure(Setting("smoke", (0,)))


def test_ranks_keep_to_their_bounds(rows) -> None:
    assert {(row["problem"], row["when"]) for row in rows} == {
        (name, when) for name in PROBLEMS for when in ("first", "trained")
    }
    for row in rows:
        assert all(a <= b for a, b in zip(row["rank"], row["bound"], strict=True))
        assert all(a <= b for a, b in zip(row["sampled"], row["batch"], strict=True))
        assert all(0.0 <= share <= 1.0 + 1e-6 for share in row["share"])
    assert RANK.figure(rows).axes
    assert {finding.verdict for finding in RANK.findings(rows)[:3]} == {"agrees"}


@pytest.mark.parametrize("name", ["even or odd", "mixture, Fisher", "autoencoder"])
def test_inner_products_have_the_eigenvalues_of_the_matrix(name: str) -> None:
    problem = PROBLEMS[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 5, dtype=torch.float64, generator=generator)
    y = {0: x, 1: torch.tensor([[0.0], [1.0], [1.0]]).double()}.get(
        problem.outputs, torch.tensor([0, 1, 1])
    )
    layers = [nt.Linear(4), nt.Sigmoid(), nt.Linear(problem.outputs or 5)]
    net = nt.Sequential(*layers)
    model = nt.compile(net, (5,), problem.loss(), dtype=torch.float64, seed=0)
    z, met = experiment.outputs(model, net, x)
    torch.testing.assert_close(z, model(x))
    columns = experiment.uses(model, net, met, problem.root(z, y))
    gram = torch.stack([layer.gram for layer in columns]).sum(0) / 3
    lin = model.linearize(x, y)
    units = torch.eye(model.params.numel(), dtype=torch.float64)
    matrix = torch.stack([lin.ggnvp(unit) for unit in units])
    found, expected = (torch.linalg.eigvalsh(m).flip(0) for m in (gram, matrix))
    number = min(len(found), len(expected))
    torch.testing.assert_close(found[:number], expected[:number], rtol=1e-9, atol=1e-12)
    descent = experiment.uses(model, net, met, problem.gradient(z, y)[:, :, None])
    slopes = [torch.einsum("nko,nd->od", u.adjoints, u.inputs) / 3 for u in descent]
    square = float(sum((slope**2).sum() for slope in slopes))
    assert square == pytest.approx(float(lin.gradient @ lin.gradient))


def test_a_share_is_that_of_a_projection() -> None:
    vectors = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [2.0, 1.0, 0.0]]).double()
    g = torch.tensor([3.0, 0.0, 4.0]).double()
    gram = vectors @ vectors.mT
    assert experiment.rank(gram) == 2
    assert experiment.share_inside(gram, vectors @ g, 25.0) == pytest.approx(9 / 25)

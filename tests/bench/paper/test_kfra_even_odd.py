"""The mixture of two classifiers: rows, and the matrices of its outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.bench.paper import kfra_even_odd as experiment
from newtriton.bench.paper.kfra_even_odd import EVEN_ODD, METHODS
from newtriton.bench.protocol.experiment import Setting


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return EVEN_ODD.measure(Setting("smoke", (0, 1)))


def test_every_method_trains_the_classifier(rows) -> None:
    assert {row["method"] for row in rows} > set(METHODS)
    assert all("fault" not in row for row in rows)
    assert EVEN_ODD.figure(rows).axes
    assert all(finding.ours for finding in EVEN_ODD.findings(rows))
    assert EVEN_ODD.findings(rows)[0].verdict == "open"  # nothing comes so far


def test_the_rank_of_the_outputs_hessian_is_told(rows) -> None:
    first, _ = next(row["outputs"] for row in rows if row["method"] == "KFLR")
    assert first["fisher_rank"] == 1.0 < first["rank"]
    assert EVEN_ODD.findings(rows)[-1].verdict == "contradicts"


def test_digits_are_even_or_odd() -> None:
    _, samples = experiment.digits(Setting("smoke"))
    train, _ = nt.load("digits")
    assert samples.y.tolist() == [label % 2 for label in train.y[:80].tolist()]


def test_the_classifier_has_the_layers_down_to_the_code() -> None:
    net = experiment.classifier(Setting("full"), 784, 3)
    widths = [layer.out_features for layer in net.layers if isinstance(layer, nt.Linear)]
    assert widths == [1000, 500, 250, 30, 3]


@pytest.mark.parametrize("root", ["fisher", "clip"])
def test_matrices_of_the_outputs_are_those_of_the_loss(root: str) -> None:
    torch.manual_seed(0)
    z, y = torch.randn(20, 3, dtype=torch.float64), torch.arange(20) % 2
    truth, fisher = experiment.output_matrices(z, y)
    values, vectors = torch.linalg.eigh(truth)
    clipped = vectors @ torch.diag_embed(values.clamp(min=0.0)) @ vectors.mT
    expected = {"fisher": fisher, "clip": clipped}[root].mean(0)
    # A network whose outputs are those numbers: z = I x, and G of its bias is the mean of B.
    model = nt.compile(nt.Linear(3), (3,), nt.MixtureLoss(root), dtype=torch.float64)
    model.params.copy_(torch.cat([torch.eye(3).flatten(), torch.zeros(3)]).double())
    lin = model.linearize(z, y)
    found = torch.stack([lin.ggnvp(unit)[9:] for unit in torch.eye(12, dtype=torch.float64)[9:]])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)

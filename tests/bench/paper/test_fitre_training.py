"""Training runs with FITRE and others: networks, and the choice of points."""

from __future__ import annotations

import pytest

import newtriton as nt
from newtriton.bench.paper.fitre_training import (
    SMOKE,
    Problem,
    Task,
    first_layer,
    network,
    sgd,
)
from newtriton.bench.protocol.experiment import Setting
from newtriton.compiler.layers.models import VGG

SETTING = Setting("smoke", (0,))


def count(net: nt.Sequential, kind: type) -> int:
    return sum(isinstance(layer, kind) for layer in net.layers)


@pytest.mark.parametrize("depth", VGG)
@pytest.mark.parametrize(("pixels", "pools"), [(8, 3), (16, 4), (28, 4), (31, 4), (32, 5), (64, 5)])
def test_a_network_has_all_convolutions_and_the_pools_that_its_images_allow(
    depth: int, pixels: int, pools: int
) -> None:
    net = network(depth, pixels, 10, batch_norm=True, init="default", thin=16)
    assert count(net, nt.MaxPool2d) == pools
    assert count(net, nt.Conv2d) == count(net, nt.BatchNorm2d) == depth - 3
    nt.compile(net, (1, pixels, pixels), nt.CrossEntropyLoss(), device="cpu")


def test_the_full_network_is_the_one_of_the_papers() -> None:
    made = network(16, 32, 100, batch_norm=False, init="kaiming")
    assert repr(made) == repr(nt.models.vgg16(100, init="kaiming"))


def test_the_best_point_is_run_with_all_seeds_and_others_are_brief() -> None:
    task = Task.of(Problem("Table 6", "cifar100", 11, "kaiming"), SMOKE, Setting("smoke", (3, 4)))
    rates = [{"rate": rate} for rate in (1e-6, 0.05, 1e30)]
    rows = task.tuned("SGD", sgd, rates, lambda row: -row["loss"][-1])
    assert [(row["rate"], row["seed"], "epoch" in row) for row in rows] == [
        (1e-6, 3, False), (1e30, 3, False), (0.05, 3, True), (0.05, 4, True)
    ]  # fmt: skip
    assert rows[0]["data"] == "100 samples of digits in place of cifar100"
    assert "fault" in rows[1]


def test_default_weights_leave_the_first_layer_no_gradient_without_batch_norm() -> None:
    train = nt.load("digits")[0]
    found = []
    for batch_norm in (False, True):
        net = network(16, 8, 10, batch_norm=batch_norm, init="default", thin=16)
        model = nt.compile(net, (1, 8, 8), nt.CrossEntropyLoss(), device="cpu")
        found.append(first_layer(model, train, 100))
    for field in ("first_gradient", "first_curvature"):
        assert 0.0 < found[0][field] < 1e-6 * found[1][field]

"""The model that options describe: of the catalogue, of a user's file, with what each takes."""

import argparse
import sys
from pathlib import Path

import pytest
import torch

import newtriton as nt
from newtriton.command.networks import add_network, loss, model_of, network
from newtriton.compiler.graph.errors import NewtritonError

NETS = """
import torch
from torch import nn
import newtriton as nt

instance = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
layer = nt.Sequential(nt.Flatten(), nt.Linear(4))
number = 3

class Module(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 4))

def sized(classes, inputs=None, init="default", batch_norm=True):
    sized.given = classes, inputs, init, batch_norm
    return nt.Sequential(nt.Flatten(), nt.Linear(classes, init=init))

def any_keywords(**keywords):
    return nt.Linear(4)

def deep(depth, width):
    return layer

def broken():
    return 1 / 0

loss = nt.CrossEntropyLoss(label_smoothing=0.1)

class Logistic(nt.Criterion):
    def __init__(self):
        super().__init__(lambda z, y: nt.scalar.softplus(-z * y), values=(-1, 1), convex=True)
"""
IMAGES = nt.Samples(torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 3, 1, 0]))


@pytest.fixture(autouse=True)
def _nets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file of networks in the present folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "nets_of_a_user", raising=False)
    Path("nets_of_a_user.py").write_text(NETS)


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_network(parser, "cnn")
    parser.set_defaults(seed=3)
    return parser.parse_args([a.replace("nets:", "nets_of_a_user.py:") for a in arguments])


@pytest.mark.parametrize(
    "name", ["nets:instance", "nets:layer", "nets:Module", "nets:sized", "nets_of_a_user:layer"]
)
def test_a_network_of_the_users_trains(name: str) -> None:
    model = model_of(options("--net", name), IMAGES, seed=1)
    assert nt.FITRE(model).step(*IMAGES).accepted
    assert model(IMAGES.x).shape == (6, 4)


def test_modules_start_from_the_seed() -> None:
    first, second = (network(options("--net", "nets:Module")) for _ in range(2))
    assert torch.equal(first[1].weight, second[1].weight)


def test_a_function_gets_what_it_takes() -> None:
    net = options("--net", "nets:sized")
    network(net, IMAGES)
    given = sys.modules["nets_of_a_user"].sized
    assert given.given == (4, None, "default", True)
    network(options("--net", "nets:sized", "--classes", "7", "--no-batch-norm"), IMAGES)
    assert given.given == (7, None, "default", False)
    network(options("--net", "nets:sized"), nt.Samples(torch.rand(3, 5), torch.arange(3)))
    assert given.given == (3, 5, "default", True)


def test_classes_that_data_do_not_tell_are_asked_for() -> None:
    targets = nt.Samples(torch.rand(3, 5), torch.rand(3, 5))
    with pytest.raises(NewtritonError, match="needs classes: give --classes, or a function"):
        network(options("--net", "nets:sized"), targets)


def test_the_catalogues_networks_take_options() -> None:
    net = network(options("--net", "vgg11", "--batch-norm", "--classes", "3"), IMAGES)
    assert any(isinstance(layer, nt.BatchNorm2d) for layer in net.layers)
    assert net.layers[-1].out_features == 3
    assert network(options("--net", "cnn3", "--init", "xavier"), IMAGES).layers[0].init == "xavier"
    features = nt.Samples(torch.rand(2, 20), torch.rand(2, 20))
    assert network(options("--net", "autoencoder"), features).layers[-1].out_features == 20


@pytest.mark.parametrize("name", ["mse", "nets:loss", "nets:Logistic"])
def test_a_loss_is_named_or_the_users(name: str) -> None:
    assert isinstance(loss(options("--loss", name)), nt.Loss)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--net", "cnn", "--batch-norm"],
            "--batch-norm is not for cnn, which takes --classes, --",
        ),
        (["--net", "nets:layer", "--classes", "3"], "which is a network already, which takes no"),
        (["--net", "nets:instance", "--init", "xavier"], "--init is not for"),
        (["--net", "nets:Module", "--classes", "3"], "--classes is not for"),
        (["--net", "cnn", "--classes", "0"], "--classes is 0: give a positive integer"),
        (["--net", "nets:number"], "gives 3: give a layer of newtriton, an nn.Module, or"),
        (["--net", "nets:deep"], "needs depth, width: give a function or class that needs"),
        (["--net", "nets:broken"], "failed with ZeroDivisionError: division by zero"),
        (["--loss", "nets:number"], "gives 3: give an nt.Loss"),
        (["--loss", "nets:layer"], "give an nt.Loss"),
        (["--loss", "nets:broken"], "failed with ZeroDivisionError"),
        (["--loss", "hinge"], "--loss is 'hinge': one of ce, mse, bce, margin, or module:attrib"),
    ],
)
def test_what_does_not_go_together_is_said(arguments: list[str], message: str) -> None:
    with pytest.raises(NewtritonError) as raised:
        model_of(options(*arguments), IMAGES)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)

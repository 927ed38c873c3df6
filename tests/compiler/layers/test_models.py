"""Ready-made networks: layers, sizes and rules of initialisation as their papers have them."""

from __future__ import annotations

import pytest

import newtriton as nt
from newtriton.compiler.language.network import Layer, trace
from newtriton.compiler.layers import models


def parameters(net: Layer, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    traced = trace(net, shape, nt.CrossEntropyLoss())
    return {name: p.shape for name, p in traced.parameters.items()}


@pytest.mark.parametrize("depth", models.VGG)
def test_a_vgg_has_as_many_layers_with_weights_as_it_says(depth: int) -> None:
    net = getattr(models, f"vgg{depth}")(7)
    found = parameters(net, (3, 32, 32))
    weights = [shape for name, shape in found.items() if name.endswith("weight")]
    assert len(weights) == depth - 2  # one linear layer in place of three
    assert weights[-1] == (7, 512)
    assert sum(isinstance(layer, nt.MaxPool2d) for layer in net.layers) == 5


def test_batch_norm_follows_every_convolution() -> None:
    layers = models.vgg11(batch_norm=True).layers
    norms = [i for i, layer in enumerate(layers) if isinstance(layer, nt.BatchNorm2d)]
    assert norms == [i + 1 for i, layer in enumerate(layers) if isinstance(layer, nt.Conv2d)]
    assert not any(isinstance(layer, nt.BatchNorm2d) for layer in models.vgg11().layers)


@pytest.mark.parametrize(("make", "pools"), [(models.cnn3, 3), (models.cnn5, 3)])
def test_convolutions_keep_the_size_of_the_image(make, pools: int) -> None:
    found = [*parameters(make(10), (3, 32, 32)).values()]
    channels = found[-4][0]  # of the last convolution
    assert found[-2] == (10, channels * (32 // 2**pools) ** 2)


def test_an_autoencoder_returns_to_its_inputs_through_a_linear_code() -> None:
    layers = models.autoencoder(50).layers
    widths = [layer.out_features for layer in layers if isinstance(layer, nt.Linear)]
    assert widths == [1000, 500, 250, 30, 250, 500, 1000, 50]
    code = widths.index(30)
    linear = [i for i, layer in enumerate(layers) if isinstance(layer, nt.Linear)]
    assert linear[code + 1] == linear[code] + 1  # no sigmoid between
    assert sum(isinstance(layer, nt.Sigmoid) for layer in layers) == 6
    small = models.autoencoder(9, hidden=(5, 3)).layers
    assert [layer.out_features for layer in small if isinstance(layer, nt.Linear)] == [5, 3, 5, 9]
    with pytest.raises(nt.NewtritonError, match=r"hidden is \(\)"):
        models.autoencoder(9, hidden=())


def test_a_perceptron_takes_images_and_needs_a_hidden_layer() -> None:
    found = parameters(models.mlp((5, 4), classes=3), (1, 2, 3))
    assert [*found.values()] == [(5, 6), (5,), (4, 5), (4,), (3, 4), (3,)]
    with pytest.raises(nt.NewtritonError, match=r"hidden is \(\)"):
        models.mlp(())

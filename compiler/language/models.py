"""Ready-made networks of the papers."""

from __future__ import annotations

from ..graph.errors import NewtritonError
from .layers import (
    BatchNorm2d,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
    Sigmoid,
    SiLU,
)
from .network import Layer

# Configurations A, D, E of Simonyan & Zisserman (2015): widths, and "M" for a 2×2 max pool.
VGG: dict[int, tuple[int | str, ...]] = {
    11: (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    16: (64, 64, "M", 128, 128, "M", *(256,) * 3, "M", *(512,) * 3, "M", *(512,) * 3, "M"),
    19: (64, 64, "M", 128, 128, "M", *(256,) * 4, "M", *(512,) * 4, "M", *(512,) * 4, "M"),
}


def _vgg(depth: int, classes: int, batch_norm: bool, init: str) -> Sequential:
    layers: list[Layer] = []
    for width in VGG[depth]:
        if isinstance(width, int):
            norm = [BatchNorm2d()] if batch_norm else []
            layers += [Conv2d(width, 3, padding=1, init=init), *norm, SiLU()]
        else:
            layers.append(MaxPool2d(2))
    return Sequential(*layers, Flatten(), Linear(classes, init=init))


def vgg11(classes: int = 10, *, batch_norm: bool = False, init: str = "default") -> Sequential:
    """VGG11, configuration A, with SiLU and one linear head; images of at least 32×32."""
    return _vgg(11, classes, batch_norm, init)


def vgg16(classes: int = 10, *, batch_norm: bool = False, init: str = "default") -> Sequential:
    """VGG16, configuration D, with SiLU and one linear head; images of at least 32×32."""
    return _vgg(16, classes, batch_norm, init)


def vgg19(classes: int = 10, *, batch_norm: bool = False, init: str = "default") -> Sequential:
    """VGG19, configuration E, with SiLU and one linear head; images of at least 32×32."""
    return _vgg(19, classes, batch_norm, init)


def _cnn(stages: tuple[tuple[int, int, bool], ...], classes: int) -> Sequential:
    """(width, kernel, pooled) per convolution: ReLU, size kept, He normal weights, zero biases."""
    layers: list[Layer] = []
    for width, kernel, pooled in stages:
        layers += [Conv2d(width, kernel, padding="same", init="kaiming"), ReLU()]
        layers += [MaxPool2d(2)] if pooled else []
    return Sequential(*layers, Flatten(), Linear(classes, init="kaiming"))


def cnn3(classes: int = 10) -> Sequential:
    """The 3-layer CNN of Wang, Tan & Lin (2020), Table 4."""
    return _cnn(((32, 5, True), (64, 3, True), (64, 3, True)), classes)


def cnn5(classes: int = 10) -> Sequential:
    """The 5-layer CNN of Wang, Tan & Lin (2020), Table 4."""
    return _cnn(
        ((32, 5, True), (32, 3, False), (64, 3, True), (64, 3, False), (128, 3, True)), classes
    )


def small_cnn(classes: int = 10) -> Sequential:
    """Two convolutions and a linear layer, for images from 4×4 pixels on."""
    return Sequential(
        *(Conv2d(32, 3, padding=1), SiLU(), MaxPool2d(2)),
        *(Conv2d(64, 3, padding=1), SiLU(), MaxPool2d(2)),
        *(Flatten(), Linear(classes)),
    )


def autoencoder(inputs: int = 784, init: str = "sparse") -> Sequential:
    """D-1000-500-250-30-250-500-1000-D, sigmoid, linear code layer (Botev et al. 2017, section 5).

    Its outputs are logits (BCEWithLogitsLoss) or the image itself (MSELoss).

    Args:
        inputs: D.
        init: of the weights. The paper does not say; Martens & Grosse (2015), whom it follows, take
            "sparse". Under "xavier" every sigmoid quarters what an image has of its own: after six
            of them all images look alike, and training starts on a plateau.
    """
    layers: list[Layer] = []
    for width in (1000, 500, 250, 30, 250, 500, 1000):
        layers.append(Linear(width, init=init))
        layers += [Sigmoid()] if width != 30 else []
    return Sequential(*layers, Linear(inputs, init=init))


def mlp(
    hidden: tuple[int, ...] = (1024, 512, 256, 128, 64, 32, 16), classes: int = 10
) -> Sequential:
    """The sigmoid MLP of Chen, Chou & Chang (2018), Xavier weights; takes images or features."""
    if not hidden:
        raise NewtritonError("hidden is empty: give at least one width")
    layers: list[Layer] = [Flatten()]
    for width in hidden:
        layers += [Linear(width, init="xavier"), Sigmoid()]
    return Sequential(*layers, Linear(classes, init="xavier"))

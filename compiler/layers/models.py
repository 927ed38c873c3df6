"""Ready-made networks of the papers.

Each function returns a network that has not been compiled. `classes` is its number of outputs.

Examples:
    >>> import newtriton as nt
    >>> model = nt.compile(nt.models.mlp((16,), classes=3), (1, 8, 8), nt.CrossEntropyLoss())
    >>> model.params.numel()
    1091
"""

from __future__ import annotations

from ..graph.options import check_counts, check_flag
from ..language.network import Layer
from .activations import ReLU, Sigmoid, SiLU
from .containers import Sequential
from .convolutions import Conv2d
from .linear import Linear
from .norms import BatchNorm2d
from .pools import MaxPool2d
from .shaping import Flatten

# Configurations A, D, E of Simonyan & Zisserman (2015): widths, and "M" for a 2×2 max pool.
VGG: dict[int, tuple[int | str, ...]] = {
    11: (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    16: (64, 64, "M", 128, 128, "M", *(256,) * 3, "M", *(512,) * 3, "M", *(512,) * 3, "M"),
    19: (64, 64, "M", 128, 128, "M", *(256,) * 4, "M", *(512,) * 4, "M", *(512,) * 4, "M"),
}


def _vgg(depth: int, classes: int, batch_norm: bool, init: str) -> Sequential:
    """Returns the VGG of a depth in `VGG`."""
    layers: list[Layer] = []
    check_flag("batch_norm", batch_norm)
    for width in VGG[depth]:
        if isinstance(width, int):
            norm = [BatchNorm2d()] if batch_norm else []
            layers += [Conv2d(width, 3, padding=1, init=init), *norm, SiLU()]
        else:
            layers.append(MaxPool2d(2))
    return Sequential(*layers, Flatten(), Linear(classes, init=init))


def vgg11(classes: int = 10, *, batch_norm: bool = False, init: str = "default") -> Sequential:
    """Returns VGG11, configuration A of Simonyan & Zisserman (2015), with SiLU.

    One linear layer takes the place of the paper's three. Images have 32×32 pixels at least.

    Args:
        classes: the number of outputs.
        batch_norm: whether a batch norm follows each convolution.
        init: the rule for the first weights, as in `Conv2d`.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.models.vgg11(batch_norm=True)
        >>> sum(isinstance(layer, nt.Conv2d) for layer in net.layers)
        8
    """
    return _vgg(11, classes, batch_norm, init)


def vgg16(classes: int = 10, *, batch_norm: bool = False, init: str = "default") -> Sequential:
    """Returns VGG16, configuration D of Simonyan & Zisserman (2015), with SiLU.

    One linear layer takes the place of the paper's three. Images have 32×32 pixels at least.

    Args:
        classes: the number of outputs.
        batch_norm: whether a batch norm follows each convolution.
        init: the rule for the first weights, as in `Conv2d`.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.models.vgg16(batch_norm=True)
        >>> sum(isinstance(layer, nt.Conv2d) for layer in net.layers)
        13
    """
    return _vgg(16, classes, batch_norm, init)


def vgg19(classes: int = 10, *, batch_norm: bool = False, init: str = "default") -> Sequential:
    """Returns VGG19, configuration E of Simonyan & Zisserman (2015), with SiLU.

    One linear layer takes the place of the paper's three. Images have 32×32 pixels at least.

    Args:
        classes: the number of outputs.
        batch_norm: whether a batch norm follows each convolution.
        init: the rule for the first weights, as in `Conv2d`.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.models.vgg19(batch_norm=True)
        >>> sum(isinstance(layer, nt.Conv2d) for layer in net.layers)
        16
    """
    return _vgg(19, classes, batch_norm, init)


def _cnn(stages: tuple[tuple[int, int, bool], ...], classes: int, init: str) -> Sequential:
    """Returns convolutions that keep the image's size, with ReLU, and a linear layer.

    Args:
        stages: for each convolution its width, its window, and whether a 2×2 max pool follows.
        classes: the number of outputs.
        init: the rule for the first weights, as in `Conv2d`.
    """
    layers: list[Layer] = []
    for width, kernel, pooled in stages:
        layers += [Conv2d(width, kernel, padding="same", init=init), ReLU()]
        layers += [MaxPool2d(2)] if pooled else []
    return Sequential(*layers, Flatten(), Linear(classes, init=init))


def cnn3(classes: int = 10, *, init: str = "kaiming") -> Sequential:
    """Returns the CNN of three convolutions of Wang, Tan & Lin (2020), Table 4.

    Args:
        classes: the number of outputs.
        init: the rule for the first weights, as in `Conv2d`; the paper's is He normal, with biases
            that start at 0.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.models.cnn3()
        >>> sum(isinstance(layer, nt.Conv2d) for layer in net.layers)
        3
    """
    return _cnn(((32, 5, True), (64, 3, True), (64, 3, True)), classes, init)


def cnn5(classes: int = 10, *, init: str = "kaiming") -> Sequential:
    """Returns the CNN of five convolutions of Wang, Tan & Lin (2020), Table 4.

    Args:
        classes: the number of outputs.
        init: the rule for the first weights, as in `Conv2d`; the paper's is He normal, with biases
            that start at 0.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.models.cnn5()
        >>> sum(isinstance(layer, nt.Conv2d) for layer in net.layers)
        5
    """
    stages = ((32, 5, True), (32, 3, False), (64, 3, True), (64, 3, False), (128, 3, True))
    return _cnn(stages, classes, init)


def small_cnn(classes: int = 10, *, init: str = "default") -> Sequential:
    """Returns two convolutions and a linear layer, for images from 4×4 pixels on.

    Args:
        classes: the number of outputs.
        init: the rule for the first weights, as in `Conv2d`.

    Examples:
        >>> import newtriton as nt
        >>> model = nt.compile(nt.models.small_cnn(), (1, 8, 8), nt.CrossEntropyLoss())
        >>> model.params.numel()
        21386
    """
    return Sequential(
        *(Conv2d(32, 3, padding=1, init=init), SiLU(), MaxPool2d(2)),
        *(Conv2d(64, 3, padding=1, init=init), SiLU(), MaxPool2d(2)),
        *(Flatten(), Linear(classes, init=init)),
    )


def autoencoder(
    inputs: int = 784,
    init: str = "sparse",
    *,
    hidden: tuple[int, ...] = (1000, 500, 250, 30),
) -> Sequential:
    """Returns the autoencoder D-1000-500-250-30-250-500-1000-D of Botev et al. (2017, section 5).

    Its activations are sigmoids, its code of 30 is linear, and its outputs are logits
    (BCEWithLogitsLoss) or the image itself (MSELoss).

    Args:
        inputs: D, the number of features of a sample.
        init: the rule for the first weights. The paper does not say; Martens & Grosse (2015), whom
            it follows, take "sparse". Under "xavier" every sigmoid quarters what an image has of
            its own: after six of them all images look alike, and training starts on a plateau.
        hidden: the widths down to the code, the last of them.

    Raises:
        NewtritonError: there is no code.

    Examples:
        >>> import newtriton as nt
        >>> net = nt.models.autoencoder(64)
        >>> [layer.out_features for layer in net.layers if isinstance(layer, nt.Linear)]
        [1000, 500, 250, 30, 250, 500, 1000, 64]
    """
    hidden = check_counts("hidden", hidden, "(1000, 500, 250, 30)")
    down = [part for width in hidden[:-1] for part in (Linear(width, init=init), Sigmoid())]
    up = [part for width in hidden[-2::-1] for part in (Linear(width, init=init), Sigmoid())]
    return Sequential(*down, Linear(hidden[-1], init=init), *up, Linear(inputs, init=init))


def mlp(
    hidden: tuple[int, ...] = (1024, 512, 256, 128, 64, 32, 16),
    classes: int = 10,
    *,
    init: str = "xavier",
) -> Sequential:
    """Returns the perceptron of Chen, Chou & Chang (2018), with sigmoids and Xavier weights.

    It takes images or features. Seven layers of sigmoids begin on a plateau, where the loss hardly
    falls for some epochs: fewer hidden layers have none.

    Args:
        hidden: the widths of the hidden layers, first to last.
        classes: the number of outputs.
        init: the rule for the first weights, as in `Linear`.

    Raises:
        NewtritonError: there is no hidden layer.

    Examples:
        >>> import newtriton as nt
        >>> nt.models.mlp((8,), classes=3).layers[-1]
        Linear(3, init='xavier')
    """
    hidden = check_counts("hidden", hidden, "(128, 64)")
    layers: list[Layer] = [Flatten()]
    for width in hidden:
        layers += [Linear(width, init=init), Sigmoid()]
    return Sequential(*layers, Linear(classes, init=init))

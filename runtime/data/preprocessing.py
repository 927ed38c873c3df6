"""Preprocessing by name: what is done to images before they are learned from.

Every step is fitted on the training images alone and applied to both parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_list, check_option
from .augmentation import CropFlip
from .lazy import Lazy, Step
from .samples import Samples

LARGE = 1 << 30  # bytes: where training images would take more, they stay lazy
AUGMENTED = "crop-flip"

Fit = Callable[[Lazy], Step]


def scaled(x: Tensor) -> Tensor:
    """Returns bytes as value/255."""
    return x.float() / 255 if x.dtype == torch.uint8 else x


def _min_max(train: Lazy) -> Step:
    """Each image is mapped to [0, 1] by its own least and largest value (Newton-CNN, section 6.1).

    An image of one value becomes 0.
    """

    def step(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        least, most = (v.view(-1, *[1] * (x.dim() - 1)) for v in (flat.amin(1), flat.amax(1)))
        return (x - least) / torch.where(most > least, most - least, 1)

    return step


def _moments(train: Lazy, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Returns mean and variance of the training values over axes, 0 being the samples."""
    zero = torch.zeros((), dtype=torch.float64, device=train.device)
    count, total, squares = 0, zero, zero
    for chunk in train.chunks():
        values = chunk.double()
        total = total + values.sum(axes, keepdim=True)
        squares = squares + (values**2).sum(axes, keepdim=True)
        count += values.numel() // total.numel()
    mean = total / count
    return mean.float(), (squares / count - mean**2).clamp(min=0).float()


def _pixel_mean(train: Lazy) -> Step:
    """Each pixel loses its mean over the training images (Newton-CNN, section 6.1)."""
    mean, _ = _moments(train, (0,))
    return lambda x: x - mean


def _standard(train: Lazy) -> Step:
    """Each channel loses its mean and is divided by its standard deviation."""
    mean, variance = _moments(train, (0, *range(2, len(train.shape))))
    deviation = torch.where(variance > 0, variance.sqrt(), 1)
    return lambda x: (x - mean) / deviation


def _unit_variance(train: Lazy) -> Step:
    """Each pixel loses its mean; one number makes the mean variance 1 (Hinton & Salakhutdinov)."""
    mean, variance = _moments(train, (0,))
    average = variance.double().mean().float()
    deviation = torch.where(average > 0, average.sqrt(), 1)
    return lambda x: (x - mean) / deviation


def _max_pool(train: Lazy) -> Step:
    """The largest of each 3×3 pixels: 96×96 become 32×32 (Newton-CNN, section 6.1)."""
    if len(train.shape) != 4 or train.shape[2] % 3 or train.shape[3] % 3:
        raise NewtritonError(
            f"max-pool got inputs of shape {tuple(train.shape[1:])}: it takes images whose height "
            "and width are multiples of 3, as smallNORB's are"
        )
    return lambda x: F.max_pool2d(x, 3)


FITS: dict[str, Fit] = {
    "min-max": _min_max,
    "pixel-mean": _pixel_mean,
    "standard": _standard,
    "unit-variance": _unit_variance,
    "max-pool": _max_pool,
}
PAPERS: dict[str, tuple[str, ...]] = {
    "none": (),
    "newton-cnn": ("min-max", "pixel-mean"),
    "fitre": (AUGMENTED,),
}
NAMES = (*PAPERS, *FITS, AUGMENTED)


def names_of(
    preprocessing: str | Iterable[str], papers: Mapping[str, tuple[str, ...]] | None = None
) -> tuple[str, ...]:
    """Returns the steps that a name, or several in their order, stand for.

    Args:
        preprocessing: the name or the names.
        papers: the steps of a paper for a set of which they are others than for most.

    Raises:
        NewtritonError: a name is unknown.
    """
    steps = PAPERS | dict(papers or {})
    if isinstance(preprocessing, str):
        preprocessing = [preprocessing]
    given = check_list("preprocessing", preprocessing, "a name or a list of names")
    for name in given:
        check_option("preprocessing", name, NAMES)
    return tuple(step for name in given for step in steps.get(name, (name,)))


def prepared(train: Samples, test: Samples, names: tuple[str, ...]) -> tuple[Samples, Samples]:
    """Returns both parts preprocessed; images that are in memory and not large become tensors.

    Args:
        train: the training samples, whose x may be bytes or read lazily.
        test: those for testing.
        names: the steps in their order. Augmentation comes last, and in training only.
    """
    for x in (train.x, test.x):
        if not hasattr(x, "shape"):
            raise NewtritonError(
                f"preprocessing got {len(x)} inputs per sample: preprocess them in the dataset"
            )
    steps: list[Step] = [scaled]
    for name in names:
        if name != AUGMENTED:
            steps.append(FITS[name](Lazy(train.x, steps)))
    x, held_out = Lazy(train.x, steps), Lazy(test.x, steps)
    if x.shape[1:] != held_out.shape[1:]:
        raise NewtritonError(
            f"the training images have shape {tuple(x.shape[1:])} and those for testing "
            f"{tuple(held_out.shape[1:])}: give the files of one data set"
        )
    if AUGMENTED in names and train.y is train.x:
        raise NewtritonError(
            f"{AUGMENTED} would change the inputs of an autoencoder and leave its labels as they "
            "are: leave it out"
        )
    if not isinstance(train.x, Tensor) or 4 * x.shape.numel() > LARGE:
        parts = Samples(x, train.y), Samples(held_out, test.y)
    else:
        parts = _in_memory(train, x), _in_memory(test, held_out)
    if AUGMENTED not in names:
        return parts
    return Samples(Lazy(parts[0].x, transform=CropFlip()), train.y), parts[1]


def _in_memory(raw: Samples, x: Lazy) -> Samples:
    """Returns samples with all inputs in memory; labels that are the inputs follow them."""
    values = x.in_memory()
    return Samples(values, values.flatten(1) if raw.y is raw.x else raw.y)

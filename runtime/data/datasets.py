"""Samples of PyTorch's map-style datasets, and of Hugging Face's, which are read as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...compiler.graph.calls import checked
from ...compiler.graph.errors import NewtritonError
from ...compiler.language.trees import is_several, mapped, named, rebuilt
from .lazy import Lazy
from .samples import Samples
from .sources import length_of

LABELS = ("label", "labels", "target", "fine_label", "y")  # what a column of labels is called
COLOURS = {"1": "L", "L": "L", "RGB": "RGB"}  # Pillow's modes: what is read as grey, or as RGB


@checked
def from_dataset(dataset: Any) -> Samples:
    """Returns the samples of a dataset, of which each batch is read when it is asked for.

    A sample is a pair (x, y), as in PyTorch, or a dictionary, as in Hugging Face's datasets: its
    column `label`, `labels`, `target`, `fine_label` or `y` holds the labels, the others the inputs.
    Pillow's images become (C, H, W) float32 with values byte/255; all else is taken as it is.

    Args:
        dataset: has `len` and gives a sample by its number. What it draws at random is its own:
            give `Batches` a transform instead for an augmentation that is resumed.

    Raises:
        NewtritonError: it is no such dataset, or empty, or a sample is no such pair.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> dataset = torch.utils.data.TensorDataset(torch.zeros(9, 4), torch.arange(9))
        >>> batches = nt.Batches(*nt.from_dataset(dataset), batch_size=5)
        >>> [(tuple(x.shape), len(y)) for x, y in batches]
        [((5, 4), 5), ((4, 4), 4)]
    """
    items = _Items(dataset)
    x, y = items.take(torch.arange(1, device="cpu"))
    columns = {name: Lazy(_Column(items, name, part)) for name, part in named(x).items()}
    return Samples(rebuilt(x, columns), Lazy(_Column(items, None, y)))


class _Items:
    """The samples of a dataset by their numbers.

    Inputs and labels of a batch are asked for one after another: they are read once, together.

    Args:
        dataset: the dataset.
    """

    def __init__(self, dataset: Any) -> None:
        count = length_of("the samples", dataset)
        if count is None:
            raise NewtritonError(
                f"{type(dataset).__name__} has no length, so that its samples have no numbers: "
                "pass torch.utils.data.DataLoader(dataset, batch_size=…) to fit instead"
            )
        self.count = count
        if isinstance(dataset, Mapping) or not hasattr(dataset, "__getitem__"):
            raise NewtritonError(
                f"{type(dataset).__name__} gives no samples by their numbers: pass one part of it, "
                "such as dataset['train']"
            )
        if self.count == 0:
            raise NewtritonError(f"{type(dataset).__name__} is empty: give at least one sample")
        self.dataset = dataset
        self._numbers = list[int]()
        self._waiting = dict[str | None, Tensor]()  # columns of these samples not yet asked for

    def take(self, index: Any) -> tuple[Any, Tensor]:
        """Returns the inputs and the labels of the samples at a slice or a tensor of numbers."""
        numbers = self._at(index)
        pairs = [_pair(n, item) for n, item in zip(numbers, self._read(numbers), strict=True)]
        return _stacked(numbers, [x for x, _ in pairs]), _stacked(numbers, [y for _, y in pairs])

    def column(self, name: str | None, index: Any) -> Tensor:
        """Returns one input, or the labels without a name, of the samples at an index."""
        numbers = self._at(index)
        if numbers != self._numbers or name not in self._waiting:
            x, y = self.take(index)
            self._numbers, self._waiting = numbers, {**named(x), None: y}
        return self._waiting.pop(name)

    def _at(self, index: Any) -> list[int]:
        """Returns the numbers that an index stands for."""
        return torch.arange(self.count, device="cpu")[index].tolist()

    def _read(self, numbers: list[int]) -> Sequence[Any]:
        """Returns samples by their numbers, at once where the dataset can."""
        if hasattr(self.dataset, "__getitems__"):
            return self.dataset.__getitems__(numbers)
        return [self.dataset[number] for number in numbers]


class _Column:
    """One input of a dataset, or its labels.

    Args:
        items: the samples.
        name: the input's name, None for the labels.
        first: the first sample of it, a batch of one.

    Attributes:
        shape: the number of samples and the shape of each.
    """

    def __init__(self, items: _Items, name: str | None, first: Tensor) -> None:
        self.items, self.name = items, name
        self.shape = (items.count, *first.shape[1:])

    def __getitem__(self, index: Any) -> Tensor:
        return self.items.column(self.name, index)


def _pair(number: int, item: Any) -> tuple[Any, Any]:
    """Returns the inputs and the label of a sample."""
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    if isinstance(item, Mapping):
        labels = [name for name in LABELS if name in item]
        inputs = {name: value for name, value in item.items() if name not in labels[:1]}
        if labels and inputs:
            return (inputs if len(inputs) > 1 else next(iter(inputs.values()))), item[labels[0]]
        raise NewtritonError(
            f"sample {number} has the columns {', '.join(map(str, item))}: give one of "
            f"{', '.join(LABELS)} for the labels, and others for the inputs"
        )
    raise NewtritonError(
        f"sample {number} is a {type(item).__name__}: a dataset gives pairs (x, y) or dictionaries"
    )


def _stacked(numbers: list[int], values: Sequence[Any]) -> Any:
    """Returns the values of samples as one tensor, or one for each of several inputs."""
    trees = [_tensors(value) for value in values]
    shapes = [{name: part.shape for name, part in named(tree).items()} for tree in trees]
    for number, shape in zip(numbers, shapes, strict=True):
        if shape != shapes[0]:
            raise NewtritonError(
                f"sample {number} has {_shown(shape)} where sample {numbers[0]} has "
                f"{_shown(shapes[0])}: give all samples one shape"
            )
    return mapped(lambda *parts: torch.stack(parts), trees[0], *trees[1:])


def _shown(shapes: dict[str, torch.Size]) -> str:
    """Returns shapes as a message has them."""
    return ", ".join(str(tuple(shape)) for shape in shapes.values())


def _tensors(value: Any) -> Any:
    """Returns the inputs or the label of a sample as tensors."""
    if isinstance(value, Mapping):
        return {name: _tensor(part) for name, part in value.items()}
    return mapped(_tensor, value) if is_several(value) else _tensor(value)


def _tensor(value: Any) -> Tensor:
    """Returns an input or a label as a tensor."""
    if hasattr(value, "getbands"):  # one of Pillow's images, which need not be installed
        if value.mode not in COLOURS:
            raise NewtritonError(
                f"an image has Pillow's mode {value.mode!r}: convert it to 'L' or 'RGB'"
            )
        pixels = np.array(value.convert(COLOURS[value.mode]))
        return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1) / 255
    try:
        return value if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu")
    except (RuntimeError, TypeError, ValueError) as error:
        raise NewtritonError(
            f"a sample holds a {type(value).__name__}, which is no tensor: {error}"
        ) from error

"""Data in memory: a labelled set, its stratified split, batches of it, and the bundled digits.

Shapes: x is (N, *features), y is (N,) of int64 classes or (N, K) of targets.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from ...compiler.graph.errors import NewtritonError


class Samples(NamedTuple):
    """Inputs and their labels; unpacks as `x, y`."""

    x: torch.Tensor
    y: torch.Tensor


class Batches:
    """Batches (x, y) of tensors in memory, in a new order each epoch.

    The order depends on the seed and the number of the epoch alone, so runs repeat, and
    `load_state_dict` continues where another run stopped.

    Example:
        >>> train, test = digits()
        >>> len(Batches(*train, batch_size=100))
        15
    """

    def __init__(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if len(x) != len(y):
            raise NewtritonError(f"{len(x)} inputs but {len(y)} labels: pass one label per input")
        if batch_size < 1:
            raise NewtritonError(f"batch_size is {batch_size}: it must be at least 1")
        if len(x) == 0:
            raise NewtritonError("there are no samples: pass tensors with at least one row")
        if drop_last and len(x) < batch_size:
            raise NewtritonError(
                f"batch_size {batch_size} is more than the {len(x)} samples, and drop_last leaves "
                "no batch: use a smaller batch_size or drop_last=False"
            )
        if seed < 0:
            raise NewtritonError(f"seed is {seed}: it must not be negative")
        self.x, self.y = x, y
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = 0

    def __len__(self) -> int:
        whole, rest = divmod(len(self.x), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Samples]:
        order = self._order(self.epoch)
        self.epoch += 1
        return (self._take(order, start) for start in range(0, self._stop, self.batch_size))

    def state_dict(self) -> dict[str, int]:
        """The number of epochs begun: with the arguments, all that the coming orders depend on."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continues with the orders that follow the saved state."""
        self.epoch = state["epoch"]

    @property
    def _stop(self) -> int:
        return len(self) * self.batch_size

    def _order(self, epoch: int) -> torch.Tensor | None:
        if not self.shuffle:
            return None
        return torch.from_numpy(np.random.default_rng((self.seed, epoch)).permutation(len(self.x)))

    def _take(self, order: torch.Tensor | None, start: int) -> Samples:
        rows = slice(start, start + self.batch_size)
        if order is None:
            return Samples(self.x[rows], self.y[rows])
        return Samples(self.x[order[rows].to(self.x.device)], self.y[order[rows].to(self.y.device)])


def split(samples: Samples, validation: float, seed: int = 0) -> tuple[Samples, Samples]:
    """Splits labelled samples so that every class has the same share in both parts.

    Args:
        samples: x (N, *features) and int64 classes y (N,).
        validation: the share of the second part, between 0 and 1.
        seed: of the draw; the same seed gives the same split.

    Returns:
        (training, validation)
    """
    from sklearn.model_selection import train_test_split  # noqa: PLC0415 (slow to import)

    if not 0 < validation < 1:
        raise NewtritonError(f"validation is {validation}: it is a share between 0 and 1")
    labels = samples.y.cpu().numpy()
    try:
        kept, held_out = train_test_split(
            np.arange(len(labels)), test_size=validation, random_state=seed, stratify=labels
        )
    except ValueError as error:  # a class with too few samples for a share in both parts
        raise NewtritonError(f"cannot hold out {validation} of {len(labels)}: {error}") from error
    return _rows(samples, np.asarray(kept)), _rows(samples, np.asarray(held_out))


def digits(validation: float = 0.2, seed: int = 0) -> tuple[Samples, Samples]:
    """The 1,797 handwritten digits that come with scikit-learn, split by `split`.

    Both parts are shifted and scaled by the mean and standard deviation of the training pixels.

    Returns:
        (training, validation): x (N, 1, 8, 8) float32, y (N,) int64.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 (slow to import)

    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images).float().reshape(-1, 1, 8, 8)
    training, held_out = split(Samples(x, torch.from_numpy(labels).long()), validation, seed)
    deviation, mean = torch.std_mean(training.x)
    return (
        Samples((training.x - mean) / deviation, training.y),
        Samples((held_out.x - mean) / deviation, held_out.y),
    )


def _rows(samples: Samples, indices: np.ndarray) -> Samples:
    rows = torch.from_numpy(indices)
    return Samples(samples.x[rows], samples.y[rows])

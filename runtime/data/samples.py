"""Data in memory: a labelled set, its stratified split, batches of it, and the bundled digits.

Shapes: x is (N, *features), or a tuple or a dictionary of such tensors; y is (N,) of int64 classes
or (N, K) of targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from ...compiler.graph.calls import Checked, checked
from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.options import (
    check_callable,
    check_count,
    check_flag,
    check_mapping,
    check_number,
    check_seed,
)
from ...compiler.graph.tensors import check_tensor
from ...compiler.language.trees import Tree, mapped, named, rows
from ..parallel.data_parallel import DataParallel
from ..parallel.share import own_part
from .lazy import Lazy

WITHIN = {"batch", "generator"}  # what a state has in the middle of an epoch


class Samples(NamedTuple):
    """Inputs and their labels, a pair that unpacks as `x, y`.

    Attributes:
        x: the inputs (N, *features), or a tuple or a dictionary of them.
        y: the labels, int64 classes (N,) or targets (N, K).

    Both are tensors, or lazy: read batch by batch.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> x, y = nt.Samples(torch.zeros(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64))
        >>> len(x) == len(y)
        True
    """

    x: Any
    y: Any


class Place(NamedTuple):
    """Where a pass through samples is.

    Attributes:
        given: how many batches it has given.
        generator: what the transform of the coming ones draws from.
        ends: where each batch of the pass ends.
    """

    given: int
    generator: torch.Generator
    ends: list[int]


class Batches(Checked):
    """Batches (x, y) of samples in memory or read lazily, in a new order each epoch.

    The order depends on the seed and the number of the epoch alone, so that training repeats, and
    `load_state_dict` continues where another run stopped.

    Args:
        x: the inputs (N, *features), or a tuple or a dictionary of them.
        y: the labels, one per sample.
        batch_size: the number of samples in a batch.
        shuffle: whether each epoch has a new order.
        seed: the seed of the orders.
        drop_last: whether a last batch that is smaller than the others is left out.
        transform: called with the inputs of each batch and a generator, returns those to train on;
            that of lazy inputs unless given. The generator depends on the seed and the epoch.
        parallel: the ranks among which each batch is divided, of `batch_size` samples on all of
            them together: each gets its part, `nt.DataParallel`'s; None for one process. A
            transform is called with the whole batch, so that no sample depends on how it is
            divided.

    Raises:
        NewtritonError: there are no samples or not as many labels, no batch would be left, or
            `batch_size` or `seed` is none that there can be.

    Examples:
        >>> import newtriton as nt
        >>> train, test = nt.digits()
        >>> batches = nt.Batches(*train, batch_size=500)
        >>> [tuple(x.shape) for x, y in batches]
        [(500, 1, 8, 8), (500, 1, 8, 8), (437, 1, 8, 8)]
    """

    def __init__(
        self,
        x: Tree,
        y: torch.Tensor | Lazy,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        transform: Callable[[Any, torch.Generator], Any] | None = None,
        parallel: DataParallel | None = None,
    ) -> None:
        check_samples(x, y)
        batch_size = check_count("batch_size", batch_size)
        if check_flag("drop_last", drop_last) and len(y) < batch_size:
            raise NewtritonError(
                f"batch_size {batch_size} is more than the {len(y)} samples, and drop_last leaves "
                "no batch: use a smaller batch_size or drop_last=False"
            )
        self.x, self.y = x, y
        self.batch_size = batch_size
        self.shuffle = check_flag("shuffle", shuffle)
        self.seed = check_seed(seed)
        self.drop_last = drop_last
        given = getattr(x, "transform", None) if transform is None else transform
        self.transform = None if given is None else check_callable("transform", given)
        if parallel is not None and not isinstance(parallel, DataParallel):
            sentence = f"parallel is {quoted(parallel)}: give e.g. newtriton.DataParallel()"
            raise NewtritonError(sentence)
        self.parallel = parallel
        self.epoch = 0
        self._place: Place | None = None  # where the pass under way is
        self._goes_on = False  # whether the next pass is the rest of that one

    def __len__(self) -> int:
        whole, rest = divmod(len(self.y), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Samples]:
        place, self._goes_on = self._place if self._goes_on else None, False
        if place is None:
            place = Place(0, self._generator(self.epoch), self._ends())
            self.epoch += 1
        return self._batches(self._order(self.epoch - 1), place)

    def _batches(self, order: torch.Tensor | None, place: Place) -> Iterator[Samples]:
        """Yields the batches of a pass from a place on."""
        given, generator, ends = place
        starts = [0, *ends]
        for batch in range(given, len(ends)):
            samples = self._take(order, slice(starts[batch], ends[batch]), generator)
            self._gave(place._replace(given=batch + 1))
            yield samples

    def _gave(self, place: Place) -> None:
        """Keeps where a pass is that has just given a batch."""
        self._place = place if place.given < len(place.ends) else None
        self._goes_on = False

    def state_dict(self) -> dict[str, Any]:
        """Returns the number of epochs begun and, in the middle of one, where that is.

        With the constructor's arguments that is all that the coming batches depend on.
        """
        if self._place is None:
            return {"epoch": self.epoch}
        place = {"batch": self._place.given, "generator": self._place.generator.get_state()}
        return {"epoch": self.epoch, **place}

    def coming(self) -> dict[str, Any]:
        """Returns the state with which another one's next pass is what the next one is here.

        It is that of a new epoch, even where a pass has been left, or goes on.
        """
        state = self.state_dict()
        return state if self._goes_on else {n: v for n, v in state.items() if n not in WITHIN}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where the saved state was, with the rest of an epoch or a new one.

        Raises:
            NewtritonError: the state is of other batches; nothing has changed.
        """
        state = check_mapping("state", state)
        epoch, place = check_count("load_state_dict: epoch", state.get("epoch"), 0), None
        if "batch" in state:
            ends = self._ends_of(state)
            given = check_count("load_state_dict: batch", state["batch"])
            if given >= len(ends):
                raise NewtritonError(
                    f"load_state_dict: {given} batches of an epoch have been given, which has "
                    f"{len(ends)} here: load the state into batches of the same data and size"
                )
            place = Place(given, _generator_of(state), ends)
        self.epoch, self._place, self._goes_on = epoch, place, place is not None

    def _ends(self) -> list[int]:
        """Returns where each batch of the coming epoch ends."""
        whole = range(self.batch_size, len(self) * self.batch_size + 1, self.batch_size)
        return [min(end, len(self.y)) for end in whole]

    def _ends_of(self, state: Mapping[str, Any]) -> list[int]:
        """Returns the same of the epoch in the middle of which a state was saved."""
        return self._ends()

    def _order(self, epoch: int) -> torch.Tensor | None:
        """Returns the order of the samples in an epoch, None for the given one."""
        if not self.shuffle:
            return None
        return torch.from_numpy(np.random.default_rng((self.seed, epoch)).permutation(len(self.y)))

    def _generator(self, epoch: int) -> torch.Generator:
        """Returns what the transform of an epoch draws from."""
        (seed,) = np.random.default_rng((self.seed, epoch, 1)).integers(2**63, size=1)
        return torch.Generator("cpu").manual_seed(int(seed))

    def _take(
        self, order: torch.Tensor | None, taken: slice, generator: torch.Generator
    ) -> Samples:
        """Returns the batch of the samples there in the order."""
        part = taken if self.parallel is None else own_part(self.parallel.ranks, taken)
        own = part if order is None else order[part]
        if self.transform is None:
            return Samples(rows(self.x, own), rows(self.y, own))
        x = self.transform(rows(self.x, taken if order is None else order[taken]), generator)
        if part != taken:
            x = rows(x, slice(part.start - taken.start, part.stop - taken.start))
        return Samples(x, rows(self.y, own))


def check_samples(x: Any, y: Any) -> None:
    """Raises an error where inputs and labels are no samples that can be taken by their numbers."""
    parts = {**{f"inputs {quoted(n)}": v for n, v in named(x).items()}, "labels": y}
    for what, values in parts.items():
        if isinstance(values, Lazy):
            continue
        check_tensor(what, values)
        if not values.dim():
            raise NewtritonError(f"{what} are {quoted(values)}: give one row for each sample")
    for values in named(x).values():
        if len(values) != len(y):
            raise NewtritonError(
                f"{len(values)} inputs but {len(y)} labels: pass one label per input"
            )
    if len(y) == 0:
        raise NewtritonError("there are no samples: pass tensors with at least one row")


def _generator_of(state: Mapping[str, Any]) -> torch.Generator:
    """Returns the generator whose state has been saved.

    Raises:
        NewtritonError: it is none.
    """
    generator, saved = torch.Generator("cpu"), state.get("generator")
    if not isinstance(saved, torch.Tensor) or saved.shape != generator.get_state().shape:
        raise NewtritonError("load_state_dict: generator is no state of a generator: it is damaged")
    generator.set_state(saved.cpu())
    return generator


@checked
def split(samples: Samples, validation: float, seed: int = 0) -> tuple[Samples, Samples]:
    """Splits samples at random; every class, where labels are classes, has its share in both parts.

    Args:
        samples: inputs x and labels y; int64 ones of shape (N,) are classes.
        validation: the share of the second part, between 0 and 1.
        seed: the seed of the draw; the same seed gives the same split.

    Returns:
        the samples for training and those for validation.

    Raises:
        NewtritonError: `validation` is no such share, or a class is too small for it.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> samples = nt.Samples(torch.zeros(20, 3), torch.arange(20) % 2)
        >>> kept, held_out = nt.split(samples, validation=0.3)
        >>> len(kept.y), torch.bincount(held_out.y).tolist()
        (14, [3, 3])
    """
    from sklearn.model_selection import train_test_split  # noqa: PLC0415 (slow to import)

    check_number("validation", validation, above=0.0, below=1.0)
    if check_seed(seed) >= 1 << 32:
        raise NewtritonError(f"seed is {seed}: give an integer below 2³², as NumPy takes it here")
    if not isinstance(samples, tuple) or len(samples) != 2:
        raise NewtritonError(f"samples are {quoted(samples)}: give a pair Samples(x, y)")
    samples = Samples(*samples)
    check_samples(*samples)
    number = len(samples.y)
    labels = samples.y.in_memory() if isinstance(samples.y, Lazy) else samples.y
    classes = labels.cpu().numpy() if labels.dtype == torch.int64 and labels.dim() == 1 else None
    try:
        kept, held_out = train_test_split(
            np.arange(number), test_size=validation, random_state=int(seed), stratify=classes
        )
    except ValueError as error:  # too few samples, or of a class, for a share in both parts
        raise NewtritonError(f"cannot hold out {validation} of {number}: {error}") from error
    return _rows(samples, np.asarray(kept)), _rows(samples, np.asarray(held_out))


@checked
def digits(validation: float = 0.2, seed: int = 0) -> tuple[Samples, Samples]:
    """Returns the 1,797 handwritten digits that come with scikit-learn, split by `split`.

    Both parts are shifted and scaled by the mean and standard deviation of the training pixels.
    The images are those of the UCI test set of optical recognition (Alpaydin & Kaynak 1998).

    Args:
        validation: the share of the second part, between 0 and 1.
        seed: the seed of the split.

    Returns:
        the samples for training and those for validation: x (N, 1, 8, 8) float32, y (N,) int64.

    Raises:
        NewtritonError: `validation` is no such share, or leaves a class without samples.

    Examples:
        >>> import newtriton as nt
        >>> train, test = nt.digits()
        >>> tuple(train.x.shape), tuple(test.x.shape)
        ((1437, 1, 8, 8), (360, 1, 8, 8))
    """
    training, held_out = raw_digits(validation, seed)
    deviation, mean = torch.std_mean(training.x)
    return (
        Samples((training.x - mean) / deviation, training.y),
        Samples((held_out.x - mean) / deviation, held_out.y),
    )


def raw_digits(validation: float = 0.2, seed: int = 0) -> tuple[Samples, Samples]:
    """Returns the digits of `digits` with their published pixels, 0 … 16."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 (slow to import)

    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images).float().reshape(-1, 1, 8, 8)
    return split(Samples(x, torch.from_numpy(labels).long()), validation, seed)


def _rows(samples: Samples, indices: np.ndarray) -> Samples:
    """Returns the samples at the indices; what is lazy stays so."""
    index = torch.from_numpy(indices)

    def taken(values: Any) -> Any:
        return values.subset(index) if isinstance(values, Lazy) else rows(values, index)

    return Samples(mapped(taken, samples.x), taken(samples.y))

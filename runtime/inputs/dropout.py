"""The random numbers of dropout: a hash of seed, place, sample and element, equal on all devices.

A seed is drawn for each linearization in training. What evaluates the loss near it takes the same
numbers, so that all of a step sees the same network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from ...compiler.graph.ir import Node, batch_axis, concrete
from ...compiler.graph.program import Input
from ...compiler.values import RandomNumbers
from ..backend import Context

# The finaliser of MurmurHash3 for 64 bits (Appleby 2011), as signed numbers.
FIRST, SECOND = 0xFF51AFD7ED558CCD - (1 << 64), 0xC4CEB9FE1A85EC53 - (1 << 64)
BITS = 24  # of a number in [0, 1), which float32 holds exactly
CHUNK = 1 << 15  # numbers that stay in a CPU's cache while they are mixed


def _mixed(x: Tensor) -> Tensor:
    """Mixes the bits of int64 numbers in place: each bit depends on all."""
    for factor in (FIRST, SECOND):
        x.bitwise_xor_((x >> 33).bitwise_and_((1 << 31) - 1)).mul_(factor)
    return x.bitwise_xor_((x >> 33).bitwise_and_((1 << 31) - 1))


def _fractions(rows: Tensor, columns: Tensor) -> Tensor:
    """Returns BITS bits of a hash of each pair of mixed numbers."""
    x = (rows[:, None] ^ columns).mul_(FIRST)
    return x.bitwise_xor_(x >> 32).mul_(SECOND) >> (64 - BITS)


def uniform(
    place: tuple[int, ...], shape: tuple[int, ...], first: int | Tensor, like: Tensor
) -> Tensor:
    """Returns numbers in [0, 1) that follow from their place alone.

    Args:
        place: the seed, the number of the linearization, that of the place in the network.
        shape: N×(the shape of a sample).
        first: the number of the first sample, which others follow; or that of each.
        like: a tensor of the dtype and device that are wanted.
    """
    samples, elements = shape[0], math.prod(shape[1:])
    if isinstance(first, int):
        rows = torch.arange(first + 1, first + samples + 1, device=like.device)
    else:
        rows = first.to(like.device) + 1
    for number in place:
        rows = _mixed(_mixed(rows).add_(number % (1 << 62)))
    columns = _mixed(torch.arange(1, elements + 1, device=like.device))
    found = like.new_empty(samples, elements)
    size = max(1, CHUNK // elements) if like.device.type == "cpu" else samples
    for target, part in zip(found.split(size), rows.split(size), strict=True):
        target.copy_(_fractions(part, columns))
    return found.add_(float(1 << (BITS - 1))).mul_(2.0**-BITS).view(shape)


class Drawn(NamedTuple):
    """Which random numbers the samples of a batch have.

    Attributes:
        seed: the seed of the model.
        number: the number of the linearization.
        first: how many samples come before those of the batch; or how many before each, int64.
    """

    seed: int
    number: int
    first: int | Tensor

    def behind(self, others: int) -> Drawn:
        """Returns those of samples in front of which others of the batch are, on other ranks.

        Where it is known of each sample how many come before it, others are among them.
        """
        if isinstance(self.first, int):
            return self._replace(first=self.first + others)
        return self if len(self.first) else self._replace(first=0)

    def at(self, start: int, count: int) -> Drawn:
        """Returns those of some samples of the batch that follow each other."""
        if isinstance(self.first, int):
            return self._replace(first=self.first + start)
        return self._replace(first=self.first[start : start + count])


class DropoutNumbers:
    """The random numbers of a network's dropout.

    Args:
        sites: the leaves of random numbers by the name of their place.
        seed: what the seeds of linearizations follow from, with their count.

    Attributes:
        sites: the leaves, as they were given.
        seed: the seed, as it was given.
        drawn: how many linearizations have had a seed of their own.
    """

    def __init__(self, sites: Mapping[str, Node], seed: int) -> None:
        self.sites, self.seed, self.drawn = sites, seed, 0
        self._first: int | Tensor = 0
        self._kept = False

    def draw(self) -> None:
        """Goes on to the seed of a new linearization, where anything drops out."""
        self.drawn += bool(self.sites) and not self._kept

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Takes seeds back that a `with` statement has gone on to, where it ends in an error."""
        before = self.drawn
        try:
            yield
        except BaseException:
            self.drawn = before
            raise

    @contextmanager
    def kept(self, first: int | Tensor = 0) -> Iterator[None]:
        """Keeps the seed inside a `with` statement, whatever is linearized there.

        Args:
            first: how many samples of the same step come before those of a batch; or how many
                before each of them, int64.
        """
        before = self._first, self._kept
        self._first, self._kept = first, True
        try:
            yield
        finally:
            self._first, self._kept = before

    @property
    def now(self) -> Drawn:
        """Which numbers a batch has now."""
        return Drawn(self.seed, self.drawn, self._first)

    def __call__(self, context: Context, drawn: Drawn | None = None) -> dict[Input, Tensor]:
        """Returns the numbers of all places for a batch: those of now unless others are given."""
        seed, number, start = self.now if drawn is None else drawn
        like, found = context.empty(()), dict[Input, Tensor]()
        for site, (name, node) in enumerate(self.sites.items()):
            shape, shared = concrete(node.shape, context.batch), batch_axis(node.shape) is None
            rows, first = ((1, *shape), 0) if shared else (shape, start)
            numbers = uniform((seed, number, site), rows, first, like)
            found[RandomNumbers(name)] = numbers.view(shape)
        return found

    def state_dict(self) -> dict[str, int]:
        """Returns what the coming seeds follow from."""
        return {"seed": self.seed, "drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restores what `state_dict` gave."""
        self.seed, self.drawn = state["seed"], state["drawn"]

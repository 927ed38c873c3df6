"""Passes through data in one step, which all have to see the same batches."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ...compiler.language.trees import Tree, named

Batch = tuple[Tree, Tensor]
Mark = tuple[str, ...]  # sums as text, in which NaN equals NaN


class Passes:
    """Data that give the same batches in every pass, whatever they draw.

    Before each pass but the first, what an order or an augmentation may be drawn from is set back
    to where the first pass found it: the state of data that have one (`Batches`), the generators of
    a DataLoader and of its sampler, and the global ones of PyTorch, NumPy and Python. Counts and
    sums of what comes are compared, so that data that draw from elsewhere are told.

    Args:
        data: the data; a list or tuple of batches is taken as it is.

    Raises:
        NewtritonError: a later pass gives other samples than the first one.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> from newtriton.runtime.optimizers.passes import Passes
        >>> data = Passes(nt.Batches(torch.eye(3), torch.arange(3), batch_size=1))
        >>> [y.item() for _, y in data] == [y.item() for _, y in data]
        True
    """

    def __init__(self, data: Iterable[Batch]) -> None:
        self.data = data
        self._start: list[Any] | None = None
        self._marks: list[Mark] | None = None

    def __iter__(self) -> Iterator[Batch]:
        if isinstance(self.data, (list, tuple)):
            yield from self.data
            return
        if self._start is None:
            self._start = [source.get() for source in _sources(self.data)]
        else:
            for source, state in zip(_sources(self.data), self._start, strict=True):
                source.set(state)
        marks: list[Mark] = []
        for x, y in self.data:
            sums = [float(part.sum(dtype=torch.float64)) for part in named(x).values()]
            marks.append(tuple(number.hex() for number in (float(len(y)), *sums, _weighted(y))))
            if self._marks is not None:
                self._check(marks[-1:], self._marks[len(marks) - 1 : len(marks)])
            yield x, y
        self._check(marks, marks if self._marks is None else self._marks)
        self._marks = marks

    def _check(self, marks: list[Mark], expected: list[Mark]) -> None:
        """Compares what has come in a pass with what came in the first one.

        Raises:
            NewtritonError: they differ.
        """
        if marks != expected:
            raise NewtritonError(
                f"the data ({type(self.data).__name__}) gave other samples in another pass of the "
                "same step: give data whose order and augmentation depend on the generators of "
                "PyTorch, NumPy or Python alone, without persistent workers, or a list of batches"
            )


def _weighted(y: Tensor) -> float:
    """Returns a sum over labels that tells their order."""
    weights = torch.arange(1, len(y) + 1, dtype=torch.float64, device=y.device)
    return float((y.double().reshape(len(y), -1).sum(1) * weights).sum())


class _Source:
    """Something that data may draw from.

    Args:
        get: returns its state.
        set: restores a state.
    """

    def __init__(self, get: Any, set: Any) -> None:
        self.get, self.set = get, set


@contextmanager
def undisturbed(data: Any) -> Iterator[None]:
    """Gives data their own state back after a `with` statement, whatever passes it makes."""
    states = [(source, source.get()) for source in _own_sources(data)]
    try:
        yield
    finally:
        for source, state in states:
            source.set(state)


def _sources(data: Any) -> Iterator[_Source]:
    """Yields what the data may draw their order and their augmentation from."""
    yield _Source(torch.get_rng_state, torch.set_rng_state)
    yield _Source(random.getstate, random.setstate)
    yield _Source(np.random.get_state, np.random.set_state)
    yield from _own_sources(data)


def _own_sources(data: Any) -> Iterator[_Source]:
    """Yields those of them that belong to the data."""
    if hasattr(data, "state_dict") and hasattr(data, "load_state_dict"):
        yield _Source(data.state_dict, data.load_state_dict)
    holders = [data, getattr(data, "sampler", None)]
    for generator in dict.fromkeys(getattr(holder, "generator", None) for holder in holders):
        if isinstance(generator, torch.Generator):
            yield _Source(generator.get_state, generator.set_state)

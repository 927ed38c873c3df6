"""Passes through data in one step, which all have to see the same batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.tensors import check_tensor
from ...compiler.language.trees import Tree, named
from ..data.sources import Mark, length_of, mark_of, set_back, sources

Batch = tuple[Tree, Tensor]


def pair(batch: Any) -> Batch:
    """Returns a batch, inputs and labels.

    Raises:
        NewtritonError: it is no such pair.
    """
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        x, y = batch
        parts = [check_tensor("inputs", part) for part in named(x).values()]
        if all(part.dim() for part in (*parts, check_tensor("labels", y))):
            return x, y
    raise NewtritonError(f"a batch is {quoted(batch)}: give pairs of tensors (x, y)")


def check_batches(data: object) -> Iterable[Batch]:
    """Returns data that have batches; raises an error where they are something else."""
    if isinstance(data, (Mapping, Tensor, str, bytes)) or not isinstance(data, Iterable):
        raise NewtritonError(
            f"data are {quoted(data)}: give an iterable of batches (x, y), such as Batches, a "
            "DataLoader or a list"
        )
    length_of("data", data)
    return data


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
        self._start: dict[str, Any] | None = None
        self._marks: list[Mark] | None = None

    def __iter__(self) -> Iterator[Batch]:
        if isinstance(self.data, (list, tuple)):
            yield from map(pair, self.data)
            return
        if self._start is None:
            self._start = {name: source.get() for name, source in sources(self.data).items()}
        else:
            set_back(self.data, self._start)
        marks: list[Mark] = []
        for x, y in map(pair, self.data):
            marks.append(mark_of(x, y))
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


@contextmanager
def undisturbed(data: Any) -> Iterator[None]:
    """Gives what data may draw from its state back after a `with` statement."""
    states = [(source, source.get()) for source in sources(data).values()]
    try:
        yield
    finally:
        for source, state in states:
            source.set(state)

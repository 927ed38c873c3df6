"""Inputs that are made ready when they are asked for, so that they need not fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from ...compiler.graph.calls import Checked
from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.options import check_callable, check_kind, check_members
from ...compiler.graph.tensors import check_tensor

CHUNK = 1000  # samples that are in memory at once where all are passed through

Step = Callable[[Tensor], Tensor]
Transform = Callable[[Any, torch.Generator], Any]


class Rows(Protocol):
    """What inputs are read from: a tensor in memory, or images in files."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of samples and the shape of each."""
        ...

    def __getitem__(self, index: Any, /) -> Tensor:
        """Returns the samples at a slice or a tensor of numbers."""
        ...


class Lazy(Checked):
    """Inputs (N, *features) of which every batch is read and preprocessed when it is asked for.

    They stand where a tensor of inputs does, in `Samples`, `Batches`, `GrowingBatches` and `split`.

    Args:
        rows: what the samples are read from.
        steps: the preprocessing, applied to a batch in this order.
        transform: what `Batches` applies to each batch in training, such as `CropFlip`.

    Attributes:
        shape: the number of samples and the shape of each after preprocessing.
        dtype: the dtype of a batch.
        device: where a batch is.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> x = nt.Lazy(torch.arange(12).reshape(4, 3), [lambda rows: rows / 2])
        >>> x.shape, x[1:3].tolist()
        (torch.Size([4, 3]), [[1.5, 2.0, 2.5], [3.0, 3.5, 4.0]])
    """

    def __init__(
        self,
        rows: Rows,
        steps: tuple[Step, ...] | list[Step] = (),
        transform: Transform | None = None,
    ) -> None:
        self.rows, self.transform = rows, transform
        self.steps = tuple(check_kind("steps", steps, (tuple, list), "a list of functions"))
        for function in (*self.steps, *([] if transform is None else [transform])):
            check_callable("a step or the transform", function)
        way = "a tensor of samples, or what has `shape` and gives tensors for slices"
        check_members("rows", rows, ("__getitem__", "shape"), way)
        if not rows.shape:
            raise NewtritonError(f"rows is {quoted(rows)}: give {way}")
        if isinstance(rows, Tensor):
            check_tensor("rows", rows)
        first = check_tensor("a batch of lazy inputs", self[:1])
        if first.is_meta:
            raise NewtritonError(f"rows are {quoted(first)}, on meta: give {way}")
        self.shape = torch.Size((rows.shape[0], *first.shape[1:]))
        self.dtype, self.device = first.dtype, first.device

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        if isinstance(index, int):
            return self[torch.tensor([range(len(self))[index]], device="cpu")][0]
        x = self.rows[index]
        for step in self.steps:
            x = step(x)
        return x

    def __iter__(self) -> Iterator[Tensor]:
        raise NewtritonError(
            "lazy inputs are no batch: pass Batches(*samples, batch_size=…), or x.in_memory()"
        )

    def chunks(self) -> Iterator[Tensor]:
        """Yields all samples in their order, a thousand at a time."""
        for start in range(0, self.rows.shape[0], CHUNK):
            yield self[start : start + CHUNK]

    def subset(self, index: Tensor) -> Lazy:
        """Returns the samples at an index, as lazy as these.

        Args:
            index: their numbers, int64.

        Raises:
            NewtritonError: the index is something else, or one is of no sample.
        """
        check_tensor("the numbers of samples", index)
        if index.dtype != torch.int64 or index.dim() != 1 or index.is_meta:
            raise NewtritonError(f"index is {quoted(index)}: give the numbers of samples, int64")
        if len(index) == 0 or not -len(self) <= int(index.min()) <= int(index.max()) < len(self):
            raise NewtritonError(f"index has numbers of none of the {len(self)} samples, or none")
        return Lazy(Subset(self.rows, index), self.steps, self.transform)

    def in_memory(self) -> Tensor:
        """Returns all samples as a tensor."""
        x = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        for start, chunk in zip(range(0, len(x), CHUNK), self.chunks(), strict=True):
            x[start : start + CHUNK] = chunk
        return x


class Subset:
    """Some of the samples that something else holds.

    Args:
        rows: what holds them.
        index: their numbers.

    Attributes:
        shape: their number and the shape of each.
    """

    def __init__(self, rows: Rows, index: Tensor) -> None:
        self.rows, self.index = rows, index
        self.shape = (len(index), *rows.shape[1:])

    def __getitem__(self, index: Any) -> Tensor:
        return self.rows[self.index[index]]

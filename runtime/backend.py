"""What a backend is: it makes executors of graphs, and computes with flat vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..compiler.graph.ir import Graph, Node
from ..compiler.lowering.kernel import Schedule
from .vectors import Vectors


class Context(NamedTuple):
    """What a call knows besides its operands."""

    batch: int
    dtype: torch.dtype
    device: torch.device


class Planned(Protocol):
    """A graph as fused kernels."""

    @property
    def schedule(self) -> Schedule:
        """The kernels and their launches."""
        ...

    @property
    def source(self) -> str:
        """The generated module's text."""
        ...

    @property
    def made(self) -> Sequence[Node]:
        """Values that were made for contractions, and that are returned besides the results."""
        ...

    @property
    def scratch(self) -> int:
        """Bytes of the arena."""
        ...


class Executor(Protocol):
    """A graph that can be run at any batch size."""

    def __call__(
        self, context: Context, feed: Mapping[Node, Tensor], out: Mapping[str, Tensor] | None = None
    ) -> dict[Node, Tensor]:
        """Tensors of the outputs and of what is kept, by node.

        Args:
            context: batch size, dtype and device.
            feed: tensors of the leaves and given nodes.
            out: by name, contiguous memory that outputs are written to.
        """
        ...

    def plan(self, batch: int, given: Iterable[Node] = ()) -> Planned | None:
        """The fused kernels for a batch size; None where operators run one after another.

        Args:
            batch: the batch size.
            given: nodes that will be fed besides the graph's own.
        """
        ...


class Backend(Protocol):
    """Where graphs run."""

    @property
    def device(self) -> torch.device:
        """The device of all tensors."""
        ...

    @property
    def precision(self) -> str:
        """The precision of the operands of contractions."""
        ...

    @property
    def two_products(self) -> bool:
        """Whether a quadratic form takes two contractions a layer rather than three."""
        ...

    @property
    def vectors(self) -> Vectors:
        """Arithmetic on flat vectors."""
        ...

    def executor(self, graph: Graph, keep: Iterable[Node] = ()) -> Executor:
        """What runs a graph and returns, besides its outputs, the nodes to `keep`."""
        ...

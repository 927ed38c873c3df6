"""What a backend is: it makes executors of graphs, and computes with flat vectors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..compiler.graph.ir import Graph, Node
from ..compiler.lowering.kernel import Schedule
from ..kernels.memory import empty
from .footprint import Footprint
from .vectors import Vectors


def alone(x: Tensor) -> Tensor:
    """Returns the sum over ranks where there is one."""
    return x


class Context(NamedTuple):
    """What a call knows besides its operands.

    Attributes:
        batch: the batch size.
        dtype: the dtype of floating-point values.
        device: the device of all tensors.
        over_ranks: returns the sum of a tensor over all ranks that run the same program.
    """

    batch: int
    dtype: torch.dtype
    device: torch.device
    over_ranks: Callable[[Tensor], Tensor] = alone

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """Returns new memory of a shape."""
        return empty(shape, self.dtype, self.device)


class Planned(Protocol):
    """A graph as fused kernels."""

    @property
    def schedule(self) -> Schedule:
        """The kernels and their launches."""
        ...

    @property
    def source(self) -> str:
        """The text of the generated module."""
        ...

    @property
    def made(self) -> Sequence[Node]:
        """The values that were made for contractions, and are returned besides the results."""
        ...

    @property
    def refusals(self) -> Sequence[str]:
        """Why streams are computed in blocks on PyTorch's operators, those that are."""
        ...

    @property
    def scratch(self) -> int:
        """The bytes of the arena."""
        ...


class Executor(Protocol):
    """A graph that can be run at any batch size."""

    def __call__(
        self, context: Context, feed: Mapping[Node, Tensor], out: Mapping[str, Tensor] | None = None
    ) -> dict[Node, Tensor]:
        """Returns the tensors of the outputs and of what is kept, by node.

        Args:
            context: the batch size, dtype and device.
            feed: the tensors of the leaves and given nodes.
            out: by name, contiguous memory that outputs are written to.
        """
        ...

    def plan(self, batch: int, given: Iterable[Node] = ()) -> Planned | None:
        """Returns the fused kernels for a batch size; None where operators run one by one.

        Args:
            batch: the batch size.
            given: the nodes that will be fed besides the graph's own.
        """
        ...

    def footprint(self, context: Context, given: Collection[Node] = ()) -> Footprint:
        """Returns the bytes that a call takes, its results included; nothing is computed.

        Args:
            context: the batch size, dtype and device.
            given: the nodes that will be fed besides the graph's own.
        """
        ...


class Expected(NamedTuple):
    """A call that is expected.

    Attributes:
        executor: what will be called.
        given: the nodes that will be fed.
        on_tape: whether what calls before it make for contractions will be fed too.
        places: what lies like that which will be fed, as far as it is known.
        out: by name, what lies like the memory that outputs will be written to.
    """

    executor: Executor
    given: Collection[Node]
    on_tape: bool
    places: Mapping[Node, Tensor]
    out: Mapping[str, Tensor]


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
    def compiles(self) -> bool:
        """Whether kernels are compiled before they are launched."""
        ...

    def two_products(self, operations: float) -> bool:
        """Whether a quadratic form takes two contractions a layer rather than three.

        Args:
            operations: the floating-point operations of such a contraction.
        """
        ...

    @property
    def vectors(self) -> Vectors:
        """Arithmetic on flat vectors."""
        ...

    def executor(self, graph: Graph, keep: Iterable[Node] = ()) -> Executor:
        """Returns what runs a graph.

        Args:
            graph: what to compute.
            keep: nodes whose tensors are returned besides the outputs.
        """
        ...

    def compile_ahead(self, context: Context, calls: Sequence[Expected]) -> None:
        """Compiles together what will be called one after another."""
        ...

"""A graph at a batch size as fused kernels: the memory of a call, and the launches in it.

Results are written where the caller wants them, or to new memory. Everything else lies in an arena
that belongs to the plan, so that a call allocates nothing besides its results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ...compiler.graph.ir import Node
from ...compiler.lowering.code import Buffer
from ...compiler.lowering.kernel import Schedule
from ..backend import Context
from .compiling import Job, compile_once
from .launch import Launch
from .replay import Record, Replays
from .storage import Storage, dtype_of


class Plan:
    """A graph at a batch size, ready to be run; `pipeline.plan` makes it.

    Attributes:
        schedule: the kernels, and which of them are launched together.
        source: the text of the generated module.
        launches: what is launched, in order.
        storage: where every value lies.
        made: the values that were made for contractions and are returned.
    """

    def __init__(
        self,
        schedule: Schedule,
        source: str,
        launches: Sequence[Launch],
        storage: Storage,
        made: Sequence[Node],
        record: Record | None,
    ) -> None:
        self.schedule, self.source, self.launches = schedule, source, launches
        self.storage, self.made = storage, made
        self._memory: Tensor | None = None
        self._replays = Replays(record)

    @property
    def scratch(self) -> int:
        """The bytes of the arena."""
        return self.storage.arena.size

    def __call__(
        self,
        context: Context,
        feed: Mapping[Node, Tensor],
        out: Mapping[Node, Tensor] | None = None,
    ) -> Callable[[Buffer], Tensor]:
        """Runs all launches, or replays them.

        Args:
            context: batch size, dtype and device.
            feed: the tensors of given values.
            out: the memory that results are written to; the others get new memory.

        Returns:
            the tensor of a buffer: those of results belong to the caller.
        """
        tensor = self._tensors(context, feed, out or {})

        def addresses() -> tuple[int, ...]:
            return tuple(tensor(buffer).data_ptr() for buffer in self.storage.addressed)

        self._replays(addresses, lambda: self._launch(context, tensor))
        return tensor

    def jobs(self, name: str) -> Iterator[Job]:
        """Yields every kernel as it will be launched, to compile ahead of time."""
        for i, launch in enumerate(self.launches):
            yield from launch.jobs(f"{name} {i}")

    def _launch(self, context: Context, tensor: Callable[[Buffer], Tensor]) -> None:
        """Runs all launches."""
        for launch in self.launches:
            launch.run(context, tensor)

    def _tensors(
        self, context: Context, feed: Mapping[Node, Tensor], out: Mapping[Node, Tensor]
    ) -> Callable[[Buffer], Tensor]:
        """Returns what gives the memory of every buffer in one call."""
        storage, memory = self.storage, self._arena(context.device)
        found = dict[Buffer, Tensor]()

        def place(buffer: Buffer) -> Tensor:
            if isinstance(buffer, Node):
                if buffer in feed:
                    return feed[buffer].contiguous()
                if buffer in storage.given:  # an image with its channels last
                    return feed[buffer.inputs[0]].permute(buffer["order"]).contiguous()
                if buffer in out:
                    return out[buffer]
            dtype, size = dtype_of(buffer), storage.size(buffer)
            if buffer in storage.results:
                return torch.empty(size, dtype=dtype, device=context.device)
            start = storage.offset(buffer)
            return memory[start : start + size * dtype.itemsize].view(dtype)

        def tensor(buffer: Buffer) -> Tensor:
            if buffer not in found:
                found[buffer] = place(buffer)
            return found[buffer]

        return tensor

    def _arena(self, device: torch.device) -> Tensor:
        """Returns the memory of the arena; before the first call on a GPU, kernels are compiled."""
        if self._memory is None:
            if device.type == "cuda":
                compile_once(self.jobs(""), self.schedule.graph.name)
            self._memory = torch.empty(self.scratch, dtype=torch.uint8, device=device)
        return self._memory

"""A launch alone: it reads values that are given, and writes to memory of its own.

So what it writes tells of itself, and of no launch before it. Sums that one launch leaves for the
next in parts are the exception: they are handed on as they were written.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.ir import Node
from ...compiler.lowering.code import Buffer, Part
from ...compiler.lowering.kernel import Kernel, Schedule
from ..backend import Context
from ..fused.call import Memory, aligned
from ..fused.chips import on_device
from ..fused.launch import Launch
from ..fused.storage import Storage, dtype_of


class Isolated:
    """Runs the launches of a plan one by one.

    Args:
        storage: where the plan has its values: those that share memory there share it here too.
        context: the batch size, dtype and device of the calls.
        values: what has been computed so far, as it is stored; launches read from here.
    """

    def __init__(self, storage: Storage, context: Context, values: Mapping[Node, Tensor]) -> None:
        self.storage, self.context, self.values = storage, context, values
        self.parts: dict[Part, Tensor] = {}

    def run(self, launch: Launch) -> dict[Node, Tensor]:
        """Runs a launch until it has finished, and returns what it has written.

        Raises:
            NewtritonError: it reads a value that no launch before it has computed.
        """
        written = {n for kernel in launch.kernels for n in kernel.writes}
        self.parts |= {part: self._poisoned(part) for part in launch.use.scratch}

        def place(buffer: Buffer) -> Tensor:
            return self._poisoned(buffer) if buffer in written else self._read(buffer)

        memory = Memory(place)
        overwritten = {self._block(n): n for n in written}
        for x in launch.use.buffers:
            y = overwritten.get(self._block(x))
            if y is not None and y is not x:
                memory.put(x, self._read(x).clone().view(-1))
                memory.put(y, memory(x).view(dtype_of(y)))
        with on_device(self.context.device):
            for call in launch.calls:
                call.load(self.context.device)
            launch.run(self.context, memory)
            if self.context.device.type == "cuda":
                torch.cuda.synchronize()  # so that an error is this launch's
        self.parts |= {part: memory(part) for part in launch.use.elsewhere}
        return {n: memory(n) for n in written}

    def _block(self, buffer: Buffer) -> Buffer:
        """Returns the value whose memory a value is written over, or itself."""
        return self.storage.block.get(buffer, buffer)

    def _read(self, buffer: Buffer) -> Tensor:
        known = self.parts if isinstance(buffer, Part) else self.values
        if buffer not in known:
            raise NewtritonError(f"it reads {buffer!r} before that is computed")
        return aligned(known[buffer].contiguous())  # type: ignore[index]

    def _poisoned(self, buffer: Buffer) -> Tensor:
        """Returns memory full of NaN, which is no index either."""
        dtype, size = dtype_of(buffer), self.storage.size(buffer)
        memory = torch.empty(size * dtype.itemsize, dtype=torch.uint8, device=self.context.device)
        return memory.fill_(255).view(dtype)


def computed_by(kernel: Kernel, schedule: Schedule) -> set[Node]:
    """Returns what a kernel computes, and the kernels whose parts of sums it adds."""
    stack, nodes = [kernel], set[Node]()
    while stack:
        each = stack.pop()
        nodes.update(each.nodes)
        stack += each.adds
        stack += [schedule.part_of[n] for n in each.body if n in schedule.part_of]
    return nodes

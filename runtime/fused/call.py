"""A call of one Triton kernel: its arguments as data, and how it is launched.

On a GPU a kernel is loaded once, as it was compiled ahead, and launched with addresses alone.
Triton's own path binds and inspects every argument anew: for kernels of many pointers that takes
longer than they run. In the interpreter a kernel takes tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...compiler.lowering.code import Buffer
from ..caching.kernels import verified
from .compiling import UNALIGNED, Job, interpreted
from .storage import pointer_type

# A tensor is a table that belongs to the kernel; numbers are not compiled into it.
Argument = Buffer | tuple[Buffer, ...] | Tensor | int | float


WIDTH = 16  # bytes that are loaded at once, from addresses that are multiples of it


class Memory:
    """Where every buffer lies in one call of a plan.

    Args:
        place: gives the flat tensor of a buffer, which is asked for once.
    """

    def __init__(self, place: Callable[[Buffer], Tensor]) -> None:
        self._place, self._found = place, dict[Buffer, Tensor]()

    def __call__(self, buffer: Buffer) -> Tensor:
        """Returns a buffer as a flat tensor."""
        if buffer not in self._found:
            self._found[buffer] = self._place(buffer)
        return self._found[buffer]

    def address(self, buffer: Buffer) -> int:
        """Returns the address of a buffer."""
        return self(buffer).data_ptr()

    def put(self, buffer: Buffer, tensor: Tensor) -> None:
        """Says where a buffer lies that a library has made."""
        self._found[buffer] = tensor


def aligned(tensor: Tensor) -> Tensor:
    """Returns the tensor, or a copy of it where its address is no multiple of 16 bytes."""
    return tensor.clone() if tensor.data_ptr() % WIDTH else tensor


class Call:
    """A Triton kernel with its arguments.

    Attributes:
        job: what it is compiled from.
        instances: the number of its program instances.
        arguments: what it is launched with, by name.
    """

    def __init__(self, job: Job, instances: int, arguments: Mapping[str, Argument]) -> None:
        self.job, self.instances, self.arguments = job, instances, arguments
        self._given: list[Argument] = []
        self._launch: Callable[..., object] | None = None

    def compiled_from(self, name: str, unaligned: Collection[Buffer] = ()) -> Job:
        """Returns what is compiled.

        Args:
            name: the beginning of its name.
            unaligned: the buffers whose addresses may be no multiples of 16 bytes.
        """
        types = types_of(self.arguments, unaligned)
        return replace(self.job, name=f"{name} {self.job.name}", types=types)

    def load(self, device: torch.device, unaligned: Collection[Buffer] = ()) -> None:
        """Gets ready to be launched: loads the kernel on a GPU, and moves tables there."""
        given = self.arguments.values()
        self._given = [a.to(device) if isinstance(a, Tensor) else a for a in given]
        function, constants = self.job.function, self.job.constants
        if interpreted():
            self._launch = partial(function[(self.instances,)], **constants)
            return
        # A kernel takes constants too, behind everything else, and makes nothing of them.
        ignored = [constants[name] for name in function.arg_names if name not in self.arguments]
        kernel = self.compiled_from("", unaligned).loaded()
        with verified():  # what passes arguments to it may be compiled now
            launch = kernel[(self.instances, 1, 1)]
        self._launch = lambda *given: launch(*given, *ignored)

    def __call__(self, memory: Memory) -> None:
        """Launches the kernel."""
        assert self._launch is not None, "a call is loaded before it is launched"
        if interpreted():
            with np.errstate(all="ignore"):  # of elements that are masked, as on a GPU
                self._launch(*[_tensor(a, memory) for a in self._given])
        else:
            self._launch(*[_address(a, memory) for a in self._given])


def types_of(
    arguments: Mapping[str, Argument], unaligned: Collection[Buffer] = ()
) -> dict[str, Any]:
    """Returns the Triton types of arguments."""
    return {name: _type(a, unaligned) for name, a in arguments.items()}


def _type(argument: Argument, unaligned: Collection[Buffer]) -> Any:
    """Returns the Triton type of an argument."""
    if isinstance(argument, tuple):
        return tuple(_type(a, unaligned) for a in argument)
    if isinstance(argument, Tensor):
        return "*i32"
    if isinstance(argument, (int, float)):
        return "i32" if isinstance(argument, int) else "fp32"
    return pointer_type(argument) + (UNALIGNED if argument in unaligned else "")


def _tensor(argument: Argument, memory: Memory) -> Any:
    """Returns an argument as the interpreter takes it."""
    if isinstance(argument, tuple):
        return tuple(map(memory, argument))
    return argument if isinstance(argument, (int, float, Tensor)) else memory(argument)


def _address(argument: Argument, memory: Memory) -> Any:
    """Returns an argument as a loaded kernel takes it."""
    if isinstance(argument, tuple):
        return tuple(map(memory.address, argument))
    if isinstance(argument, (int, float)):
        return argument
    return argument.data_ptr() if isinstance(argument, Tensor) else memory.address(argument)

"""The GPUs that kernels are made for: what tiles and Triton's options depend on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from ...compiler.graph.errors import NewtritonError

LEAST = 80  # the first of NVIDIA's architectures with tf32, bf16 and asynchronous copies


@dataclass(frozen=True)
class Chip:
    """A GPU.

    Attributes:
        target: the architecture that Triton compiles for.
        shared: the bytes of shared memory that one program instance may have.
        processors: the number of multiprocessors (NVIDIA) or compute units (AMD).
    """

    target: GPUTarget
    shared: int
    processors: int

    @property
    def name(self) -> str:
        """The name of the architecture, like sm_90 or gfx942."""
        return f"sm_{self.target.arch}" if self.nvidia else str(self.target.arch)

    @property
    def nvidia(self) -> bool:
        """Whether ptxas makes the code."""
        return self.target.backend == "cuda"

    @property
    def limits(self) -> dict[str, int]:
        """The option that lets a thread have all registers.

        Without it ptxas spills for the sake of occupancy.
        """
        return {"maxnreg": 255} if self.nvidia else {}

    def product(self, precision: str) -> str:
        """Returns the precision of products that the chip has instead of the one asked for.

        AMD has no tf32x3, and tf32 on gfx942 alone: the others multiply as float32.
        """
        there = self.nvidia or (precision == "tf32" and self.target.arch == "gfx942")
        return precision if there else "ieee"

    @property
    def spares_registers(self) -> bool:
        """Whether products take operands from shared memory: wgmma of sm_90, tcgen05 of sm_100."""
        return self.nvidia and self.target.arch in range(90, 120)

    @property
    def tensor_memory(self) -> bool:
        """Whether accumulators have a memory of their own, on which tcgen05 works."""
        return self.nvidia and self.target.arch in range(100, 120)

    @property
    def rows(self) -> int:
        """The most rows of a tile whose accumulator eight warps can hold three times."""
        return 128 if self.spares_registers else 2 * self.target.warp_size

    def stages(self, size: int) -> int:
        """Returns how many stages a loop has that copies `size` bytes in each turn.

        All stages but one need shared memory.
        """
        return min(3 if self.nvidia else 2, 1 + self.shared // size)


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(GPUTarget("cuda", 90, 32), 232_448, 132),
        Chip(GPUTarget("cuda", 100, 32), 232_448, 148),
        Chip(GPUTarget("cuda", 80, 32), 166_912, 108),
        Chip(GPUTarget("hip", "gfx942", 64), 65_536, 304),
    )
}


def chip_of(device: torch.device) -> Chip:
    """Returns the chip of a device as its driver describes it; sm_90 where there is no GPU.

    Raises:
        NewtritonError: kernels cannot be compiled for it.
    """
    if device.type != "cuda":
        return CHIPS["sm_90"]
    active: Any = driver.active
    with torch.cuda.device(device):
        known = active.utils.get_device_properties(torch.cuda.current_device())
        target = active.get_current_target()
    chip = Chip(target, known["max_shared_mem"], known["multiprocessor_count"])
    if chip.nvidia and target.arch < LEAST:
        raise NewtritonError(
            f"the GPU is {chip.name}, and Triton supports sm_{LEAST} and newer: use backend='aten'"
        )
    return chip


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Returns a context manager inside which a GPU is the current one, where Triton launches."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()

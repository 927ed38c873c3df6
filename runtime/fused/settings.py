"""How fused kernels are made: data alone, which the passes of `pipeline` read."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...compiler.graph.errors import NewtritonError
from .chips import CHIPS, Chip, chip_of
from .replay import Record, cuda_graph


@dataclass(frozen=True)
class Settings:
    """How fused kernels are made.

    Attributes:
        precision: the precision of the operands of contractions: ieee, tf32x3, tf32 or bf16.
        contractions: who computes contractions: "fused" kernels, "fused, in four warps", the
            "vendor" library, or for each whichever is "measured" to be faster.
        interpreted: whether kernels run in Triton's interpreter.
        elements: the number of elements of a pointwise tile.
        record: what records launches so that they can be replayed; None runs them one by one.
        chip: the GPU that kernels are compiled for.
    """

    precision: str = "ieee"
    contractions: str = "vendor"
    interpreted: bool = False
    elements: int = 1024
    record: Record | None = None
    chip: Chip = CHIPS["sm_90"]

    @property
    def target(self) -> Chip | None:
        """The GPU that kernels are compiled for; None where they are interpreted."""
        return None if self.interpreted else self.chip


def settings_of(
    device: torch.device,
    precision: str = "ieee",
    contractions: str = "auto",
    interpreted: bool = False,
    cuda_graphs: bool = True,
) -> Settings:
    """Returns the settings that suit a device.

    Args:
        device: where kernels will run.
        precision: the precision of the operands of contractions.
        contractions: as in `Settings`; "auto" measures on a GPU, and takes fused kernels in the
            interpreter.
        interpreted: whether kernels run in the interpreter, whose tiles are larger.
        cuda_graphs: whether launches on a GPU are recorded and replayed.

    Raises:
        NewtritonError: the interpreter cannot compute in the precision.
    """
    if interpreted and precision == "bf16":  # it cuts bits off (triton-lang/triton#11584)
        raise NewtritonError(
            "precision is 'bf16', and Triton's interpreter does not round to bfloat16: unset "
            "TRITON_INTERPRET on a GPU, or use precision='tf32' or 'ieee'"
        )
    if contractions == "auto":
        contractions = "fused" if interpreted else "measured"
    return Settings(
        precision,
        contractions,
        interpreted,
        elements=8192 if interpreted else 1024,
        record=cuda_graph if cuda_graphs and device.type == "cuda" else None,
        chip=chip_of(device),
    )

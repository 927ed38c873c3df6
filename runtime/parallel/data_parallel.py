"""What a user says of data-parallel training: the group, and how it is talked to."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.options import check_count, check_number, check_option
from .joining import join
from .owners import Grid, rows_of
from .ranks import Ranks

STATISTICS = ("whole", "rank")
FACTORS = ("full", "bf16")
MEMORIES = {"replicated": 1.0, "owned": 0.0}  # the fraction of the ranks that hold a layer
USUAL: dict[str, Any] = {
    "group": None, "batch_norm": "whole", "factors": "full", "memory": "replicated",
    "bucket": 1 << 25, "timeout": None,
}  # fmt: skip
LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets


class DataParallel:
    """Data-parallel training: each rank takes a part of every batch, and all make the same steps.

    Loss, gradient, products, quadratic forms and Kronecker factors are those of the whole batch,
    that is of the ranks' parts one after another; docs/distributed.md has the rest.

    Args:
        group: the process group; None for the default one, which is made from torchrun's
            environment where there is none.
        batch_norm: of which samples batch norm takes its statistics: "whole", of the whole batch,
            with derivatives through the sums over ranks; or "rank", of a rank's part, as
            `DistributedDataParallel` does.
        factors: the numbers in which factors travel, "full" as they are, or "bf16".
        memory: who holds a layer's factors and what is made of them: "replicated", all ranks;
            "owned", one rank, which gives the others its layers' directions; or a fraction of the
            ranks, 0 < memory ≤ 1, see `owners`.
        bucket: the bytes up to which tensors are summed together.
        timeout: seconds after which a rank that does not answer is an error; None for PyTorch's.

    Raises:
        NewtritonError: an option is none that there can be.

    Examples:
        >>> import newtriton as nt
        >>> nt.DataParallel(batch_norm="rank")
        DataParallel(batch_norm='rank')
    """

    def __init__(
        self,
        group: Any = None,
        *,
        batch_norm: str = "whole",
        factors: str = "full",
        memory: str | float = "replicated",
        bucket: int = 1 << 25,
        timeout: float | None = None,
    ) -> None:
        check_option("batch_norm", batch_norm, STATISTICS)
        check_option("factors", factors, FACTORS)
        if isinstance(memory, str):
            check_option("memory", memory, tuple(MEMORIES))
        else:
            memory = check_number("memory", memory, above=0.0, most=1.0)
        if not (group is None or (dist.is_available() and isinstance(group, dist.ProcessGroup))):
            raise NewtritonError(
                f"group is {quoted(group)}: give what torch.distributed.new_group gave, or None"
            )
        self.group, self.batch_norm, self.factors = group, batch_norm, factors
        self.memory = memory
        self.bucket = check_count("bucket", bucket)
        self.timeout = None if timeout is None else check_number("timeout", timeout, above=0.0)
        self._ranks: Ranks | None = None
        self._grid: Grid | None = None

    @property
    def ranks(self) -> Ranks:
        """The ranks of the group, which is made or found when it is first asked for.

        Raises:
            NewtritonError: there is no group and nothing that says how to make one.
        """
        if self._ranks is None:
            self._ranks = Ranks(self._group(), self.bucket)
        return self._ranks

    @property
    def grid(self) -> Grid:
        """The ranks in as many rows as ranks hold a layer; all ranks ask for it together first."""
        if self._grid is None:
            self._grid = Grid.of(self.ranks, self.rows, self._limit)
        return self._grid

    @property
    def rows(self) -> int:
        """How many ranks hold a layer, see `owners`."""
        memory = MEMORIES[self.memory] if isinstance(self.memory, str) else self.memory
        return rows_of(self.ranks.size, memory)

    @property
    def _limit(self) -> timedelta | None:
        return None if self.timeout is None else timedelta(seconds=self.timeout)

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype in which factors travel; None for their own."""
        return torch.bfloat16 if self.factors == "bf16" else None

    def _group(self) -> Any:
        """Returns the user's group, the default one, or one made from torchrun's environment."""
        if not dist.is_available():
            raise NewtritonError("this PyTorch has no torch.distributed: leave parallel out")
        if self.group is not None:
            return self.group
        if not dist.is_initialized():
            missing = [name for name in LAUNCHED if name not in os.environ]
            if missing:
                raise NewtritonError(
                    f"DataParallel found no process group, and {', '.join(missing)} not set: start "
                    "with `torchrun --nproc-per-node K …`, or call "
                    "torch.distributed.init_process_group first"
                )
            self._join()
        return dist.group.WORLD

    def _join(self) -> None:
        """Makes the default group."""
        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        join("nccl" if gpu else "gloo", self._limit)

    def __repr__(self) -> str:
        """Returns the class with the options that are not the usual ones."""
        given = [f"{n}={getattr(self, n)!r}" for n, v in USUAL.items() if getattr(self, n) != v]
        return f"DataParallel({', '.join(given)})"

    def __deepcopy__(self, memo: dict[int, Any]) -> DataParallel:
        return self  # there is one group, whoever trains on it

    def __reduce__(self) -> tuple[Any, ...]:
        """Returns the options; a group stays in its process."""
        if self.group is not None:
            raise NewtritonError(
                "a DataParallel with a group of its own cannot be pickled: leave the group "
                "out, and make it the default one"
            )
        return _made, ({name: getattr(self, name) for name in USUAL},)


def _made(options: dict[str, Any]) -> DataParallel:
    return DataParallel(**options)


def launched(**options: Any) -> DataParallel | None:
    """Returns what trains on the ranks that torchrun has started; None where it has not."""
    parallel = DataParallel(**options)
    return parallel if all(name in os.environ for name in LAUNCHED) else None

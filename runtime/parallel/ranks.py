"""The ranks that hold parts of one batch, and what they tell each other, each call counted.

All ranks make the same calls in the same order. `torch.distributed` does the rest: what it sums is
the same on all ranks to the bit, since each number is added up at one place and sent to all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .buckets import Bucket, Part, buckets
from .counter import Traffic
from .departures import Departures, departures_of


class Ranks:
    """A process group, as models use it.

    Args:
        group: the group; None for a single rank.
        bucket: the bytes up to which tensors are summed together.

    Attributes:
        rank: the number of this rank in the group.
        size: how many ranks there are.
        traffic: what has been communicated.
        departures: which ranks have left by an error; None for a single rank.

    Examples:
        >>> import torch
        >>> from newtriton.runtime.parallel.ranks import Ranks
        >>> ranks = Ranks(None)
        >>> ranks.size, ranks.all_sum(torch.ones(2))
        (1, tensor([1., 1.]))
    """

    def __init__(self, group: Any, bucket: int = 1 << 25) -> None:
        self.group, self.bucket, self.traffic = group, bucket, Traffic()
        self.rank = 0 if group is None else dist.get_rank(group)
        self.size = 1 if group is None else dist.get_world_size(group)
        self.departures = None if self.size == 1 else departures_of(group)

    def told(self) -> AbstractContextManager[None]:
        """Lets other ranks know where an error leaves a `with` statement; see `Departures`."""
        return nullcontext() if self.departures is None else self.departures.told()

    def leave(self, error: BaseException) -> None:
        """Lets other ranks know of an error that is handled here."""
        if self.departures is not None:
            self.departures.leave(error)

    @property
    def alone(self) -> bool:
        """Whether there is nobody to talk to."""
        return self.size == 1

    def all_sum(self, x: Tensor) -> Tensor:
        """Returns the sum of a tensor over all ranks."""
        if self.alone:
            return x
        result = x.clone(memory_format=torch.contiguous_format)
        self._wait(self._sum(result), result)
        return result

    def sum_(
        self,
        *tensors: Tensor,
        symmetric: Sequence[Tensor] = (),
        dtype: torch.dtype | None = None,
    ) -> None:
        """Sums tensors over all ranks, in place.

        Small ones travel together, and each bucket while the next one is packed.

        Args:
            tensors: what is summed.
            symmetric: symmetric matrices, of which one triangle travels.
            dtype: the dtype in which these matrices travel, theirs unless given.
        """
        if self.alone:
            return
        parts = [Part(x, False, x.dtype) for x in tensors]
        parts += [Part(x, True, dtype or x.dtype) for x in symmetric]
        under_way: list[tuple[Bucket, Tensor, Any]] = []
        for bucket in buckets(parts, self.bucket):
            flat = bucket.packed()
            under_way.append((bucket, flat, self._sum(flat)))
        for bucket, flat, work in under_way:
            self._wait(work, flat)
            bucket.unpack()

    @property
    def device(self) -> torch.device:
        """Where numbers lie that the group's library gathers."""
        if self.alone or dist.get_backend(self.group) != "nccl":
            return torch.device("cpu")
        return torch.device("cuda", torch.cuda.current_device())

    def most(self, number: int) -> int:
        """Returns the largest of the numbers that the ranks have."""
        return int(self.gather(torch.tensor([number], device=self.device)).max())

    def gather(self, numbers: Tensor) -> Tensor:
        """Returns the numbers of all ranks, a row for each."""
        if self.alone:
            return numbers.unsqueeze(0)
        own = numbers.to(self.device).contiguous()
        rows = own.new_empty(self.size, own.numel())
        self.traffic.note("all_gather", own.numel() * own.itemsize)
        with self._calling():
            work = dist.all_gather(list(rows.unbind()), own, group=self.group, async_op=True)
        self._wait(work, own)
        return rows.to(numbers.device)

    def _sum(self, flat: Tensor) -> Any:
        """Begins to sum contiguous memory over all ranks."""
        self.traffic.note("all_reduce", flat.numel() * flat.itemsize)
        with self._calling():
            return dist.all_reduce(flat, group=self.group, async_op=True)

    @contextmanager
    def _calling(self) -> Iterator[None]:
        """Counts a call that begins."""
        assert self.departures is not None
        self.departures.begin()
        with answering(self.departures):
            yield

    def _wait(self, work: Any, flat: Tensor) -> None:
        """Waits for a call on memory; one on a GPU's is waited for there."""
        assert self.departures is not None
        with answering(self.departures):
            if flat.is_cuda:
                work.wait()
            else:
                self.departures.wait(work)


@contextmanager
def answering(departures: Departures) -> Iterator[None]:
    """Says in one sentence that another rank has died, or hangs.

    Raises:
        NewtritonError: the communication library gave up.
    """
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise departures.fail(
            "another rank has ended, or does not answer within the group's time-out: see its own "
            f"error; what was saved last is intact ({reason[:200]})"
        ) from error


class Listening(Ranks):
    """The same ranks, for one that has nothing to give: whatever it sums, its own part is zero.

    A rank without samples runs its programs on one that does not count, so that it takes part in
    every call.

    Args:
        ranks: the ranks.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.group, self.bucket, self.traffic = ranks.group, ranks.bucket, ranks.traffic
        self.rank, self.size, self.departures = ranks.rank, ranks.size, ranks.departures

    def all_sum(self, x: Tensor) -> Tensor:
        """Returns the sum of a tensor over all other ranks."""
        return super().all_sum(torch.zeros_like(x))

    def sum_(
        self,
        *tensors: Tensor,
        symmetric: Sequence[Tensor] = (),
        dtype: torch.dtype | None = None,
    ) -> None:
        """Makes tensors the sums over all other ranks."""
        for x in (*tensors, *symmetric):
            x.zero_()
        super().sum_(*tensors, symmetric=symmetric, dtype=dtype)

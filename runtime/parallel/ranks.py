"""The ranks that hold parts of one batch, and what they tell each other, each call counted.

All ranks make the same calls in the same order. `torch.distributed` does the rest: what it sums is
the same on all ranks to the bit, since each number is added up at one place and sent to all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .buckets import Bucket, Part, buckets
from .counter import Traffic
from .departures import Departures, Within, departures_of


class Ranks:
    """A process group, as models use it.

    Args:
        group: the group; None for a single rank.
        bucket: the bytes up to which tensors are summed together.
        whole: all ranks, where these are some of them.

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

    def __init__(self, group: Any, bucket: int = 1 << 25, whole: Ranks | None = None) -> None:
        self.group, self.bucket = group, bucket
        self.traffic = Traffic() if whole is None else whole.traffic
        self.rank = 0 if group is None else dist.get_rank(group)
        self.size = 1 if group is None else dist.get_world_size(group)
        self.departures: Departures | Within | None = None
        if whole is not None and whole.departures is not None:
            self.departures = Within(whole.departures)
        elif self.size > 1:
            self.departures = departures_of(group)

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
        to: Sequence[int | None] | None = None,
    ) -> None:
        """Sums tensors over all ranks, in place.

        Small ones travel together, and each bucket while the next one is packed.

        Args:
            tensors: what is summed.
            symmetric: symmetric matrices, of which one triangle travels.
            dtype: the dtype in which these matrices travel, theirs unless given.
            to: for each of both the rank that wants the sum, None for all; elsewhere nothing is
                left of it.
        """
        if self.alone:
            return
        wanted = [None] * (len(tensors) + len(symmetric)) if to is None else to
        kinds = [(x, False, x.dtype) for x in tensors]
        kinds += [(x, True, dtype or x.dtype) for x in symmetric]
        parts = [Part(*kind, rank) for kind, rank in zip(kinds, wanted, strict=True)]
        under_way: list[tuple[Bucket, Tensor, Any]] = []
        for bucket in buckets(parts, self.bucket):
            flat = bucket.packed()
            under_way.append((bucket, flat, self._sum(flat, bucket.to)))
        for bucket, flat, work in under_way:
            self._wait(work, flat)
            if bucket.to in (None, self.rank):
                bucket.unpack()

    def give(self, tensors: Sequence[Sequence[Tensor]]) -> None:
        """Writes to some tensors for each rank what that rank has there, in a call for each."""
        under_way: list[tuple[Bucket, Tensor, Any]] = []
        for rank, own in enumerate(tensors):
            if self.alone or not own:
                continue
            bucket = Bucket([Part(x, False, x.dtype) for x in own])
            flat = bucket.packed()
            self._note("broadcast", flat)
            with self._calling():
                work = dist.broadcast(flat, group=self.group, group_src=rank, async_op=True)
            under_way.append((bucket, flat, work))
        for bucket, flat, work in under_way:
            self._wait(work, flat)
            bucket.unpack()

    def silence(self, *tensors: Tensor) -> None:
        """Makes tensors 0 that a rank would contribute which has nothing to give."""

    def part(self, members: range, timeout: timedelta | None) -> Ranks:
        """Returns some of the ranks as a group, which all of these ask for together.

        Args:
            members: their numbers, this rank's among them.
            timeout: that of the group; None for PyTorch's.
        """
        if len(members) == self.size:
            return self
        if len(members) == 1:
            return Ranks(None)
        ranks = [dist.get_global_rank(self.group, member) for member in members]
        backend = dist.get_backend(self.group)
        group = dist.new_group(ranks, timeout, backend, use_local_synchronization=True)
        return Ranks(group, self.bucket, self)

    def begin(self) -> None:
        """Counts calls of parts of the ranks, which are not equally many, as one of all ranks."""
        if self.departures is not None:
            self.departures.begin()

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
        self._note("all_gather", own)
        with self._calling():
            work = dist.all_gather(list(rows.unbind()), own, group=self.group, async_op=True)
        self._wait(work, own)
        return rows.to(numbers.device)

    def _sum(self, flat: Tensor, to: int | None = None) -> Any:
        """Begins to sum contiguous memory over all ranks, for one of them or for all."""
        self._note("all_reduce" if to is None else "reduce", flat)
        with self._calling():
            if to is None:
                return dist.all_reduce(flat, group=self.group, async_op=True)
            return dist.reduce(flat, group=self.group, group_dst=to, async_op=True)

    def _note(self, name: str, flat: Tensor) -> None:
        """Counts what a call carries."""
        self.traffic.note(name, flat.numel() * flat.itemsize, self.size)

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
def answering(departures: Departures | Within) -> Iterator[None]:
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
        to: Sequence[int | None] | None = None,
    ) -> None:
        """Makes tensors the sums over all other ranks."""
        self.silence(*tensors, *symmetric)
        super().sum_(*tensors, symmetric=symmetric, dtype=dtype, to=to)

    def silence(self, *tensors: Tensor) -> None:
        """Makes tensors 0."""
        for x in tensors:
            x.zero_()

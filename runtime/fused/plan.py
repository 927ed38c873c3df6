"""A graph at a batch size as fused kernels: the memory of a call, and the launches in it.

Results are written where the caller wants them, or to new memory; those that are kept for other
programs live and die together, in one block. Everything else lies in memory that belongs to the
plan, so that a call allocates nothing besides its results: an arena for what launches tell each
other, and, where launches are recorded, copies of what lies elsewhere in every call: of the batch's
data, of directions, and of results before they are handed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ...compiler.graph.ir import Node, concrete
from ...compiler.lowering.code import Buffer
from ...compiler.lowering.codegen import listing
from ...compiler.lowering.kernel import Schedule, base, is_data, is_input, is_wide
from ..backend import Context
from ..footprint import META, Allocations, Footprint
from .call import WIDTH, Memory, aligned
from .compiling import Job, compile_once
from .launch import BlocksLaunch, Launch
from .replay import Record, Replays
from .storage import Storage, dtype_of, lay_out

TAPE = "tape:"  # the beginning of the names of outputs that are kept for other programs
SMALL = 1 << 24  # bytes of a direction or a result up to which a copy is shorter than a launch
STEP = 256  # bytes of whose multiples a value's place in a block is one


class Plan:
    """A graph at a batch size, ready to be run; `pipeline.plan` makes it.

    Attributes:
        schedule: the kernels, and which of them are launched together.
        texts: by launch, the text of its generated functions.
        launches: what is launched, in order.
        storage: where every value lies.
        made: the values that were made for contractions and are returned.

    Args:
        record: what records launches so that they can be replayed.
        copies_data: whether what is recorded reads copies of the batch's data.
    """

    def __init__(
        self,
        schedule: Schedule,
        texts: Sequence[str],
        launches: Sequence[Launch],
        storage: Storage,
        made: Sequence[Node],
        record: Record | None,
        copies_data: bool = True,
    ) -> None:
        self.schedule, self.texts, self.launches = schedule, texts, launches
        self.storage, self.made = storage, made
        self._memory: PlanMemory | None = None
        self._shapes: dict[Node, tuple[int, ...]] = {}
        recordable = all(launch.recordable for launch in launches)
        self._replays = Replays(record if recordable else None)
        self._copies_data = copies_data and self._replays.record is not None

    @property
    def source(self) -> str:
        """The text of all generated functions."""
        return listing(self.texts)

    @property
    def scratch(self) -> int:
        """The bytes of the arena."""
        return self.storage.arena.size

    @property
    def kept(self) -> list[Node]:
        """The results that are kept for other programs."""
        outputs = self.schedule.graph.outputs.items()
        kept = [*self.made, *(base(n) for name, n in outputs if name.startswith(TAPE))]
        return [n for n in dict.fromkeys(kept) if n not in self.storage.given]

    @property
    def refusals(self) -> list[str]:
        """Why streams are computed in blocks on PyTorch's operators, those that are."""
        return [launch.refusal for launch in self.launches if isinstance(launch, BlocksLaunch)]

    def shape(self, node: Node) -> tuple[int, ...]:
        """Returns the shape of a node at the batch size."""
        if node not in self._shapes:
            self._shapes[node] = concrete(node.shape, self.storage.batch)
        return self._shapes[node]

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
            out: the memory that results are written to, none that are kept for other programs; the
                others get new memory.

        Returns:
            the tensor of a buffer: those of results belong to the caller.
        """
        out = out or {}
        if self._memory is None:
            compile_once(self.prepare(context, feed, out), self.schedule.graph.name)
        plan = self._loaded(context)
        memory = call_memory(plan, feed, out)

        def addresses() -> tuple[int, ...]:
            return tuple(map(memory.address, plan.apart))

        self._replays(addresses, lambda: self._launch(context, memory))
        handed = handed_over(plan, out)
        return (lambda b: handed[b] if b in handed else memory(b)) if handed else memory

    def footprint(self, batch: int) -> Footprint:
        """Returns the bytes that a call takes at a batch size, results and the plan's own included.

        At other batch sizes than the plan's, memory between kernels is taken to be in proportion.
        """
        storage = self.storage if batch == self.storage.batch else self._storage_at(batch)
        made, block = self._memory is not None and batch == self.storage.batch, Block([], storage)
        with Allocations() as found:
            memory = None if made else PlanMemory(storage, META, self._copies_data, block)
            own = found.now
        del memory
        results = (b for b in storage.results if b not in storage.given)
        apart = (part for launch in self.launches for part in launch.use.elsewhere)
        kept = own + sum(storage.size(b) * dtype_of(b).itemsize for b in results)
        working = max((launch.use.working(batch) for launch in self.launches), default=0)
        apart_bytes = sum(4 * part.of.type.numel(batch) for part in apart)
        return Footprint(kept + apart_bytes + working, kept)

    def _storage_at(self, batch: int) -> Storage:
        """Returns where values would lie at another batch size."""
        uses = [launch.use.at(batch / self.storage.batch) for launch in self.launches]
        leaves = self.schedule.leaves
        return lay_out(
            uses, [b for b in self.storage.results if isinstance(b, Node)], leaves, batch
        )

    def jobs(self, name: str, unaligned: Collection[Buffer] = ()) -> Iterator[Job]:
        """Yields every kernel as it will be launched, to compile ahead of time.

        Args:
            name: the beginning of their names.
            unaligned: the buffers whose addresses may be no multiples of 16 bytes.
        """
        for i, launch in enumerate(self.launches):
            for call in launch.calls:
                yield call.compiled_from(f"{name} {i}", unaligned)

    def _launch(self, context: Context, memory: Memory) -> None:
        """Runs all launches."""
        for launch in self.launches:
            launch.run(context, memory)

    def prepare(
        self, context: Context, feed: Mapping[Node, Tensor], out: Mapping[Node, Tensor]
    ) -> list[Job]:
        """Returns the kernels to be compiled before the first call, when it is first asked for.

        They are compiled for the alignment of what is known of a call: of parameters it follows
        from their sizes. Whatever is not given here is taken to be aligned.

        Args:
            context: the device.
            feed: some of the given values, or what lies like them.
            out: memory of results, or what lies like it.
        """
        if self._memory is not None:
            return []
        block = Block(self.kept, self.storage)
        self._memory = memory = PlanMemory(self.storage, context.device, self._copies_data, block)
        places: dict[Buffer, Tensor] = {**feed, **out}
        known = [b for b in memory.moving if b in places]
        memory.unaligned = frozenset(b for b in known if places[b].data_ptr() % WIDTH)
        return list(self.jobs("", memory.unaligned))

    def _loaded(self, context: Context) -> PlanMemory:
        """Returns the memory of the plan, whose kernels are loaded before the first call."""
        assert self._memory is not None, "a plan is prepared before it is called"
        if not self._memory.ready:
            for call in (call for launch in self.launches for call in launch.calls):
                call.load(context.device, self._memory.unaligned)
            self._memory.ready = True
        return self._memory


class Block:
    """Values in one piece of memory, which is new in every call.

    So a call asks the allocator once, and what it gives decides alone whether the call's launches
    can be replayed.

    Attributes:
        nodes: the values.
        size: the bytes of them all.

    Args:
        storage: what knows their sizes.
    """

    def __init__(self, nodes: list[Node], storage: Storage) -> None:
        self.nodes = nodes
        sizes = [storage.size(n) * dtype_of(n).itemsize for n in nodes]
        *starts, self.size = accumulate((-(-s // STEP) * STEP for s in sizes), initial=0)
        shapes = [concrete(n.shape, storage.batch) for n in nodes]
        self._places = [
            (n, dtype_of(n), shape, _strides(shape), start // dtype_of(n).itemsize)
            for n, shape, start in zip(nodes, shapes, starts, strict=True)
        ]

    def tensors(self, device: torch.device) -> Iterator[tuple[Node, Tensor]]:
        """Yields the values in new memory."""
        if not self._places:
            return
        block = torch.empty(self.size, dtype=torch.uint8, device=device)
        typed = {dtype: block.view(dtype) for dtype in {place[1] for place in self._places}}
        for node, dtype, shape, strides, start in self._places:
            yield node, typed[dtype].as_strided(shape, strides, start)


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the strides of a contiguous tensor."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


class PlanMemory:
    """The memory that belongs to a plan.

    Args:
        storage: where every value lies.
        device: where the memory is.
        copies: whether data of the batch are copied into it in every call.
        block: the results that lie in a block.

    Attributes:
        arena: what launches tell each other.
        copied: the copies of data and directions, by the buffer they stand for.
        returned: where launches write results that are copied to the caller's memory.
        moving: what lies elsewhere, given and results, in the order of their use.
        apart: the same, but of the block its first value alone, which says where all of it is.
        unaligned: what of it may lie at any address; all others are multiples of 16.
        ready: whether kernels have been loaded.
    """

    def __init__(self, storage: Storage, device: torch.device, copies: bool, block: Block) -> None:
        self.storage, self.device, self.block = storage, device, block
        self.arena = torch.empty(storage.arena.size, dtype=torch.uint8, device=device)
        inside = set(block.nodes)
        nodes = [b for b in storage.addressed if copies and isinstance(b, Node)]
        self.copied = {b: self._room(b) for b in nodes if b in storage.given and self._moves(b)}
        results = [b for b in nodes if b in storage.results and b not in inside]
        self.returned = {
            b: self._room(b) for b in results if b not in storage.given and self._is_small(b)
        }
        self.moving = [b for b in storage.addressed if b not in {*self.copied, *self.returned}]
        self.apart = [b for b in self.moving if b not in inside] + block.nodes[:1]
        self.unaligned: frozenset[Buffer] = frozenset()
        self.ready = False

    def _moves(self, node: Node) -> bool:
        """Whether what is given lies elsewhere in every call, and a copy costs little."""
        return is_data(node) or (is_input(node) and self._is_small(node))

    def _is_small(self, node: Node) -> bool:
        return self.storage.size(node) * dtype_of(node).itemsize <= SMALL

    def _room(self, node: Node) -> Tensor:
        dtype = torch.int64 if is_wide(node) else dtype_of(node)
        return torch.empty(
            concrete(node.shape, self.storage.batch), dtype=dtype, device=self.device
        )

    def part(self, buffer: Buffer) -> Tensor:
        """Returns a buffer's part of the arena."""
        start, dtype = self.storage.offset(buffer), dtype_of(buffer)
        return self.arena[start : start + self.storage.size(buffer) * dtype.itemsize].view(dtype)


def call_memory(
    plan: PlanMemory, feed: Mapping[Node, Tensor], out: Mapping[Node, Tensor]
) -> Memory:
    """Returns where every buffer lies in one call.

    Args:
        plan: the memory of the plan.
        feed: the tensors of given values.
        out: the memory that results are written to.
    """
    storage = plan.storage

    def given(node: Node) -> Tensor:
        found = feed.get(node)  # an image with its channels last is that of another node
        return feed[node.inputs[0]].permute(node["order"]) if found is None else found

    def fitting(buffer: Buffer, tensor: Tensor) -> Tensor:
        return tensor if buffer in plan.unaligned else aligned(tensor)

    def place(buffer: Buffer) -> Tensor:
        if isinstance(buffer, Node) and (buffer in feed or buffer in storage.given):
            return fitting(buffer, given(buffer).contiguous())
        if isinstance(buffer, Node) and buffer in out:
            return fitting(buffer, out[buffer])
        if buffer in storage.results:
            size, dtype = storage.size(buffer), dtype_of(buffer)
            return torch.empty(size, dtype=dtype, device=plan.device)
        return plan.part(buffer)

    memory = Memory(place)  # what it holds is freed with it: nothing above refers to it
    for node, tensor in plan.block.tensors(plan.device):
        memory.put(node, tensor)
    _copy((room, given(buffer)) for buffer, room in plan.copied.items())
    for buffer, room in (*plan.copied.items(), *plan.returned.items()):
        memory.put(buffer, room)
    return memory


def handed_over(plan: PlanMemory, out: Mapping[Node, Tensor]) -> dict[Buffer, Tensor]:
    """Returns copies, where the caller wants them, of results that lie in memory of the plan."""
    if not plan.returned:
        return {}
    copies: dict[Buffer, Tensor] = {
        b: out[b].view(room.shape) if b in out else torch.empty_like(room)
        for b, room in plan.returned.items()
    }
    _copy(zip(copies.values(), plan.returned.values(), strict=True))
    return copies


def _copy(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Copies to the first of each pair, those of one type together: that takes few launches."""
    by_type: dict[torch.dtype, list[tuple[Tensor, Tensor]]] = {}
    for target, source in pairs:
        by_type.setdefault(target.dtype, []).append((target, source))
    together: Any = torch.ops.aten._foreach_copy_
    for found in by_type.values():
        together(*map(list, zip(*found, strict=True)))

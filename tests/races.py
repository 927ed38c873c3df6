"""Finds what a sequential interpreter hides: races, accesses out of bounds, unwritten memory.

Every load and store of every program of every launch of a plan is noted. On a GPU the programs of
a launch run in any order and beside each other, and no thread waits for another one's stores. So
each launch is also run with its programs in other orders, from the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, TensorHandle

from newtriton.compiler.lowering.code import Buffer
from newtriton.runtime.backend import Context
from newtriton.runtime.fused import pipeline
from newtriton.runtime.fused.call import Memory
from newtriton.runtime.fused.launch import Launch, VendorLaunch
from newtriton.runtime.fused.plan import Plan

GRAIN = 4  # the bytes of a piece of memory: the interpreter computes with nothing smaller
UNWRITTEN, GIVEN = -1, 0  # what a piece holds; from 1 on, the value of a buffer of the plan


class Fault(Enum):
    """What can be wrong with a launch."""

    WRITE_WRITE = "a place is written twice"
    READ_WRITE = "a program reads what another one writes"
    READ_OWN = "a program reads from memory what it has itself written"
    BOUNDS = "an access outside of what a kernel is given to read or to write"
    UNWRITTEN = "memory is read where its value has not been written in this call"
    ORDER = "the order of programs changes what is written"


class Finding(NamedTuple):
    """A fault, the kernel that has it, and the first place where it was seen."""

    fault: Fault
    kernel: str
    place: str


@dataclass
class Report:
    """What has been run, and what is wrong with it.

    Attributes:
        plans: the plans that were made.
        instances: by launch that was run, the number of programs of each of its kernels.
        findings: the faults of these launches.
        programs: the number of programs that were watched.
    """

    plans: list[Plan] = field(default_factory=list)
    instances: dict[Launch, dict[str, int]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    programs: int = 0

    @property
    def faults(self) -> set[Fault]:
        """The sorts of faults that were found."""
        return {finding.fault for finding in self.findings}


class Grains:
    """The memory of a call in numbered pieces.

    Attributes:
        holds: by piece, whose value was last written there.
    """

    def __init__(self) -> None:
        self._starts, self._stops, self._shifts = (np.empty(0, np.int64) for _ in range(3))
        self.holds = np.empty(0, np.int64)

    def include(self, tensors: Iterable[Tensor]) -> None:
        """Makes the storages of tensors known; what lies in new ones is not written."""
        for storage in (tensor.untyped_storage() for tensor in tensors):
            start, size = storage.data_ptr() // GRAIN, -(-storage.nbytes() // GRAIN)
            if size and start not in self._starts:
                at = np.searchsorted(self._starts, start)
                self._starts = np.insert(self._starts, at, start)
                self._stops = np.insert(self._stops, at, start + size)
                self._shifts = np.insert(self._shifts, at, len(self.holds) - start)
                self.holds = np.append(self.holds, np.full(size, UNWRITTEN))

    def span(self, tensor: Tensor) -> slice:
        """Returns the numbers of a contiguous tensor's pieces."""
        (first,) = self.numbers(np.array([tensor.data_ptr() // GRAIN]))
        return slice(first, first + -(-tensor.numel() * tensor.element_size() // GRAIN))

    def numbers(self, places: np.ndarray) -> np.ndarray:
        """Returns the numbers of pieces, −1 where no memory is known."""
        at = np.searchsorted(self._starts, places, side="right") - 1
        return np.where((at >= 0) & (places < self._stops[at]), places + self._shifts[at], -1)

    def marked(self, tensors: Iterable[Tensor]) -> np.ndarray:
        """Returns by piece whether one of the tensors lies there."""
        marks = np.zeros(len(self.holds), bool)
        for tensor in tensors:
            marks[self.span(tensor)] = True
        return marks


class Accesses:
    """The loads and stores of a kernel.

    Args:
        grains: the memory of the call.
        readable: by piece, whether the kernel is given it to read.
        writable: by piece, whether the kernel is given it to write.
        written: by piece, whether there is a value that the launch may read.
    """

    def __init__(
        self, grains: Grains, readable: np.ndarray, writable: np.ndarray, written: np.ndarray
    ) -> None:
        self.grains, self.written = grains, written
        self.readable, self.writable = readable, writable
        self.writer, self.last_reader = np.full((2, len(written)), -1)
        self.first_reader = np.full(len(written), np.iinfo(np.int64).max)
        self.program, self.found = 0, dict[Fault, str]()

    def possible(self, pointers: TensorHandle, mask: TensorHandle, stored: bool) -> TensorHandle:
        """Notes a load or a store, and returns the mask of what of it can be done."""
        width = max(1, pointers.get_element_ty().primitive_bitwidth // (8 * GRAIN))
        places = np.asarray(pointers.data).astype(np.int64) // GRAIN
        touched = self.grains.numbers(places[..., None] + np.arange(width))
        allowed = self.writable if stored else self.readable
        inside = ((touched >= 0) & allowed[touched]).all(-1)
        wanted = np.broadcast_to(np.asarray(mask.data, bool), places.shape)
        self._see(Fault.BOUNDS, wanted & ~inside)
        (self.store if stored else self.load)(touched[wanted & inside].ravel())
        return TensorHandle(wanted & inside, mask.dtype)

    def load(self, touched: np.ndarray) -> None:
        """Notes that the program at work reads these pieces."""
        self._see(Fault.READ_OWN, self.writer[touched] == self.program)
        self._see(Fault.UNWRITTEN, ~self.written[touched])
        self.first_reader[touched] = np.minimum(self.first_reader[touched], self.program)
        self.last_reader[touched] = np.maximum(self.last_reader[touched], self.program)

    def store(self, touched: np.ndarray) -> None:
        """Notes that the program at work writes these pieces."""
        self._see(Fault.WRITE_WRITE, self.writer[touched] >= 0)
        self._see(Fault.WRITE_WRITE, np.diff(np.sort(touched)) == 0)
        self.writer[touched] = self.program

    def finish(self) -> dict[Fault, str]:
        """Returns all faults, now that every program has run."""
        others = (self.first_reader < self.writer) | (self.last_reader > self.writer)
        self._see(Fault.READ_WRITE, (self.writer >= 0) & (self.last_reader >= 0) & others)
        return self.found

    def _see(self, fault: Fault, where: np.ndarray) -> None:
        if where.any():
            self.found.setdefault(fault, f"{where.sum()} elements, program {self.program}")


class Call:
    """A plan's call that is being run.

    Attributes:
        name: the name of the plan's graph.
        given: what comes from outside.
        holder: by buffer, what a piece of memory holds that has its value; later ones are larger.
        grains: the memory.
    """

    def __init__(self, plan: Plan) -> None:
        self.name = plan.schedule.graph.name
        self.given = [b for b in plan.storage.addressed if b in plan.storage.given]
        buffers = dict.fromkeys(b for launch in plan.launches for b in launch.use.buffers)
        self.holder: dict[Buffer, int] = {b: i for i, b in enumerate(buffers, 1)}
        self.holder |= dict.fromkeys(self.given, GIVEN)
        self.grains = Grains()

    def begin(self, tensor: Memory) -> None:
        """Begins the call: nothing is written but what is given."""
        self.grains = Grains()
        given = [tensor(buffer) for buffer in self.given]
        self.grains.include(given)
        self.grains.holds[self.grains.marked(given)] = GIVEN


Order = Callable[[int], Sequence[int]]
ORDERS: Sequence[Order] = (
    range,
    lambda count: range(count)[::-1],
    lambda count: np.random.default_rng(count).permutation(count).tolist(),
)


class Watched:
    """A launch that is watched, and repeated with its programs in other orders.

    Args:
        launch: the launch.
        number: its place in the plan.
        call: the plan's call.
        watch: what is told of kernels.
    """

    def __init__(self, launch: Launch, number: int, call: Call, watch: Watch) -> None:
        self.launch, self.number, self.call, self.watch = launch, number, call, watch
        self.tensors: dict[Buffer, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.launch, name)

    def run(self, context: Context, tensor: Memory) -> None:
        """Runs the launch in all orders, and leaves what the last one writes."""
        if self.number == 0:
            self.call.begin(tensor)
        self.tensors = {buffer: tensor(buffer) for buffer in self.use.buffers}
        before, report = self._copies(), self.watch.report
        found = len(report.findings)
        report.instances[self.launch] = {}
        with self.watch.noting(self):
            self.launch.run(context, tensor)
        self.tensors |= {buffer: tensor(buffer) for buffer in self.use.elsewhere}
        after = self._copies()
        if isinstance(self.launch, VendorLaunch):
            self._note_vendor(self.launch)
        if any(finding.fault is Fault.BOUNDS for finding in report.findings[found:]):
            return  # only a run that is watched keeps inside
        for order in self._other_orders(max(report.instances[self.launch].values(), default=0)):
            for memory, saved in zip(self._own(), before, strict=True):
                _bytes(memory).copy_(saved)
            with self.watch.ordering(order):
                self.launch.run(context, tensor)
            if not all(map(torch.equal, self._copies(), after)):
                self._report({Fault.ORDER: "all programs"}, str(self.kernels[0]))

    def _other_orders(self, count: int) -> list[Order]:
        """Returns the orders after the first in which so many programs run differently."""
        seen = {tuple(order(count)): order for order in ORDERS[: self.watch.orders][::-1]}
        return [order for order in seen.values() if order is not ORDERS[0]]

    @property
    def over_given(self) -> bool:
        """Whether something was written over memory that was given."""
        own = {memory.data_ptr() for memory in self._own()}
        return any(self.tensors[b].data_ptr() in own for b in self.call.given if b in self.tensors)

    def accesses(self, tensors: Sequence[Tensor]) -> Accesses:
        """Returns what notes the accesses of a kernel.

        Args:
            tensors: what the kernel is given.
        """
        grains, holder = self.call.grains, self.call.holder
        grains.include([*tensors, *self.tensors.values()])
        readable, own = grains.marked(tensors), grains.marked(self._own())
        written = ~grains.marked(self.tensors.values())  # tables
        for buffer, memory in self.tensors.items():
            span = grains.span(memory)
            written[span] |= grains.holds[span] == holder[buffer]
        return Accesses(grains, readable, readable & own, written)

    def finish(self, accesses: Accesses, kernel: str) -> None:
        """Takes over what a kernel has done: what is written belongs to the youngest value."""
        self._report(accesses.finish(), kernel)
        holds, holder = self.call.grains.holds, self.call.holder
        for buffer in sorted(self.tensors, key=holder.__getitem__):
            span = self.call.grains.span(self.tensors[buffer])
            stored = accesses.writer[span] >= 0
            holds[span][stored] = holder[buffer]

    def _note_vendor(self, launch: VendorLaunch) -> None:
        """Notes that an operator has read and written whole values."""
        accesses = self.accesses([*self.tensors.values()])
        for buffer, memory in self.tensors.items():
            span = self.call.grains.span(memory)
            note = accesses.store if buffer in self.use.elsewhere else accesses.load
            note(np.arange(span.start, span.stop))
        self.finish(accesses, str(launch.node.op.value))

    def _own(self) -> list[Tensor]:
        """Returns the memory of all that is not given."""
        return [t for buffer, t in self.tensors.items() if self.call.holder[buffer] != GIVEN]

    def _copies(self) -> list[Tensor]:
        """Returns the contents of that memory."""
        return [_bytes(memory).clone() for memory in self._own()]

    def _report(self, found: dict[Fault, str], kernel: str) -> None:
        name = f"{self.call.name}, launch {self.number}, {kernel}"
        self.watch.report.findings += [Finding(fault, name, at) for fault, at in found.items()]


class Watch:
    """What is done at the kernels, programs, loads and stores of the interpreter.

    Its wrappers take a function, of Triton 3.6 to 3.9 or the pipeline's, and return another one.

    Attributes:
        report: what was seen.
        orders: the number of orders in which launches are run.
    """

    def __init__(self, orders: int) -> None:
        self.report, self.orders = Report(), orders
        self._order: Order = ORDERS[0]
        self._launch: Watched | None = None
        self._accesses: Accesses | None = None
        self._programs: Sequence[int] = ()

    @contextmanager
    def noting(self, launch: Watched) -> Iterator[None]:
        """Notes the accesses of all kernels for a launch."""
        self._launch = launch
        try:
            yield
        finally:
            self._launch = None

    @contextmanager
    def ordering(self, order: Order) -> Iterator[None]:
        """Runs the programs of all kernels in an order."""
        self._order = order
        try:
            yield
        finally:
            self._order = ORDERS[0]

    def plans(self, make: Callable[..., Plan]) -> Callable[..., Plan]:
        """Wraps the pipeline's last step."""

        def make_watched(*args: Any, **options: Any) -> Plan:
            plan = make(*args, **options)
            call = Call(plan)
            plan.launches = [Watched(x, i, call, self) for i, x in enumerate(plan.launches)]
            self.report.plans.append(plan)
            return plan

        return make_watched

    def kernels(self, run: Callable[..., None]) -> Callable[..., None]:
        """Wraps the launch of a kernel."""

        def run_watched(executor: GridExecutor, *args: Any, **options: Any) -> None:
            (count,) = executor.grid
            self._programs, launch = self._order(count), self._launch
            if launch is None:
                run(executor, *args, **options)
                return
            self._accesses = accesses = launch.accesses([*_tensors(args)])
            try:
                run(executor, *args, **options)
            finally:
                self._accesses = None
            name = executor.fn.__name__
            launch.finish(accesses, name)
            self.report.instances[launch.launch][name] = count
            self.report.programs += count

        return run_watched

    def programs(self, place: Callable[..., None]) -> Callable[..., None]:
        """Wraps the beginning of a program."""

        def place_watched(builder: InterpreterBuilder, x: int, y: int, z: int) -> None:
            program = self._programs[x]
            if self._accesses is not None:
                self._accesses.program = program
            place(builder, program, y, z)

        return place_watched

    def loads(self, load: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a load."""
        return lambda builder, pointers, mask, *rest, **options: load(
            builder, pointers, self._possible(pointers, mask, False), *rest, **options
        )

    def stores(self, store: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a store."""
        return lambda builder, pointers, value, mask, *rest, **options: store(
            builder, pointers, value, self._possible(pointers, mask, True), *rest, **options
        )

    def _possible(self, pointers: TensorHandle, mask: TensorHandle, stored: bool) -> TensorHandle:
        known = self._accesses
        return mask if known is None else known.possible(pointers, mask, stored)


def _tensors(args: Iterable[Any]) -> Iterator[Tensor]:
    """Yields the tensors among the arguments of a kernel, those in tuples too."""
    for arg in args:
        if isinstance(arg, tuple):
            yield from _tensors(arg)
        elif isinstance(arg, Tensor):
            yield arg


def _bytes(tensor: Tensor) -> Tensor:
    """Returns the memory of a contiguous tensor, where NaN equals itself."""
    return tensor.view(-1).view(torch.uint8)


@contextmanager
def watched(orders: int = len(ORDERS)) -> Iterator[Report]:
    """Watches all launches of the plans that are made inside, in the interpreter.

    Args:
        orders: the number of orders of programs in which every launch is run.
    """
    watch = Watch(orders)
    wrapped: list[tuple[Any, str, Callable[..., Any]]] = [
        (pipeline, "plan", watch.plans),
        (GridExecutor, "__call__", watch.kernels),
        (InterpreterBuilder, "set_grid_idx", watch.programs),
        (InterpreterBuilder, "create_masked_load", watch.loads),
        (InterpreterBuilder, "create_masked_store", watch.stores),
    ]
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, wrap in wrapped:
            patch.setattr(owner, name, wrap(getattr(owner, name)))
        yield watch.report

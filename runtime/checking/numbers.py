"""The values that kernels write, against float64.

Every launch is run alone, from values that float64 has computed and that are rounded to what its
kernels read: no error of a launch before it and no index that fell the other way reaches it. What
it writes is compared with what PyTorch's operators compute in float64 from the same operands, and
judged by what float32 may do to it there, element by element (`bounds`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...compiler import vectors
from ...compiler.graph.ir import Graph, Node, Op, concrete, topological
from ...compiler.language.constants import PREFIX
from ...compiler.lowering.code import Buffer
from ...compiler.lowering.kernel import Kernel, Schedule
from ...compiler.lowering.precision import two_products
from ..backend import Context
from ..fused.compiling import compile_once
from ..fused.plan import Plan
from ..fused.selection import Selection
from ..fused.settings import Settings
from ..fused.storage import dtype_of
from ..model.model import Model
from ..rounding.bounded import Bounded
from ..rounding.bounds import Arithmetic, bounded
from .isolation import Isolated, computed_by
from .judging import largest_error
from .kernels import program_plan
from .networks import network_programs, vector_programs

# The unit of the arithmetic by precision: so much an operation may err, relative to the terms that
# it adds. That is 32 roundings of float32. Tensor cores cut sums off where they should round them,
# and three products in tf32 leave out the smallest. Operands are rounded in the graph itself.
UNITS = {"ieee": 2e-6, "tf32x3": 8e-6, "tf32": 8e-6, "bf16": 8e-6}


@dataclass(frozen=True)
class Error:
    """How far the values written by a kernel are from the oracle's.

    Attributes:
        kernel: the network, program and nodes that it computes.
        error: the largest error of an element, relative to its scale.
        limit: the largest that is allowed.
    """

    kernel: str
    error: float
    limit: float

    @property
    def good(self) -> bool:
        """Whether the error is within its limit; a NaN is not."""
        return self.error <= self.limit

    def __str__(self) -> str:
        return f"{self.kernel:<72} {self.error:8.1e}  {'ok' if self.good else 'WRONG'}"


@dataclass(frozen=True)
class Failure:
    """What could not be checked, since an exception was raised.

    Attributes:
        kernel: the network, the program and the kernel.
        message: the type of the exception and its message, in one line.
    """

    kernel: str
    message: str

    good = False

    def __str__(self) -> str:
        return f"{self.kernel:<72} {self.message}  FAILED"


def failure(kernel: str, error: Exception) -> Failure:
    """Returns the line of an exception."""
    return Failure(kernel, f"{type(error).__name__}: {' '.join(str(error).split())}")


Line = Error | Failure


def numbers(name: str, model: Model, batch: int, settings: Settings) -> Iterator[Line]:
    """Yields the error of every kernel of every program of a model, on random data."""
    generator = torch.Generator("cpu").manual_seed(0)
    graphs = network_programs(model.programs[True], two_products(settings.precision))
    leaf = partial(_leaf, model=model, batch=batch, generator=generator)
    yield from _compared(name, graphs, leaf, model.runner.context(batch), settings)


def vector_numbers(length: int, device: torch.device, settings: Settings) -> Iterator[Line]:
    """Yields the error of every kernel of the vector programs.

    Vectors are random, and the ball of a constrained iteration holds them.
    """
    generator = torch.Generator("cpu").manual_seed(0)

    def leaf(node: Node) -> Tensor:
        scale = 1.0 if node.shape == vectors.VECTOR else length
        return scale * torch.rand(concrete(node.shape, length), generator=generator).to(device)

    context = Context(length, torch.float32, device)
    yield from _compared(f"vectors {length}", vector_programs(), leaf, context, settings)


def _compared(
    name: str,
    graphs: Iterable[Graph],
    leaf: Callable[[Node], Tensor],
    context: Context,
    settings: Settings,
) -> Iterator[Line]:
    """Yields the errors of the kernels of graphs; each starts from what those before have kept."""
    oracle = _Oracle(leaf, context, UNITS[settings.precision])
    selection, made = Selection(settings), list[Node]()
    for graph in graphs:
        label = f"{name} {settings.precision} {graph.name}"
        try:
            plan = program_plan(graph, context.batch, selection, made)
            if context.device.type == "cuda":
                compile_once(plan.jobs(label), label)
            oracle.provide(n for n in plan.storage.given if isinstance(n, Node))
        except Exception as error:  # the other programs are still worth their time
            yield failure(label, error)
        else:
            yield from _program(label, plan, context, oracle)
            oracle.forget(plan.storage.lifetimes)


def _program(label: str, plan: Plan, context: Context, oracle: _Oracle) -> Iterator[Line]:
    """Yields the errors of the kernels of a program."""
    schedule, isolated = plan.schedule, Isolated(plan.storage, context, oracle.values)
    labels = {kernel: f"{label} {i}: {kernel}" for i, kernel in enumerate(schedule.kernels)}
    for launch in plan.launches:
        writing = {k: labels[k] for k in launch.kernels if k.writes}
        try:
            written = isolated.run(launch)
        except Exception as error:  # so are the other launches
            yield failure(labels[launch.kernels[0]], error)
            written = {}
        for kernel, name in writing.items():
            try:
                found = oracle.compute(kernel, schedule)
                if written:
                    yield Error(name, oracle.judge(kernel, written, found), oracle.unit)
            except Exception as error:  # and the other kernels
                yield failure(name, error)


class _Oracle:
    """What float64 computes, kernel by kernel.

    Attributes:
        values: what has been computed, as it is stored.
    """

    def __init__(self, leaf: Callable[[Node], Tensor], context: Context, unit: float) -> None:
        self.leaf, self.unit = leaf, unit
        self.arithmetic = Arithmetic(context._replace(dtype=torch.float64), unit)
        self.values: dict[Node, Tensor] = {}

    def provide(self, nodes: Iterable[Node]) -> None:
        """Computes values that come from outside, unless they are there."""
        missing = [n for n in nodes if n not in self.values]
        self._store(missing, self._bounded(missing, set()))

    def compute(self, kernel: Kernel, schedule: Schedule) -> dict[Node, Bounded]:
        """Returns what a kernel should write, from what it reads, and stores it for others.

        Where it adds parts of sums, it is computed from what the kernel reads that wrote those.
        """
        found = self._bounded(kernel.writes, computed_by(kernel, schedule))
        self._store(kernel.writes, found)
        return found

    def judge(
        self, kernel: Kernel, written: dict[Node, Tensor], found: dict[Node, Bounded]
    ) -> float:
        """Returns the largest error of what a kernel has written."""
        return max(largest_error(n, written[n], found, self.arithmetic) for n in kernel.writes)

    def forget(self, nodes: Iterable[Buffer]) -> None:
        """Forgets values that no other program starts from."""
        for n in nodes:
            self.values.pop(n, None)  # type: ignore[arg-type]

    @torch.no_grad()
    def _bounded(self, nodes: Iterable[Node], fresh: set[Node]) -> dict[Node, Bounded]:
        """Returns nodes from the values that are known, `fresh` ones computed again."""
        nodes = list(nodes)
        known = {n: x for n, x in self.values.items() if n not in fresh}
        for n in topological(nodes, stop=known.__contains__):
            if n.op in (Op.INPUT, Op.PARAM) and n not in known:
                known[n] = self.values[n] = self.leaf(n)
        return bounded(nodes, known, self.arithmetic)

    def _store(self, nodes: Iterable[Node], found: dict[Node, Bounded]) -> None:
        """Rounds values to what is stored; a transposed copy stands for its original as well."""
        for n in nodes:
            if n.op in (Op.INPUT, Op.PARAM):
                continue  # as they were given
            self.values[n] = stored = found[n].value.to(dtype_of(n)).contiguous()
            if n.op is Op.TRANSPOSE and n.inputs[0] not in self.values:
                order = n["order"]
                back = [order.index(axis) for axis in range(len(order))]
                self.values[n.inputs[0]] = stored.permute(back)


def _leaf(node: Node, model: Model, batch: int, generator: torch.Generator) -> Tensor:
    """Returns a parameter or a constant as it is, or random data, labels, noise or directions."""
    shape, traced = concrete(node.shape, batch), model.programs[True].traced
    if node.op is Op.PARAM:
        return model.layout.views(model.params)[node["name"]]
    constant = traced.constants.get(node["name"].removeprefix(PREFIX))
    if constant is not None:
        kept = torch.float32 if constant.is_floating_point() else torch.int64
        return constant.to(model.device, kept)
    if node.type.kind == "int":
        classes = traced.z.shape[-1]
        return torch.randint(0, classes, shape, generator=generator).to(model.device)
    draw = torch.rand if node["name"].startswith(("noise", "random:")) else torch.randn
    return draw(shape, generator=generator).to(model.device)

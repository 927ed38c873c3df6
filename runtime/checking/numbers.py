"""The values that kernels write, against float64.

Every value that a kernel writes is compared with the same value in float64, computed by PyTorch's
operators from the same graph, rounding of operands included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...compiler import vectors
from ...compiler.graph.ir import Graph, Node, Op, concrete
from ...compiler.lowering.precision import two_products, with_precision
from ..aten.executor import AtenExecutor
from ..backend import Context
from ..fused import pipeline
from ..fused.selection import Selection
from ..fused.settings import Settings
from ..fused.storage import dtype_of
from ..model.model import Model
from .networks import network_programs, vector_programs

# The largest relative error of a value, in the norm. A rounded operand that falls to the other side
# of a boundary changes a result by the precision of operands, so the limits grow with it.
LIMITS = {"ieee": 2e-5, "tf32x3": 5e-5, "tf32": 2e-3, "bf16": 2e-2}


@dataclass(frozen=True)
class Error:
    """How far the values written by a kernel are from the oracle's.

    Attributes:
        kernel: the network, program and nodes that it computes.
        error: the largest relative error of its values, in the norm.
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


def numbers(name: str, model: Model, batch: int, settings: Settings) -> Iterator[Error]:
    """Yields the error of every kernel of every program of a model, on random data."""
    generator = torch.Generator().manual_seed(0)
    graphs = network_programs(model.programs[True], two_products(settings.precision))
    leaf = partial(_leaf, model=model, batch=batch, generator=generator)
    yield from _compared(name, graphs, leaf, model.context(batch), settings)


def vector_numbers(length: int, device: torch.device, settings: Settings) -> Iterator[Error]:
    """Yields the error of every kernel of the vector programs.

    Vectors are random, and the ball of a constrained iteration holds them.
    """
    generator = torch.Generator().manual_seed(0)

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
) -> Iterator[Error]:
    """Yields the errors of the kernels of graphs; each starts from the values of those before."""
    batch, exact = context.batch, context._replace(dtype=torch.float64)
    selection = Selection(settings)
    feed: dict[Node, Tensor] = {}
    for graph in graphs:
        lowered, _ = with_precision(graph, settings.precision)
        for n in lowered.nodes():
            if n.op in (Op.INPUT, Op.PARAM) and n not in feed:
                feed[n] = leaf(n)
        known = frozenset(feed)
        alone = pipeline.plan(Graph(graph.name, lowered.outputs, known), batch, selection)
        written = [n for k in alone.schedule.kernels for n in k.writes]
        everything = Graph(graph.name, {str(i): n for i, n in enumerate(written)}, known)
        expected = AtenExecutor(everything)(exact, {n: _wide(x) for n, x in feed.items()})
        fused = pipeline.plan(everything, batch, selection)
        found = fused(context, feed)
        for i, kernel in enumerate(fused.schedule.kernels):
            errors = [_error(found(n), expected[n]) for n in kernel.writes if n in expected]
            if errors:
                label = f"{name} {settings.precision} {graph.name} {i}: {kernel}"
                yield Error(label, max(errors), LIMITS[settings.precision])
        feed |= {n: x.to(dtype_of(n)) for n, x in expected.items()}


def _wide(x: Tensor) -> Tensor:
    """Returns numbers in float64, indices in int64."""
    return x.double() if x.is_floating_point() else x.long()


def _leaf(node: Node, model: Model, batch: int, generator: torch.Generator) -> Tensor:
    """Returns a parameter as it is, or random data, labels, noise or directions."""
    shape = concrete(node.shape, batch)
    if node.op is Op.PARAM:
        return model.layout.views(model.params)[node["name"]]
    if node.type.kind == "int":
        classes = model.programs[True].traced.z.shape[-1]
        return torch.randint(0, classes, shape, generator=generator).to(model.device)
    draw = torch.rand if node["name"] == "noise" else torch.randn
    return draw(shape, generator=generator).to(model.device)


def _error(found: Tensor, expected: Tensor) -> float:
    """Returns the error relative to the oracle's norm; of indices, the part that differs."""
    found = found.reshape(-1)
    if not expected.is_floating_point():
        return float((found != expected.reshape(-1)).double().mean())
    difference = float((found.double() - expected.reshape(-1)).norm())
    return difference / max(float(expected.norm()), 1e-30)

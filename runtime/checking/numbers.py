"""Holding kernels to account: their numbers against PyTorch's operators, and what they compile to.

Every value that a kernel writes is compared with the same value in float64, on PyTorch's operators,
of the same graph (rounding of operands included).
"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path

import torch
import triton
from torch import Tensor

from ...compiler import vectors
from ...compiler.graph.ir import Graph, Node, Op, concrete
from ...compiler.graph.options import check_option
from ...compiler.language.layers import (
    GELU,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Residual,
    Sequential,
    SiLU,
    Tanh,
)  # fmt: skip
from ...compiler.language.losses import CrossEntropyLoss
from ...compiler.language.models import vgg11, vgg16, vgg19
from ...compiler.language.network import Layer
from ...compiler.lowering.precision import two_products, with_precision
from ...compiler.programs import Programs
from ..aten.executor import AtenExecutor
from ..backend import Context
from ..fused.chips import CHIPS, Chip
from ..fused.compiling import Job, distinct, in_pool
from ..fused.executor import FusedExecutor, Settings
from ..fused.plan import Plan, dtype_of
from ..model.compile import compile as compile_network
from ..model.model import Model
from .gates import EXCEPTIONS, Report, report

LENGTH = 1_000_003  # of a vector
GPU_SECONDS = 420.0  # after which a check on a GPU starts no other measurement

# Relative error of a value, in the norm. Rounded operands that fall to the other side of a boundary
# change a result by their own precision, so these limits grow with it.
LIMITS = {"ieee": 2e-5, "tf32x3": 5e-5, "tf32": 2e-3, "bf16": 2e-2}


def plain() -> Layer:
    """Convolutions, pools and a head."""
    return Sequential(
        *(Conv2d(20, 3, padding=1), SiLU(), MaxPool2d(2)),
        *(Conv2d(17, 3, stride=2, padding=1), Tanh(), AvgPool2d(2), Flatten(), Linear(10)),
    )


def normed() -> Layer:
    """Batch norm, a residual, groups and dilation.

    Without biases before batch norm, whose gradients are zero up to rounding: no error is relative
    to them.
    """
    body = Sequential(Conv2d(8, 3, padding=1, groups=2, bias=False), BatchNorm2d(), GELU())
    return Sequential(
        *(Conv2d(8, 3, padding=2, dilation=2, bias=False), BatchNorm2d(), SiLU(), Residual(body)),
        *(MaxPool2d(3, 2, 1), Flatten(), Linear(7), SiLU(), Linear(3)),
    )


SMALL = {"plain": (plain, (3, 10, 9)), "normed": (normed, (2, 8, 8))}
LARGE = {
    "vgg11": (vgg11, (3, 32, 32)),
    "vgg16": (vgg16, (3, 32, 32)),
    "vgg19": (vgg19, (3, 32, 32)),
}


@dataclass(frozen=True)
class Error:
    """How far the values written by a kernel are from the oracle's, at worst."""

    kernel: str
    error: float
    limit: float

    @property
    def good(self) -> bool:
        """Whether the error is within its limit; a NaN is not."""
        return self.error <= self.limit

    def __str__(self) -> str:
        return f"{self.kernel:<72} {self.error:8.1e}  {'ok' if self.good else 'WRONG'}"


def programs_of(p: Programs, two: bool) -> list[Graph]:
    """What a step of the second-order methods runs; the linearization first, with its tape."""
    graph = p.linearize.graph
    tape = {f"tape:{i}": n for i, n in enumerate(graph.nodes()) if n in p.tape}
    programs = (p.quadratic(1, two_products=two), p.hvp, p.ggnvp, p.factors("kfac"))
    return [
        Graph("linearize", {**graph.outputs, **tape}),
        *(program.graph for program in programs),
    ]


def vector_programs() -> list[Graph]:
    """What is done with flat vectors of any length."""
    ways = [(False, False), (True, False), (False, True)]
    iterations = [vectors.iteration(ball, preconditioned) for ball, preconditioned in ways]
    return [vectors.inner_products(3), vectors.combination(2), *iterations, vectors.turn()]


def numbers(name: str, model: Model, batch: int, settings: Settings) -> Iterator[Error]:
    """Every kernel of every program of a model, on random data."""
    generator = torch.Generator().manual_seed(0)
    graphs = programs_of(model.programs[True], two_products(settings.precision))
    leaf = partial(_leaf, model=model, batch=batch, generator=generator)
    yield from _compared(name, graphs, leaf, model.context(batch), settings)


def vector_numbers(length: int, device: torch.device, settings: Settings) -> Iterator[Error]:
    """Every kernel of the vector programs, on random vectors, in a ball that holds them."""
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
    """What graphs' kernels write against float64; each graph may start from those before it."""
    batch, exact = context.batch, context._replace(dtype=torch.float64)
    feed: dict[Node, Tensor] = {}
    for graph in graphs:
        lowered, _ = with_precision(graph, settings.precision)
        for n in lowered.nodes():
            if n.op in (Op.INPUT, Op.PARAM) and n not in feed:
                feed[n] = leaf(n)
        known = frozenset(feed)
        plan = Plan(Graph(graph.name, lowered.outputs, known), batch, settings, False)
        written = [n for k in plan.schedule.kernels for n in k.writes]
        everything = Graph(graph.name, {str(i): n for i, n in enumerate(written)}, known)
        expected = AtenExecutor(everything)(exact, {n: _wide(x) for n, x in feed.items()})
        fused = Plan(everything, batch, settings, False)
        found = fused(context, feed)
        for i, kernel in enumerate(fused.schedule.kernels):
            errors = [_error(found(n), expected[n]) for n in kernel.writes if n in expected]
            if errors:
                label = f"{name} {settings.precision} {graph.name} {i}: {kernel}"
                yield Error(label, max(errors), LIMITS[settings.precision])
        feed |= {n: x.to(dtype_of(n)) for n, x in expected.items()}


def _wide(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x.long()


def _leaf(node: Node, model: Model, batch: int, generator: torch.Generator) -> Tensor:
    """Parameters as they are; random data, labels, noise and directions."""
    shape = concrete(node.shape, batch)
    if node.op is Op.PARAM:
        return model.layout.views(model.params)[node["name"]]
    if node.type.kind == "int":
        classes = model.programs[True].traced.z.shape[-1]
        return torch.randint(0, classes, shape, generator=generator).to(model.device)
    draw = torch.rand if node["name"] == "noise" else torch.randn
    return draw(shape, generator=generator).to(model.device)


def _error(found: Tensor, expected: Tensor) -> float:
    """Relative to the oracle's norm; of indices, the part that differs."""
    found = found.reshape(-1)
    if not expected.is_floating_point():
        return float((found != expected.reshape(-1)).double().mean())
    difference = float((found.double() - expected.reshape(-1)).norm())
    return difference / max(float(expected.norm()), 1e-30)


def program_plans(
    model: Model, precision: str, batch: int, chip: Chip = CHIPS["sm_90"]
) -> Iterator[Plan]:
    """A model's programs as fused kernels."""
    settings, made = Settings(precision, "fused", chip=chip), list[Node]()
    for graph in programs_of(model.programs[True], two_products(precision)):
        plan = FusedExecutor(graph, (), settings, keeps=True).plan(batch, made)
        made += plan.made
        yield plan


def jobs(
    names: Sequence[str], precisions: Sequence[str], chip: Chip = CHIPS["sm_90"], batch: int = 200
) -> Iterator[Job]:
    """Every kernel of networks, and of vectors, as it would be launched on a GPU."""
    for name in names:
        net, shape = LARGE[name]
        model = compile_network(net(), shape, CrossEntropyLoss(), backend="aten", device="cpu")
        for precision in precisions:
            for plan in program_plans(model, precision, batch, chip):
                yield from plan.jobs(f"{name} {precision} {plan.schedule.graph.name}")
    for graph in vector_programs():
        plan = FusedExecutor(graph, (), Settings("ieee", "fused", chip=chip)).plan(LENGTH)
        yield from plan.jobs(f"vectors ieee {graph.name}")


def run(options: Namespace) -> int:
    """Prints a line per kernel and a verdict; 0 where all is well, 1 elsewhere.

    Every line is written as data at once, so that it is kept if a later one fails. On a GPU the
    table of measurements follows, in the time that is left of eight minutes.
    """
    start = time.perf_counter()
    for given, known in ((options.nets, LARGE), (options.targets, CHIPS)):
        for name in given:
            check_option("--nets" if known is LARGE else "--targets", name, tuple(known))
    lines: list[Error | Report] = []
    code = options.only == "code"
    for found in _code(options) if code else _numbers(options):
        print(found, flush=True)
        lines.append(found)
        if options.json is not None:
            store(options.json, lines)
    if code:
        print("Excepted:", *(f"  {what}: {why}" for what, why in EXCEPTIONS.items()), sep="\n")
    bad = sum(not line.good for line in lines)
    print(f"{len(lines)} kernels, {bad} of them not as they should be")
    if options.gpu:
        from ...bench import gpu  # noqa: PLC0415 - measures what only a GPU has

        bad += gpu.table(GPU_SECONDS - (time.perf_counter() - start), options.json)
    return int(bad > 0)


def _code(options: Namespace) -> Iterator[Report]:
    for chip in (CHIPS[name] for name in options.targets):
        compiled = distinct(jobs(options.nets, options.precisions, chip))
        yield from in_pool(report, compiled, [chip.target], options.workers)


def _numbers(options: Namespace) -> Iterator[Error]:
    """Small networks anywhere; on a GPU the large ones too, at the sizes that will be used."""
    interpreted = not options.gpu
    device = "cpu" if interpreted else "cuda"
    sizes = [(name, net, (3,)) for name, net in SMALL.items()]
    if options.gpu:
        sizes += [(name, LARGE[name], (32, 200)) for name in options.nets]
    for name, (net, shape), batches in sizes:
        model = compile_network(net(), shape, CrossEntropyLoss(), backend="aten", device=device)
        for precision in options.precisions:
            if interpreted and precision == "bf16":
                print(f"{name} bf16: the interpreter has no bfloat16")
                continue
            settings = Settings.choose(precision, "fused", interpreted, model.device, False)
            for batch in batches:
                yield from numbers(f"{name} {batch}", model, batch, settings)
    place = torch.device(device)
    settings = Settings.choose("ieee", "fused", interpreted, place, cuda_graphs=False)
    for length in (33, 20_000 if interpreted else LENGTH):
        yield from vector_numbers(length, place, settings)


def summary(reports: Sequence[Report]) -> list[dict[str, object]]:
    """By precision and target, the worst of all kernels: a name is network, precision, …."""
    groups: dict[tuple[str, str], list[Report]] = {}
    for r in reports:
        groups.setdefault((r.job.split()[1], r.target), []).append(r)
    return [
        {
            "precision": precision,
            "target": target,
            "kernels": len(group),
            "faults": sum(not r.good for r in group),
            "spills": sum(r.spills for r in group),
            "spills_in_loops": sum(r.looped for r in group),
            "most_registers": max(r.registers for r in group),
            "most_shared_bytes": max(r.shared for r in group),
            "on_tensor_cores": sum(
                r.instruction.startswith(("HGMMA", "HMMA", "MFMA")) for r in group
            ),
        }
        for (precision, target), group in groups.items()
    ]


def store(path: Path, lines: Sequence[Error | Report]) -> None:
    """Writes lines as data, with the device and versions."""
    machine = {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
    rows = [{**asdict(line), "good": line.good} for line in lines]
    worst = summary([line for line in lines if isinstance(line, Report)])
    data = {"machine": machine, "summary": worst, "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, default=str) + "\n")

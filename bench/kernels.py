"""Each fused kernel on the layers of VGG11/16/19, against eager PyTorch and torch.compile.

A row is one operation on one layer: milliseconds with these kernels and with the vendor's
contraction followed by one fused kernel, eager and compiled, the GFLOP that it takes, the MB that
fused kernels move, and what part of the device's measured ceilings they reach. Needs a GPU; under
TRITON_INTERPRET=1 the numbers are compared and the times mean nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

from ..compiler.derivatives.transpose import conv_input_grad, conv_weight_grad
from ..compiler.graph import ops, scalar
from ..compiler.graph.cost import flops
from ..compiler.graph.errors import NewtritonError
from ..compiler.graph.ir import Graph, N, Node, Op, concrete
from ..compiler.graph.scalar import var
from ..compiler.lowering.precision import ROUNDED, rounded, with_precision
from ..runtime.aten.switches import switches
from ..runtime.backend import Context
from ..runtime.fused.compiling import compile_here, distinct
from ..runtime.fused.executor import FusedExecutor
from ..runtime.fused.measurements import seconds
from ..runtime.fused.selection import Selection
from ..runtime.fused.settings import settings_of
from ._measure import parser, report

LAYERS = (
    (3, 64, 32), (64, 64, 32), (64, 128, 16), (128, 128, 16), (128, 256, 8), (256, 256, 8),
    (256, 512, 4), (512, 512, 4), (512, 512, 2),
)  # fmt: skip
WINDOW = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
SILU = var(0) * scalar.sigmoid(var(0))
SLOPE = scalar.derivative(SILU, 0)
BEND = scalar.derivative(SLOPE, 0)

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Operation:
    """What a step does at a layer.

    Attributes:
        outputs: the nodes to compute; images are N×H×W×C.
        torch: the same in PyTorch, by the names of the operands; images are N×C×H×W.
    """

    outputs: tuple[Node, ...]
    torch: Callable[[Tensors], tuple[Tensor, ...]]


def _slope(s: Tensor) -> Tensor:
    sigma = torch.sigmoid(s)
    return sigma * (1 + s * (1 - sigma))


def _bend(s: Tensor) -> Tensor:
    sigma = torch.sigmoid(s)
    return sigma * (1 - sigma) * (2 + s * (1 - 2 * sigma))


def _conv(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    return functional.conv2d(x, w, b, padding=1)


def _back(ct: Tensor, w: Tensor) -> Tensor:
    size = (len(ct), w.shape[1], *ct.shape[2:])
    return conv2d_input(size, w, ct, padding=1)  # type: ignore[arg-type]


def _weights(ct: Tensor, x: Tensor) -> Tensor:
    return conv2d_weight(x, (ct.shape[1], x.shape[1], 3, 3), ct, padding=1)  # type: ignore[arg-type]


def _patches(x: Tensor) -> Tensor:
    columns = functional.unfold(x, 3, padding=1)
    rows = columns.transpose(1, 2).reshape(-1, columns.shape[1])
    return rows.T @ rows


def operations(channels: int, width: int, size: int) -> dict[str, Operation]:
    """Returns by name what a second-order step does at a 3×3 convolution.

    The values a, ṡ … belong to this layer, p, ṗ and ā to the activation below it.
    """
    below, here = (N, size, size, channels), (N, size, size, width)
    a, a_dot, p, p_dot, a_bar = (
        ops.input_(name, below) for name in ("a", "a_dot", "p", "p_dot", "a_bar")
    )
    s, s_bar, rs_bar = (ops.input_(name, here) for name in ("s", "s_bar", "rs_bar"))
    w, v = (ops.param(name, (width, 3, 3, channels)) for name in ("w", "v"))
    b = ops.param("b", (width,))

    def conv(*operands: Node) -> Node:
        return ops.make(Op.CONV, *operands, **WINDOW)

    def back(ct: Node, weights: Node) -> Node:
        return conv_input_grad(ct, weights, a, WINDOW)

    z, back_sum = conv(a, w, b), ops.total([back(rs_bar, w), back(s_bar, v)])
    s_dot = ops.total([conv(a_dot, w), conv(a, v, b)])
    r_back = ops.map_(
        scalar.substitute(SLOPE, {0: var(1)}) * var(0)
        + scalar.substitute(BEND, {0: var(1)}) * var(2) * var(3),
        back_sum, p, p_dot, a_bar,
    )  # fmt: skip
    sloped = scalar.substitute(SLOPE, {0: var(1)}) * var(0)
    gram = {**WINDOW, "kernel": (3, 3), "homogeneous": False, "scale": scalar.ONE}
    return {
        "forward": Operation(
            (z, ops.map_(SILU, z)),
            lambda t: (s := _conv(t["a"], t["w"], t["b"]), functional.silu(s)),
        ),
        "input gradient": Operation(
            (ops.map_(sloped, back(s_bar, w), p),),
            lambda t: (_slope(t["p"]) * _back(t["s_bar"], t["w"]),),
        ),
        "weight gradient": Operation(
            (conv_weight_grad(s_bar, a, w, WINDOW),), lambda t: (_weights(t["s_bar"], t["a"]),)
        ),
        "R-forward": Operation(
            (s_dot, ops.map_(sloped, s_dot, s)),
            lambda t: (
                r := _conv(t["a_dot"], t["w"]) + _conv(t["a"], t["v"], t["b"]),
                _slope(t["s"]) * r,
            ),
        ),
        "R-backward": Operation(
            (r_back,),
            lambda t: (
                _slope(t["p"]) * (_back(t["rs_bar"], t["w"]) + _back(t["s_bar"], t["v"]))
                + _bend(t["p"]) * t["p_dot"] * t["a_bar"],
            ),
        ),
        "R-weight gradient": Operation(
            (
                ops.total(
                    [
                        conv_weight_grad(rs_bar, a, w, WINDOW),
                        conv_weight_grad(s_bar, a_dot, w, WINDOW),
                    ]
                ),
            ),
            lambda t: (_weights(t["rs_bar"], t["a"]) + _weights(t["s_bar"], t["a_dot"]),),
        ),
        "quadratic": Operation(
            (ops.dot(s_bar, conv(a_dot, v)),),
            lambda t: ((t["s_bar"] * _conv(t["a_dot"], t["v"])).sum(),),
        ),
        "patch Gram": Operation(
            (ops.make(Op.PATCH_GRAM, a, **gram),), lambda t: (_patches(t["a"]),)
        ),
    }


class Alone:
    """One operation on our kernels: operands are rounded and transposed before it is timed."""

    def __init__(self, graph: Graph, selection: Selection, batch: int) -> None:
        self.precision = selection.settings.precision
        leaves = [n for n in graph.nodes() if n.op in (Op.INPUT, Op.PARAM)]
        lowered, _ = with_precision(graph, self.precision)
        self.rounded = {
            node: x
            for x in leaves
            for node in lowered.nodes()
            if self.precision in ROUNDED and node is rounded(x, self.precision)
        }
        self.making = FusedExecutor(graph, (), selection, keep_made=True)
        made = self.making.plan(batch, [*leaves, *self.rounded]).made
        self.executor = FusedExecutor(graph, (), selection)
        self.plan = self.executor.plan(batch, [*leaves, *self.rounded, *made])

    def call(
        self, context: Context, feed: Mapping[Node, Tensor]
    ) -> Callable[[], dict[Node, Tensor]]:
        """Returns the operation on operands in float32, which hold numbers of the precision."""
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        known = {**feed, **{node: feed[x].to(dtype) for node, x in self.rounded.items()}}
        made = self.making(context, known)
        known |= {n: x for n, x in made.items() if n not in self.executor.outputs.values()}
        return lambda: self.executor(context, known)


def _operand(node: Node, batch: int, precision: str, device: torch.device) -> Tensor:
    """Returns random numbers of a precision."""
    x = torch.randn(concrete(node.shape, batch), device=device)
    if precision == "bf16":
        return x.to(torch.bfloat16).float()
    return _nearest(x) if precision == "tf32" else x


def _nearest(x: Tensor) -> Tensor:
    """Returns the nearest tf32 numbers."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def milliseconds(
    calls: Mapping[str, Callable[[], Any]], context: Context, rounds: int
) -> dict[str, float]:
    """Returns the median of each call's rounds, taken in turns; on a GPU by its own clock."""
    if context.device.type == "cuda":
        from triton.testing import do_bench  # noqa: PLC0415 - asks for a driver when it is imported

        def once(call: Callable[[], Any]) -> float:
            ms: Any = do_bench(call, warmup=5, rep=20, return_mode="median")
            return ms
    else:

        def once(call: Callable[[], Any]) -> float:
            return 1e3 * seconds(call, context.device)

    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(once(call))
    return {name: median(times) for name, times in found.items()}


@dataclass(frozen=True)
class Peaks:
    """What a device does at most.

    Attributes:
        gflops: GFLOP/s of a large product.
        bandwidth: GB/s of a large copy.
    """

    gflops: float
    bandwidth: float


def peaks(device: torch.device, precision: str) -> Peaks:
    """Returns what a device does at most in a precision, measured."""
    n = 8192 if device.type == "cuda" else 256
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    x = torch.empty(2**28 if device.type == "cuda" else 2**16, device=device)
    y = torch.empty_like(x)
    calls = {"product": lambda: a @ b, "copy": lambda: y.copy_(x)}
    with switches(device, precision != "ieee"):
        ms = milliseconds(calls, Context(1, torch.float32, device), 3)
    return Peaks(2e-6 * n**3 / ms["product"], 2e-6 * x.nbytes / ms["copy"])


@dataclass(frozen=True)
class Case:
    """An operation on a layer, ready to be run.

    Attributes:
        layer: the name of the layer.
        name: the name of the operation.
        precision: the precision of operands.
        operation: what is done.
        graph: the same as a program.
        ours: the program with fused contractions, and with the vendor's.
    """

    layer: str
    name: str
    precision: str
    operation: Operation
    graph: Graph
    ours: Mapping[str, Alone]


def cases(
    layers: Sequence[tuple[int, int, int]], batch: int, precision: str, device: torch.device
) -> list[Case]:
    """Returns all operations on all layers; on a GPU their kernels are compiled beforehand."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    found = []
    for channels, width, size in layers:
        for name, operation in operations(channels, width, size).items():
            graph = Graph(name, {str(i): n for i, n in enumerate(operation.outputs)})
            settings = {
                who: settings_of(device, precision, who, interpreted) for who in ("fused", "vendor")
            }
            ours = {who: Alone(graph, Selection(s), batch) for who, s in settings.items()}
            layer = f"{channels}→{width}, {size}×{size}"
            found.append(Case(layer, name, precision, operation, graph, ours))
    if device.type == "cuda":
        jobs = [j for c in found for alone in c.ours.values() for j in alone.plan.jobs(c.name)]
        compile_here(distinct(jobs))
    return found


def measure(
    case: Case, batch: int, rounds: int, compiled: bool, device: torch.device, peaks: Peaks
) -> dict[str, Any]:
    """Returns a row, with the error of the fused kernel against PyTorch's operators."""
    context, precision = Context(batch, torch.float32, device), case.precision
    leaves = [n for n in case.graph.nodes() if n.op in (Op.INPUT, Op.PARAM)]
    feed = {n: _operand(n, batch, precision, device) for n in leaves}
    tensors = {n["name"]: _nchw(x) for n, x in feed.items()}
    if precision == "bf16":
        tensors = {n: x.to(torch.bfloat16) for n, x in tensors.items()}
    calls: dict[str, Callable[[], Any]] = {
        who: alone.call(context, feed) for who, alone in case.ours.items()
    }
    calls["eager"] = lambda: case.operation.torch(tensors)
    if compiled:
        whole = torch.compile(case.operation.torch, dynamic=False)
        calls["compiled"] = lambda: whole(tensors)
    with switches(device, precision != "ieee"):
        found, expected = calls["fused"](), calls["eager"]()
        ms = milliseconds(calls, context, rounds)
    error = max(_error(found[n], x) for n, x in zip(case.operation.outputs, expected, strict=True))
    work = flops(case.graph, batch) / 1e9
    moved = case.ours["fused"].plan.schedule.traffic(batch) / 1e6
    best = min(ms[who] for who in ("eager", "compiled") if who in ms)
    return {
        "layer": case.layer,
        "operation": case.name,
        "precision": precision,
        **{f"{who}_ms": round(t, 4) for who, t in ms.items()},
        "times_faster": round(best / min(ms["fused"], ms["vendor"]), 2),
        "GFLOP": round(work, 2),
        "MB": round(moved, 1),
        "of_peak": round(1e3 * work / ms["fused"] / peaks.gflops, 3),
        "of_bandwidth": round(moved / ms["fused"] / peaks.bandwidth, 3),
        "error": float(f"{error:.1e}"),
    }


def _nchw(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


def _error(found: Tensor, expected: Tensor) -> float:
    if found.ndim == 4:
        expected = expected.permute(0, 2, 3, 1)
    elif found.ndim == 2:  # a patch Gram: PyTorch's patches are in (channel, tap) order
        order = torch.arange(len(found), device=found.device).view(-1, 9).T.flatten()
        expected = expected[order][:, order]
    difference = (found.double() - expected.double()).norm()
    return float(difference / expected.double().norm())


def main() -> None:
    """Prints a row as soon as it is there, then the table."""
    options = parser(__doc__)
    options.add_argument("--batch", type=int, default=200)
    options.add_argument("--scale", type=int, nargs="+", default=[1, 2], help="2 is for 64×64")
    precisions = ["ieee", "tf32", *(["bf16"] if torch.cuda.is_available() else [])]
    options.add_argument("--precisions", nargs="+", default=precisions)
    options.add_argument("--layers", type=int, nargs="+", help="numbers of some, from 0")
    options.add_argument("--channels", type=int, default=1, help="divides all but the image's")
    options.add_argument("--no-compile", action="store_true", help="without torch.compile")
    given = options.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise NewtritonError("bench kernels needs a GPU: TRITON_INTERPRET=1 compares numbers here")
    chosen = [LAYERS[i] for i in given.layers or range(len(LAYERS))]
    layers = [
        (c if c == 3 else c // given.channels, o // given.channels, size * scale)
        for scale in given.scale
        for c, o, size in chosen
    ]
    table: list[dict[str, Any]] = []
    start = time.perf_counter()
    for precision in given.precisions:
        most = peaks(device, precision)
        for case in cases(layers, given.batch, precision, device):
            row = measure(case, given.batch, given.rounds, not given.no_compile, device, most)
            table.append(row)
            print(f"{time.perf_counter() - start:6.0f} s", *row.values(), flush=True)
    report(table, given.json)


if __name__ == "__main__":
    main()

"""A compiled network: its parameters in one flat tensor, its programs, and calls that run them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from ...compiler.curvature.factors import Block, DiagonalBlock, blocks
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.ir import Graph, Node
from ...compiler.graph.options import check_option
from ...compiler.language.loss import Loss
from ...compiler.language.network import Layer, Traced, trace
from ...compiler.programs import Programs
from ..aten.executor import Executor
from ..aten.pointwise import Run
from ..aten.vectors import CompiledVectors, Vectors
from .explain import Planned, explain
from .initialise import initialise
from .inputs import check_inputs, check_labels
from .layout import Layout, faults, raise_faults
from .linearization import Linearization, by_kind

BACKENDS = ("auto", "aten", "triton")
PRECISIONS = ("ieee", "tf32x3", "tf32", "bf16")
CONTRACTIONS = ("auto", "fused", "vendor", "measured")
DTYPES = (torch.float32, torch.float64)
TRACKED = "num_batches_tracked"


class Runs(Protocol):
    """A graph that can be run: an `Executor` or a `FusedExecutor`."""

    def __call__(
        self, run: Run, feed: Mapping[Node, Tensor], out: Mapping[str, Tensor] | None = None
    ) -> dict[Node, Tensor]:
        """Tensors by node; outputs named in `out` lie there as well."""
        ...


MakeExecutor = Callable[[Graph, Iterable[Node]], Runs]


class Model:
    """What `newtriton.compile` returns.

    params: all parameters, one flat tensor in the model's layout; change it in place.
    buffers: running statistics by PyTorch's names. two_products: whether a quadratic form takes two
    contractions a layer rather than three (see `compiler.quadratic`). vectors: arithmetic on flat
    vectors.
    """

    def __init__(
        self,
        net: Layer,
        input_shape: tuple[int, ...],
        criterion: Loss,
        device: torch.device,
        dtype: torch.dtype,
        weight_decay: float,
        seed: int,
        make_executor: MakeExecutor = Executor,
        two_products: bool = True,
    ) -> None:
        self.net, self.device, self.dtype, self.weight_decay = net, device, dtype, weight_decay
        self.criterion, self._make_executor = criterion, make_executor
        self.vectors = Vectors() if make_executor is Executor else CompiledVectors(make_executor)
        self.two_products = two_products
        self.input_shape = input_shape
        self._traced = {
            mode: trace(net, input_shape, criterion, training=mode) for mode in (True, False)
        }
        self.programs = {mode: Programs(traced) for mode, traced in self._traced.items()}
        traced = self._traced[True]
        self.layout = Layout(traced.parameters.values())
        self.params = torch.empty(self.layout.numel, dtype=dtype, device=device)
        generator = torch.Generator().manual_seed(seed)
        for name, view in self.layout.torch_views(self.params).items():
            initialise(traced.parameters[name], view, generator)
        self.buffers = {
            name: torch.full(r.node.shape, r.start, dtype=dtype, device=device)
            for name, r in traced.running.items()
        }
        for layer in traced.momenta:
            self.buffers[f"{layer}.{TRACKED}"] = torch.zeros((), dtype=torch.int64, device=device)
        self._executors: dict[tuple[Graph, bool], Runs] = {}

    # --- parameters -----------------------------------------------------------------------------

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Names and views of `params` in PyTorch's shapes."""
        yield from self.layout.torch_views(self.params).items()

    def parameters(self) -> Iterator[Tensor]:
        """Views of `params` in PyTorch's shapes."""
        yield from self.layout.torch_views(self.params).values()

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """One flat vector in the model's layout from tensors in PyTorch's shapes, by name."""
        return self.layout.flatten(tensors, self.params)

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of a flat vector in PyTorch's shapes, by name."""
        return self.layout.torch_views(self.layout.check(vector, "the vector"))

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of parameters and running statistics under PyTorch's names and shapes."""
        by_name = {**self.layout.torch_views(self.params), **self.buffers}
        return {
            name: tensor.detach().clone(memory_format=torch.contiguous_format)
            for name, tensor in by_name.items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over all entries; where any is missing, unexpected or misshapen, none.

        Raises:
            NewtritonError: lists every fault at once.
        """
        targets = {**self.layout.torch_views(self.params), **self.buffers}
        raise_faults(
            "load_state_dict", faults({n: tuple(t.shape) for n, t in targets.items()}, state)
        )
        for name, target in targets.items():
            target.copy_(state[name])

    @cached_property
    def blocks(self) -> list[Block | DiagonalBlock]:
        """The curvature blocks, a layer each."""
        return blocks(self._traced[True])

    # --- running --------------------------------------------------------------------------------

    def executor(self, graph: Graph, tape: bool = False, training: bool = True) -> Runs:
        """The executor of a program, compiled on first use; with `tape`, it keeps the tape."""
        key = (graph, tape)
        if key not in self._executors:
            keep = self.programs[training].tape if tape else ()
            self._executors[key] = self._make_executor(graph, keep)
        return self._executors[key]

    def run(self, batch: int) -> Run:
        """The context of a call at a batch size."""
        return Run(batch, self.dtype, self.device)

    def feed(self, traced: Traced, x: Tensor, y: Tensor | None = None) -> dict[Node, Tensor]:
        """Tensors of data, parameters and running statistics, by leaf."""
        if len(self.input_shape) == 3:
            x = x.contiguous(memory_format=torch.channels_last)
        views = self.layout.views(self.params)
        feed = {node: views[name] for name, node in traced.nodes.items()}
        feed |= {r.node: self.buffers[name] for name, r in traced.running.items()}
        feed[traced.x] = x
        if y is not None:
            feed[traced.y] = y
        return feed

    def check(self, traced: Traced, x: Tensor, y: Tensor | None) -> Tensor | None:
        """Labels as the loss wants them, after data and labels have been checked."""
        check_inputs(traced, x, self.dtype, self.device)
        for name, running in traced.running.items():
            if traced.training and len(x) * running.positions == 1:
                raise NewtritonError(
                    f"{name}: one value per channel has no variance: give at least 2 samples"
                )
        return None if y is None else check_labels(traced, y, len(x), self.dtype, self.device)

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs N×K, batch norm by its running statistics."""
        return self._evaluate(x, None, training=False)["outputs"]

    def classes(self, x: Tensor) -> Tensor:
        """The most probable class of each sample, int64 (N,)."""
        traced, program = self._traced[False], self.programs[False].scores
        self.check(traced, x, None)
        values = self.executor(program)(self.run(len(x)), self.feed(traced, x))
        return values[program.outputs["scores"]].argmax(1)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """h: mean loss and weight decay, a scalar; batch norm by its running statistics."""
        return torch.tensor(
            self.objective(x, y, training=False), dtype=self.dtype, device=self.device
        )

    def objective(self, x: Tensor, y: Tensor, training: bool = True) -> float:
        """The value of h, summed in float64; batch statistics if `training`. Changes nothing."""
        return self.total(self._evaluate(x, y, training)["losses"])

    def total(self, losses: Tensor) -> float:
        """The value of h from per-sample losses: their mean plus λ/2 ‖θ‖², in float64."""
        mean = float(losses.double().mean())
        if not self.weight_decay:
            return mean
        return mean + 0.5 * self.weight_decay * float(self.params.double().square().sum())

    def _evaluate(self, x: Tensor, y: Tensor | None, training: bool) -> dict[str, Tensor]:
        traced, program = self._traced[training], self.programs[training].evaluate
        y = self.check(traced, x, y)
        if y is None:
            program = self.programs[training].outputs
        values = self.executor(program)(self.run(len(x)), self.feed(traced, x, y))
        return {name: values[node] for name, node in program.outputs.items()}

    def gradient(self, x: Tensor, y: Tensor) -> tuple[float, Tensor, dict[str, Tensor]]:
        """The value of h, its gradient, the batch's statistics; without a tape."""
        traced, program = self._traced[True], self.programs[True].linearize
        labels = self.check(traced, x, y)
        gradient, out = self.layout.target("gradient", program.outputs, self.params)
        values = self.executor(program)(self.run(len(x)), self.feed(traced, x, labels), out)
        named = {name: values[node] for name, node in program.outputs.items()}
        self.decay_(gradient, self.params)
        return self.total(named["losses"]), gradient, by_kind("statistics", named)

    def decay_(self, vector: Tensor, point: Tensor) -> Tensor:
        """Adds λ times `point` to a product or gradient of the data term, in place."""
        return vector.add_(point, alpha=self.weight_decay) if self.weight_decay else vector

    def linearize(self, x: Tensor, y: Tensor, training: bool = True) -> Linearization:
        """Forward and backward once at `params`; everything is kept for second-order calls.

        Args:
            x: N×C×H×W or N×D inputs.
            y: labels.
            training: batch norm by batch statistics (and derivatives through them) or running ones.
        """
        return Linearization(self, self._traced[training], self.programs[training], x, y, training)

    def update_statistics(self, batch: Mapping[str, Tensor]) -> None:
        """Moves the running statistics towards a batch's, once per accepted step."""
        if not batch:
            return
        for layer, momentum in self._traced[True].momenta.items():
            count = self.buffers[f"{layer}.{TRACKED}"].add_(1)
            weight = 1.0 / float(count) if momentum is None else momentum
            for name in (f"{layer}.running_mean", f"{layer}.running_var"):
                self.buffers[name].lerp_(batch[name], weight)

    def explain(self, batch: int = 64, kernels: bool = False) -> str:
        """Per program: ops, units of work, FLOPs and bytes at a batch size.

        On fused kernels also how many there are, their launches, bytes and arena; `kernels` adds
        each program's schedule and source.
        """
        programs = self.programs[True]

        def plan(graph: Graph, made: Sequence[Node]) -> Planned:
            runs = self.executor(graph, tape=graph is programs.linearize)
            return runs.plan(batch, made)  # type: ignore[attr-defined]

        fused = hasattr(self.executor(programs.outputs), "plan")
        return explain(
            programs,
            batch,
            self.dtype.itemsize,
            plan if fused else None,
            kernels,
            self.two_products,
        )


def compile(
    net: Layer,
    input_shape: tuple[int, ...],
    loss: Loss,
    *,
    backend: str = "auto",
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    precision: str = "ieee",
    contractions: str = "auto",
    cuda_graphs: bool = True,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> Model:
    """Compiles a network with its loss.

    Args:
        net: layers of newtriton's DSL.
        input_shape: of one sample, (C, H, W) or (D,).
        loss: h is its mean over the batch plus weight_decay/2 ‖θ‖².
        backend: "aten" runs on PyTorch's operators, "triton" on fused kernels (on a GPU, or in the
            interpreter under TRITON_INTERPRET=1); "auto" takes triton where there is a GPU.
        device: where parameters live and programs run; a GPU if there is one.
        dtype: float32 or float64; triton computes in float32.
        precision: of contractions; "ieee" on the ATen backend.
        contractions: of the triton backend, by "fused" kernels, by the "vendor" library, or
            whichever is "measured" to be faster; "auto" measures on a GPU.
        cuda_graphs: whether the launches of a program that is repeated are recorded and replayed.
        weight_decay: λ ≥ 0, on all parameters.
        seed: of the first parameter values.

    Raises:
        ShapeError: names the layer at which the shapes do not fit.
        NewtritonError: an option that is unknown or not available here.
    """
    check_option("backend", backend, BACKENDS)
    check_option("precision", precision, PRECISIONS)
    check_option("contractions", contractions, CONTRACTIONS)
    if dtype not in DTYPES:
        raise NewtritonError(f"dtype is {dtype}: one of torch.float32, torch.float64")
    place = _place(device)
    make_executor = _backend(backend, place, dtype, precision, contractions, cuda_graphs)
    if not isinstance(loss, Loss):
        raise NewtritonError(f"loss is {loss!r}: give e.g. newtriton.CrossEntropyLoss()")
    shape = tuple(input_shape) if isinstance(input_shape, (tuple, list)) else (input_shape,)
    if len(shape) not in (1, 3) or not all(isinstance(d, int) and d > 0 for d in shape):
        raise NewtritonError(
            f"input_shape is {input_shape!r}: give (C, H, W) or (D,) of one sample"
        )
    if not (
        isinstance(weight_decay, (int, float)) and math.isfinite(weight_decay) and weight_decay >= 0
    ):
        raise NewtritonError(f"weight_decay is {weight_decay!r}: give a number ≥ 0")
    # Tensor cores wait for operands: three products of four operands are as fast there as two.
    two = precision in ("ieee", "tf32x3")
    return Model(net, shape, loss, place, dtype, float(weight_decay), seed, make_executor, two)


def _backend(
    name: str,
    place: torch.device,
    dtype: torch.dtype,
    precision: str,
    contractions: str,
    cuda_graphs: bool,
) -> MakeExecutor:
    """What makes executors on the named backend, or an error where that cannot be."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if name == "auto":
        fits = place.type == "cuda" and dtype is torch.float32 and find_spec("triton") is not None
        name = "triton" if fits else "aten"
    if name == "aten":
        if precision != "ieee":
            raise NewtritonError(
                f"precision {precision!r} needs the triton backend: use precision='ieee'"
            )
        return Executor
    if find_spec("triton") is None:
        raise NewtritonError("backend 'triton' needs the package: pip install triton")
    if place.type != "cuda" and not interpreted:
        raise NewtritonError(
            f"backend 'triton' needs a GPU, the device is {str(place)!r}: use backend='aten', or "
            "set TRITON_INTERPRET=1 to run its kernels in the interpreter"
        )
    if dtype is not torch.float32:
        raise NewtritonError(f"backend 'triton' computes in float32, not {dtype}: use 'aten'")
    from ..fused.executor import FusedExecutor, Settings  # noqa: PLC0415 - Triton only where it is used

    settings = Settings.choose(precision, contractions, interpreted, place, cuda_graphs)
    return partial(FusedExecutor, settings=settings)


def _place(device: torch.device | str | None) -> torch.device:
    """The device, a GPU if there is one for None; an error where PyTorch does not have it here."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (AssertionError, RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise NewtritonError(f"device is {device!r}: {reason}") from error
    return place

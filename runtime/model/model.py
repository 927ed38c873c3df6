"""A compiled network: its parameters in one flat tensor, its programs, and calls that run them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from ...compiler.curvature.factors import Block, DiagonalBlock, blocks
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.ir import Graph, Node
from ...compiler.language.loss import Loss
from ...compiler.language.network import Layer, Traced, trace
from ...compiler.programs import Programs
from ..backend import Backend, Context, Executor, Planned
from .explain import explain
from .initialise import initialise
from .inputs import check_inputs, check_labels
from .layout import Layout, faults, raise_faults
from .linearization import Linearization, by_kind

TRACKED = "num_batches_tracked"


class Model:
    """What `newtriton.compile` returns.

    params: all parameters, one flat tensor in the model's layout; change it in place.
    buffers: running statistics by PyTorch's names. backend: where programs run. vectors: arithmetic
    on flat vectors.
    """

    def __init__(
        self,
        net: Layer,
        input_shape: tuple[int, ...],
        criterion: Loss,
        backend: Backend,
        dtype: torch.dtype,
        weight_decay: float,
        seed: int,
    ) -> None:
        self.net, self.criterion, self.backend = net, criterion, backend
        self.device = device = backend.device
        self.vectors = backend.vectors
        self.dtype, self.weight_decay, self.input_shape = dtype, weight_decay, input_shape
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
        self._executors: dict[tuple[Graph, bool], Executor] = {}

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

    def executor(self, graph: Graph, tape: bool = False, training: bool = True) -> Executor:
        """The executor of a program, compiled on first use; with `tape`, it keeps the tape."""
        key = (graph, tape)
        if key not in self._executors:
            keep = self.programs[training].tape if tape else ()
            self._executors[key] = self.backend.executor(graph, keep)
        return self._executors[key]

    def context(self, batch: int) -> Context:
        """The context of a call at a batch size."""
        return Context(batch, self.dtype, self.device)

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
        values = self.executor(program)(self.context(len(x)), self.feed(traced, x))
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
        values = self.executor(program)(self.context(len(x)), self.feed(traced, x, y))
        return {name: values[node] for name, node in program.outputs.items()}

    def gradient(self, x: Tensor, y: Tensor) -> tuple[float, Tensor, dict[str, Tensor]]:
        """The value of h, its gradient, the batch's statistics; without a tape."""
        traced, program = self._traced[True], self.programs[True].linearize
        labels = self.check(traced, x, y)
        gradient, out = self.layout.target("gradient", program.outputs, self.params)
        values = self.executor(program)(self.context(len(x)), self.feed(traced, x, labels), out)
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

        def plan(graph: Graph, made: Sequence[Node]) -> Planned | None:
            return self.executor(graph, tape=graph is programs.linearize).plan(batch, made)

        two_products = self.backend.two_products
        return explain(programs, batch, self.dtype.itemsize, plan, kernels, two_products)

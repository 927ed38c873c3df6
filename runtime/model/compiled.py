"""What all calls on a compiled network share: parameters, programs, and what runs those.

`Model` adds what a user calls; `Linearization` needs no more than what is here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cached_property

import torch
from torch import Tensor

from ...compiler.curvature.blocks import DiagonalLayer, KroneckerLayer, blocks, faults
from ...compiler.graph.cost import flops, units
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.ir import Node
from ...compiler.graph.program import Input, Output, Program
from ...compiler.language.loss import Loss
from ...compiler.language.network import Layer, Traced, trace
from ...compiler.programs import Programs
from ...compiler.values import (
    Data,
    Direction,
    Ggnvp,
    Gradient,
    Hvp,
    Labels,
    ParameterValue,
    RunningValue,
)
from ..backend import Backend, Context, Executor, Expected
from ..rounding.losses import LossRounding
from ..vectors import inner_products
from .initialise import initialise
from .inputs import Demand, check_inputs, check_labels
from .layout import Layout

TRACKED = "num_batches_tracked"
OF_PARAMETER = ParameterValue, Direction  # inputs that lie like a parameter
BY_PARAMETER = Gradient, Hvp, Ggnvp  # outputs that do


class Compiled:
    """A network with its loss, on a backend.

    Attributes:
        net: the network's description.
        criterion: the loss.
        backend: where programs run.
        device: where parameters and data are.
        vectors: arithmetic on flat vectors.
        dtype: of parameters, data and results.
        weight_decay: λ of h, the mean loss plus λ/2 ‖θ‖².
        input_shape: the shape of one sample.
        programs: the network's programs by `training`, whether batch norm takes batch statistics.
        layout: where each parameter lies in a flat vector.
        params: all parameters, one flat tensor in the model's layout, to be changed in place.
        buffers: running statistics under PyTorch's names.
        loss_rounding: finds how far rounding may move a mean loss.
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
        self.device, self.vectors = backend.device, backend.vectors
        self.dtype, self.weight_decay, self.input_shape = dtype, weight_decay, input_shape
        self.programs = {
            training: Programs(trace(net, input_shape, criterion, training=training))
            for training in (True, False)
        }
        self._executors: dict[tuple[Program, bool], Executor] = {}
        self.loss_rounding = LossRounding(self.programs[True].losses)
        self._two_products: dict[int, bool] = {}
        traced = self.programs[True].traced
        self.layout = Layout(traced.parameters.values())
        self.params = self._first_values(traced, seed)
        self.buffers = self._first_statistics(traced)
        self._values = [ParameterValue(name) for name in traced.nodes]
        self._running = [RunningValue(name) for name in traced.running]

    def _first_values(self, traced: Traced, seed: int) -> Tensor:
        """All parameters as their rules of initialisation draw them."""
        params = torch.empty(self.layout.numel, dtype=self.dtype, device=self.device)
        generator = torch.Generator().manual_seed(seed)
        for name, view in self.layout.torch_views(params).items():
            initialise(traced.parameters[name], view, generator)
        return params

    def _first_statistics(self, traced: Traced) -> dict[str, Tensor]:
        """Running statistics before the first step, and how many steps have gone into them."""
        buffers = {
            name: torch.full(r.node.shape, r.start, dtype=self.dtype, device=self.device)
            for name, r in traced.running.items()
        }
        for layer in traced.momenta:
            zero = torch.zeros((), dtype=torch.int64, device=self.device)
            buffers[f"{layer}.{TRACKED}"] = zero
        return buffers

    @cached_property
    def blocks(self) -> list[KroneckerLayer | DiagonalLayer]:
        """The curvature blocks, one for each layer that has parameters.

        Raises:
            MissingRule: a layer has none.
        """
        return blocks(self.programs[True].traced)

    @cached_property
    def known_blocks(self) -> list[KroneckerLayer | DiagonalLayer]:
        """The curvature blocks of those layers that have one."""
        traced = self.programs[True].traced
        return blocks(traced, self.layout.layers.keys() - faults(traced).keys())

    def blocks_of(self, layers: Collection[str]) -> list[KroneckerLayer | DiagonalLayer]:
        """Returns the curvature blocks of those of these layers that have one."""
        return [block for block in self.known_blocks if block.owner in layers]

    def two_products(self, batch: int) -> bool:
        """Whether quadratic forms take two contractions a layer at a batch size, or three."""
        if batch not in self._two_products:
            graph = self.programs[True].evaluate.graph
            operations = flops(graph, batch) / max(1, units(graph))
            self._two_products[batch] = self.backend.two_products(operations)
        return self._two_products[batch]

    # --- running programs -----------------------------------------------------------------------

    def executor(self, program: Program, tape: bool = False, training: bool = True) -> Executor:
        """Returns what runs a program, compiled on first use.

        Args:
            program: one of `programs`.
            tape: whether it returns the tape besides its outputs.
            training: which of `programs` the tape is of.
        """
        key = (program, tape)
        if key not in self._executors:
            keep = self.programs[training].tape if tape else ()
            self._executors[key] = self.backend.executor(program.graph, keep)
        return self._executors[key]

    def context(self, batch: int) -> Context:
        """Returns the context of a call at a batch size."""
        return Context(batch, self.dtype, self.device)

    def feed(self, x: Tensor, y: Tensor | None = None) -> dict[Input, Tensor]:
        """Returns data, parameters and running statistics, as programs read them."""
        if len(self.input_shape) == 3:
            x = x.contiguous(memory_format=torch.channels_last)
        views = self.layout.views(self.params)
        feed: dict[Input, Tensor] = {key: views[key.parameter] for key in self._values}
        for key in self._running:
            feed[key] = self.buffers[key.statistic]
        feed[Data()] = x
        if y is not None:
            feed[Labels()] = y
        return feed

    def run(
        self,
        program: Program,
        batch: int,
        given: Mapping[Input, Tensor],
        tape: Mapping[Node, Tensor] | None = None,
        out: Mapping[Output, Tensor] | None = None,
    ) -> dict[Output, Tensor]:
        """Returns a program's outputs.

        Args:
            program: one of `programs`.
            batch: the batch size.
            given: its inputs; there may be more.
            tape: the values that it starts from, if any.
            out: memory that outputs are written to.
        """
        feed = program.feed(given)
        if tape is not None:
            feed.update(tape)
        named = {program.names[key]: tensor for key, tensor in out.items()} if out else None
        return program.results(self.executor(program)(self.context(batch), feed, named))

    def compile_ahead(self, programs: Iterable[Program], batch: int, training: bool = True) -> None:
        """Compiles programs that will be called one after another together.

        Args:
            programs: some of `programs`; `linearize` will keep its tape.
            batch: the batch size.
            training: which of `programs` they are of.
        """
        calls = [self._expected(program, training) for program in dict.fromkeys(programs)]
        self.backend.compile_ahead(self.context(batch), calls)

    def _expected(self, program: Program, training: bool) -> Expected:
        """A call of a program, on the tape if it starts from there."""
        views, inputs = self.layout.views(self.params), program.inputs.items()
        known, on_tape = self.programs[training], bool(program.graph.given)
        return Expected(
            self.executor(program, program is known.linearize, training),
            [*program.inputs.values(), *(known.tape if on_tape else ())],
            on_tape,
            {n: views[key.parameter] for key, n in inputs if isinstance(key, OF_PARAMETER)},
            {
                program.names[key]: views[key.parameter]
                for key in program.outputs
                if isinstance(key, BY_PARAMETER)
            },
        )

    def check(
        self, traced: Traced, x: Tensor, y: Tensor | None
    ) -> tuple[Tensor | None, list[Demand]]:
        """Returns labels as the loss takes them, and what the values of data and labels must be.

        Programs may run on data before it is known whether these demands are met; nothing that they
        give may be used.

        Raises:
            ShapeError: data or labels have another shape than the network's.
            NewtritonError: another dtype or device, or a batch of which batch norm cannot take
                statistics.
        """
        demands = check_inputs(traced, x, self.dtype, self.device)
        for name, running in traced.running.items():
            if traced.training and len(x) * running.positions == 1:
                raise NewtritonError(
                    f"{name}: one value per channel has no variance: give at least 2 samples"
                )
        if y is None:
            return None, demands
        labels, more = check_labels(traced, y, len(x), self.dtype, self.device)
        return labels, demands + more

    # --- weight decay ---------------------------------------------------------------------------

    def total(self, losses: Tensor) -> Tensor:
        """Returns h from per-sample losses: their mean plus λ/2 ‖θ‖², a scalar in float64."""
        mean = losses.double().mean()
        if not self.weight_decay:
            return mean
        return mean + 0.5 * self.weight_decay * inner_products([self.params])[0]

    def decay_(self, vector: Tensor, point: Tensor) -> Tensor:
        """Adds λ times `point` to a product or gradient of the data term, in place."""
        return vector.add_(point, alpha=self.weight_decay) if self.weight_decay else vector

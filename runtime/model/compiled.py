"""What all calls on a compiled network share: parameters, programs, and what runs those.

`Model` adds what a user calls; `Linearization` needs no more than what is here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...compiler.curvature.blocks import DiagonalLayer, KroneckerLayer, blocks, faults
from ...compiler.graph.cost import flops, units
from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.ir import per_sample, topological
from ...compiler.graph.options import check_flag, check_names
from ...compiler.graph.program import Input
from ...compiler.graph.verify import check_range
from ...compiler.language.loss import Loss
from ...compiler.language.network import Layer, Traced, trace
from ...compiler.language.trees import named
from ...compiler.parts import PartPrograms
from ...compiler.programs import Programs
from ...compiler.values import (
    Constant,
    Data,
    Labels,
    ParameterValue,
    RunningValue,
)
from ..backend import Backend
from ..forks import check_process
from ..inputs.data import Checked, check_batch
from ..inputs.dropout import DropoutNumbers
from ..inputs.initialise import first_statistics, first_values
from ..inputs.layout import Layout
from ..parallel.data_parallel import DataParallel
from ..parallel.dtensors import inputs_here
from ..parallel.ranks import Ranks
from ..remaking import Remade
from ..rounding.losses import LossRounding
from .runner import Runner


class Compiled(Remade):
    """A network with its loss, on a backend.

    Attributes:
        net: the network's description.
        criterion: the loss.
        backend: where programs run.
        device: where parameters and data are.
        vectors: arithmetic on flat vectors.
        dtype: of parameters, data and results.
        weight_decay: λ of h, the mean loss plus λ/2 ‖θ‖², θ being the parameters that are trained.
        input_shape: the shape of one sample, or what else the inputs were declared by.
        layout: where each parameter lies in a flat vector.
        params: all parameters, one flat tensor in the model's layout, to be changed in place.
        buffers: running statistics under PyTorch's names.
        dropout: the random numbers of what drops out in training.
        loss_rounding: finds how far rounding may move a mean loss.
        parallel: how several processes train the model; None where one does.
        ranks: these processes, or this one alone.
        agreed: whether they have found that they hold the same model.
        positions: how many outputs of a sample have a loss of their own.
        constants: what networks and losses hold besides, as programs read it.
        runner: what runs programs.
    """

    def __init__(
        self,
        net: Layer,
        input_shape: Any,
        criterion: Loss,
        backend: Backend,
        dtype: torch.dtype,
        weight_decay: float,
        seed: int,
        parallel: DataParallel | None = None,
    ) -> None:
        check_process(backend.device)
        self.parallel, self.agreed = parallel, False
        self.ranks = Ranks(None) if parallel is None else parallel.ranks
        self.net, self.criterion, self.backend = net, criterion, backend
        self.device, self.vectors = backend.device, backend.vectors
        self.dtype, self.weight_decay, self.input_shape = dtype, weight_decay, input_shape
        self._parts: dict[bool, PartPrograms] = {}
        self._two_products: dict[int, bool] = {}
        self._frozen: frozenset[str] | None = None  # it is for the layers to say
        traced = self.programs[True].traced
        check_range(topological([traced.loss, traced.z]), torch.finfo(dtype).max, dtype)
        self._frozen = frozenset(name for name, p in traced.parameters.items() if p.frozen)
        self.positions = per_sample(traced.z.shape[:1])
        self.loss_rounding = LossRounding(
            self.programs[True].losses,
            self.positions,
            traced.constants,
            self.criterion.classes(traced.rows),
        )
        self.layout = Layout(traced.parameters.values())
        self.params = first_values(self.layout, traced.parameters, seed, dtype, self.device)
        self.buffers = first_statistics(traced, dtype, self.device)
        self.runner = Runner(backend, dtype, self.ranks, self.layout, self.params)
        self.dropout = DropoutNumbers(traced.random, int(seed))
        self.constants: dict[Input, Tensor] = {}
        for name, values in (c for p in self.programs.values() for c in p.traced.constants.items()):
            kept = dtype if values.is_floating_point() else values.dtype
            self.constants[Constant(name)] = fitted = values.to(self.device, kept)
            if not torch.isfinite(fitted).all():
                raise NewtritonError(
                    f"a constant of the network or its loss is too large for {dtype}: give smaller "
                    "numbers, or dtype=torch.float64"
                )
        self._values = [ParameterValue(name) for name in traced.nodes]
        self._running = [RunningValue(name) for name in traced.running]

    @property
    def _part(self) -> str | None:
        """What sums over samples in the network go over, see `trace`; None for a whole batch's."""
        if self.parallel is None:
            return None
        return "own" if self.parallel.batch_norm == "rank" else "whole"

    @cached_property
    def programs(self) -> dict[bool, Programs]:
        """The network's programs by `training`: whether batch norm takes batch statistics."""
        return {training: Programs(self.traced(training, self._part)) for training in (True, False)}

    def traced(self, training: bool = True, part: str | None = None) -> Traced:
        """Returns the network's forward graph, see `trace`; on a batch by itself unless given."""
        with torch.device("cpu"):  # of constants, whatever the default is
            given = self.net, self.input_shape, self.criterion, training, self._frozen
            return trace(*given, part=part)

    def part_programs(self, training: bool = True) -> PartPrograms:
        """Returns the programs of parts of batches.

        Raises:
            NewtritonError: samples are mixed, so that there are none.
        """
        if training not in self._parts:
            self._parts[training] = PartPrograms(self.traced(training, "own"))
        return self._parts[training]

    def is_current(self, programs: Programs) -> bool:
        """Whether programs are those of the parameters that are trained now."""
        known = (*self.programs.values(), *self._parts.values())
        return any(programs is each for each in known)

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

    # --- copies ---------------------------------------------------------------------------------

    def _became(self) -> dict[str, Any]:
        """Returns copies of what has become of the model since it was compiled; see `Remade`."""
        return {
            "params": self.params.detach().clone(),
            "buffers": {name: values.clone() for name, values in self.buffers.items()},
            "dropout": self.dropout.state_dict(),
            "frozen": self.frozen,
            "weight_decay": self.weight_decay,
        }

    @torch.inference_mode(False)
    def _become(self, state: dict[str, Any]) -> None:
        """Takes over what `_became` gave; nothing of it is shared."""
        self.params.copy_(state["params"])
        for name, values in state["buffers"].items():
            self.buffers[name].copy_(values)
        self.dropout.load_state_dict(state["dropout"])
        self._hold(state["frozen"])
        self.weight_decay = state["weight_decay"]

    # --- what programs read ---------------------------------------------------------------------

    def standing(self) -> dict[Input, Tensor]:
        """Returns parameters, running statistics and constants, as programs read them."""
        views = self.layout.views(self.params)
        feed: dict[Input, Tensor] = {key: views[key.parameter] for key in self._values}
        for key in self._running:
            feed[key] = self.buffers[key.statistic]
        return feed | self.constants

    def feed(self, x: Any, y: Tensor | None = None) -> dict[Input, Tensor]:
        """Returns data and what stands beside them, as programs read them."""
        feed = self.standing()
        for name, values in named(x).items():
            images = values.dim() == 4
            feed[Data(name)] = (
                values.contiguous(memory_format=torch.channels_last) if images else values
            )
        if y is not None:
            feed[Labels()] = y
        return feed

    @cached_property
    def integers(self) -> frozenset[str]:
        """The names of the inputs that are integers."""
        leaves = self.programs[True].traced.inputs
        return frozenset(name for name, leaf in leaves.items() if leaf.type.kind == "int")

    def check(self, traced: Traced, x: Any, y: Tensor | None) -> Checked:
        """Returns a batch as programs read it, and what its values must be; see `check_batch`."""
        check_process(self.device)
        return check_batch(traced, inputs_here(x, self.parallel), y, self.dtype, self.device)

    def watched(self) -> Iterator[tuple[str, Tensor]]:
        """Yields what makes a linearization stale when it is changed in place."""
        yield "parameters", self.params

    # --- frozen parameters ----------------------------------------------------------------------

    @property
    def frozen(self) -> frozenset[str]:
        """The names of the parameters that stay as they are."""
        return self._frozen or frozenset()

    @cached_property
    def trained(self) -> list[slice]:
        """The parts of a flat vector that belong to parameters which are not frozen."""
        return self.layout.runs(self.programs[True].traced.trained)

    @property
    def layers(self) -> dict[str, list[str]]:
        """The names of the parameters that are not frozen, by layer, in the network's order."""
        layers = self.layout.layers.items()
        left = {layer: [n for n in names if n not in self.frozen] for layer, names in layers}
        return {layer: names for layer, names in left.items() if names}

    @cached_property
    def held(self) -> list[slice]:
        """The parts of a flat vector that belong to frozen parameters."""
        return self.layout.runs(self.frozen)

    def freeze(self, *names: str, frozen: bool = True) -> None:
        """Freezes parameters, or releases them: they keep their values, whatever steps are made.

        Gradient and products are zero there, there is no curvature and no weight decay.

        Args:
            names: names of parameters, or of layers, whose parameters are all meant.
            frozen: whether they are frozen or released.

        Raises:
            NewtritonError: there is no such parameter or layer.

        Examples:
            >>> import newtriton as nt
            >>> net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3))
            >>> model = nt.compile(net, (5,), nt.CrossEntropyLoss(), device="cpu")
            >>> model.freeze("0")
            >>> sorted(model.frozen)
            ['0.bias', '0.weight']
        """
        check_flag("frozen", frozen)
        meant = set[str]()
        for name in check_names("names", names):
            found = {p for p in self.layout.parameters if p == name or p.startswith(f"{name}.")}
            if not found:
                known = ", ".join(self.layout.parameters)
                raise NewtritonError(
                    f"freeze names {quoted(name)}: give parameters or layers, of {known}"
                )
            meant |= found
        self._hold(self.frozen | meant if frozen else self.frozen - meant)

    def _hold(self, names: frozenset[str]) -> None:
        """Makes the frozen parameters be these; programs are made again where they are others."""
        before, self._frozen = self._frozen, names
        if names != before:
            self.runner.forget()
            self._parts.clear()
            for name in ("programs", "blocks", "known_blocks", "trained", "held"):
                self.__dict__.pop(name, None)

    def check_trained(self, then: frozenset[str] | None = None) -> frozenset[str]:
        """Returns the names of the frozen parameters, which an optimizer keeps.

        Args:
            then: the names that were frozen when the optimizer was made.

        Raises:
            NewtritonError: others are frozen now, or all parameters are.
        """
        if then is not None and then != self.frozen:
            changed = ", ".join(sorted(then ^ self.frozen))
            raise NewtritonError(
                f"{changed}: frozen or released since this optimizer was made: make a new one"
            )
        if not self.trained:
            raise NewtritonError("all parameters are frozen: there is nothing to train")
        return self.frozen

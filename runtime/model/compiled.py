"""What all calls on a compiled network share: parameters, programs, and what runs those.

`Model` adds what a user calls; `Linearization` needs no more than what is here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...compiler.curvature.blocks import DiagonalLayer, KroneckerLayer, blocks, faults
from ...compiler.graph.cost import flops, units
from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.ir import Node, per_sample, topological
from ...compiler.graph.options import check_flag, check_names
from ...compiler.graph.program import Input, Output, Program
from ...compiler.graph.tensors import check_tensor
from ...compiler.graph.verify import check_range
from ...compiler.language.loss import Loss
from ...compiler.language.network import Layer, Traced, trace
from ...compiler.language.trees import count, mapped, named
from ...compiler.parts import PartPrograms
from ...compiler.programs import Programs
from ...compiler.values import (
    BatchStatistic,
    Constant,
    Counted,
    Data,
    Direction,
    Ggnvp,
    Gradient,
    Hvp,
    Labels,
    Losses,
    Normaliser,
    ParameterValue,
    RunningValue,
    Samples,
)
from .. import capacity
from ..backend import Backend, Context, Executor, Expected
from ..capacity import Item
from ..footprint import Footprint
from ..forks import check_process
from ..parallel.agreement import check_alike, digest
from ..parallel.data_parallel import DataParallel
from ..parallel.dtensors import own_part
from ..parallel.ranks import Ranks
from ..parallel.share import Share, refusing, share_of
from ..remaking import Remade
from ..rounding.losses import LossRounding
from ..vectors import inner_products
from .dropout import Drawn, DropoutNumbers
from .initialise import initialise
from .inputs import Demand, check_inputs, check_labels
from .layout import Layout

AMPLE = 32  # times all values of a program: no operator takes so much
TRACKED = "num_batches_tracked"
OF_PARAMETER = ParameterValue, Direction  # inputs that lie like a parameter
BY_PARAMETER = Gradient, Hvp, Ggnvp  # outputs that do


class Checked(NamedTuple):
    """A batch whose shapes, dtypes and devices are right.

    Attributes:
        inputs: the inputs by name, as programs read them.
        labels: the labels as the loss takes them; None where none are given.
        demands: what the values must be besides.
        batch: the number of samples.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | None
    demands: list[Demand]
    batch: int


class Watch:
    """Notes tensors on which a linearization rests, and finds those that have changed since.

    Args:
        tensors: the tensors with what they are.
    """

    def __init__(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        # Tensors of inference mode do not tell when they change.
        self._seen = [(name, t, t._version) for name, t in tensors if not t.is_inference()]

    def changed(self) -> list[str]:
        """Returns what has changed in place."""
        return [name for name, tensor, version in self._seen if tensor._version != version]


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
        self.parallel, self._agreed = parallel, False
        self.ranks = Ranks(None) if parallel is None else parallel.ranks
        self.net, self.criterion, self.backend = net, criterion, backend
        self.device, self.vectors = backend.device, backend.vectors
        self.dtype, self.weight_decay, self.input_shape = dtype, weight_decay, input_shape
        self._executors: dict[tuple[Program, bool], Executor] = {}
        self._parts: dict[bool, PartPrograms] = {}
        self._two_products: dict[int, bool] = {}
        self._fitting = set[tuple[Program, bool, int]]()  # what has been found to fit
        self._frozen: frozenset[str] | None = None  # it is for the layers to say
        traced = self.programs[True].traced
        self._check_range(topological([traced.loss, traced.z]))
        self._frozen = frozenset(name for name, p in traced.parameters.items() if p.frozen)
        self._positions = per_sample(traced.z.shape[:1])
        self.loss_rounding = LossRounding(
            self.programs[True].losses,
            self._positions,
            traced.constants,
            self.criterion.classes(traced.rows),
        )
        self.layout = Layout(traced.parameters.values())
        self.params = self._first_values(traced, seed)
        self.buffers = self._first_statistics(traced)
        self.dropout = DropoutNumbers(traced.random, int(seed))
        self._constants: dict[Input, Tensor] = {}
        for name, values in (c for p in self.programs.values() for c in p.traced.constants.items()):
            kept = dtype if values.is_floating_point() else values.dtype
            self._constants[Constant(name)] = fitted = values.to(self.device, kept)
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

    def _first_values(self, traced: Traced, seed: int) -> Tensor:
        """All parameters as their rules of initialisation draw them."""
        params = torch.empty(self.layout.numel, dtype=self.dtype, device=self.device)
        generator = torch.Generator("cpu").manual_seed(seed)
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
            self._check_range(program.graph.nodes())
            keep = self.programs[training].tape if tape else ()
            self._executors[key] = self.backend.executor(program.graph, keep)
        return self._executors[key]

    def _check_range(self, nodes: Iterable[Node]) -> None:
        """Raises an error where the model's dtype does not hold the numbers in a graph."""
        check_range(nodes, torch.finfo(self.dtype).max, self.dtype)

    def context(self, batch: int, share: Share | None = None) -> Context:
        """Returns the context of a call at a batch size, or on a share of a batch.

        Raises:
            NewtritonError: this process cannot use the model's device.
        """
        check_process(self.device)
        ranks = self.ranks if share is None else share.ranks
        return Context(batch, self.dtype, self.device, ranks.all_sum)

    # --- the memory that they take --------------------------------------------------------------

    def footprints(
        self, programs: Iterable[Program], batch: int, training: bool = True
    ) -> dict[Program, Callable[[int], Footprint]]:
        """Returns what counts the bytes that programs take which are called one after another.

        Parameters, data and what a program finds on the tape are not counted.

        Args:
            programs: some of `programs`; `linearize` will keep its tape.
            batch: the batch size for which kernels are planned; it is counted at any.
            training: which of `programs` they are of.
        """
        found, made = dict[Program, Callable[[int], Footprint]](), list[Node]()
        for program in dict.fromkeys(programs):
            call = self._expected(program, training)
            given = [*call.given, *made] if call.on_tape else call.given
            found[program] = partial(self._footprint, program, call.executor, given)
            if (plan := call.executor.plan(batch, given)) is not None:
                made += plan.made
        return found

    def _footprint(
        self, program: Program, executor: Executor, given: Collection[Node], batch: int
    ) -> Footprint:
        """The bytes that a program takes, with what data are copied to."""
        peak, kept = executor.footprint(self.context(batch), given)
        images = (n for key, n in program.inputs.items() if isinstance(key, Data))
        copies = sum(n.type.numel(batch) for n in images if len(n.shape) == 4) * self.dtype.itemsize
        if program.graph.given:  # the linearization has made them
            return Footprint(peak, kept)
        kept += copies if any(isinstance(key, Gradient) for key in program.outputs) else 0
        return Footprint(peak + copies, kept)

    def plenty(self, programs: Iterable[Program], batch: int, more: int = 0) -> bool:
        """Whether so much is free that nothing is counted: many times what all values take.

        Args:
            programs: some of `programs`.
            batch: the batch size.
            more: numbers that are held besides.
        """
        sizes = (n.type.numel(batch) for p in programs for n in p.graph.nodes())
        available = capacity.free(self.device)
        return available is None or AMPLE * self.dtype.itemsize * (more + sum(sizes)) < available

    def fit(
        self, program: Program, batch: int, given: Collection[Node], tape: bool = False,
        training: bool = True,
    ) -> None:  # fmt: skip
        """Checks, once, that a program's values fit into the memory that is free.

        Args:
            program: one of `programs`.
            batch: the batch size.
            given: the nodes that will be fed.
            tape: whether the tape is kept.
            training: which of `programs` the tape is of.

        Raises:
            NewtritonError: they do not; the error says how many samples fit.
        """
        if (program, tape, batch) in self._fitting:
            return
        if not self.plenty([program], batch):
            executor = self.executor(program, tape, training)

            def need(n: int) -> list[Item]:
                return [Item("values", self._footprint(program, executor, given, n).peak)]

            capacity.check(program.name, need, batch, self.device)
        self._fitting.add((program, tape, batch))

    def note_fitting(self, programs: Iterable[Program], batch: int) -> None:
        """Notes that programs have been found to fit together, with a tape or without."""
        self._fitting.update(
            (program, tape, batch) for program in programs for tape in (False, True)
        )

    def standing(self) -> dict[Input, Tensor]:
        """Returns parameters, running statistics and constants, as programs read them."""
        views = self.layout.views(self.params)
        feed: dict[Input, Tensor] = {key: views[key.parameter] for key in self._values}
        for key in self._running:
            feed[key] = self.buffers[key.statistic]
        return feed | self._constants

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

    def run(
        self,
        program: Program,
        batch: int,
        given: Mapping[Input, Tensor],
        tape: Mapping[Node, Tensor] | None = None,
        out: Mapping[Output, Tensor] | None = None,
        share: Share | None = None,
    ) -> dict[Output, Tensor]:
        """Returns a program's outputs.

        Args:
            program: one of `programs`.
            batch: the batch size.
            given: its inputs; there may be more.
            tape: the values that it starts from, if any.
            out: memory that outputs are written to.
            share: the share of the batch that a rank has, where ranks do.
        """
        feed = program.feed(given)
        if tape is not None:
            feed.update(tape)
        places = {program.names[key]: tensor for key, tensor in out.items()} if out else None
        with self.ranks.told():
            self.fit(program, batch, feed.keys())
            return program.results(self.executor(program)(self.context(batch, share), feed, places))

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

    def check(self, traced: Traced, x: Any, y: Tensor | None) -> Checked:
        """Returns a batch as programs read it, and what its values must be.

        Programs may run on data before it is known whether these demands are met; nothing that they
        give may be used.

        Raises:
            ShapeError: data or labels have another shape than the network's.
            NewtritonError: another dtype or device, or a batch of which batch norm cannot take
                statistics.
        """
        check_process(self.device)
        empty, x = traced.part is not None, self._inputs_here(x)
        inputs, demands = check_inputs(traced, x, self.dtype, self.device, empty)
        batch = len(next(iter(inputs.values())))
        if traced.part is None:
            self._check_statistics(traced, None, batch)
        if y is None:
            return Checked(inputs, None, demands, batch)
        labels, more = check_labels(traced, y, batch, self.dtype, self.device)
        return Checked(inputs, labels, demands + more, batch)

    def _inputs_here(self, x: Any) -> Any:
        """Returns inputs, of DTensors this rank's parts."""
        return mapped(lambda values: own_part("inputs", values, self.parallel), x)

    def labels_here(self, y: Any) -> Tensor:
        """Returns labels, of a DTensor this rank's part; raises an error where y is no tensor."""
        return check_tensor("labels", own_part("labels", y, self.parallel))

    def check_labelled(self, traced: Traced, x: Any, y: Tensor | None) -> Checked:
        """Returns a batch that has labels; see `check`."""
        return self.check(traced, x, self.labels_here(y))

    def shared(
        self,
        traced: Traced,
        x: Any,
        y: Tensor | None,
        labelled: bool = False,
        fits: Callable[[int], object] = lambda batch: None,
    ) -> tuple[Checked, Share | None, dict[Input, Tensor]]:
        """Returns what `check` does, this rank's share of the batch, and what that gives programs.

        The share is None where the model is no data-parallel one. A batch that must be `labelled`
        is refused without labels. `fits` is called with the batch size that programs will have, and
        raises an error where they do not fit into memory.

        Raises:
            NewtritonError: as `check` or `fits` raises it, or another rank has refused its part.
        """
        check = self.check_labelled if labelled else self.check
        if self.parallel is None:
            checked = check(traced, x, y)
            fits(checked.batch)
            return checked, None, {}
        self._agree()
        with refusing(self.ranks, self.device):
            checked = check(traced, x, y)
            labels, batch = checked.labels, checked.batch
            counted = float(batch * self._positions)
            if batch and labels is not None:
                counted = self.counted(labels, batch)
            fits(max(1, batch))
        share = share_of(self.ranks, batch, counted, self.device)
        self._check_statistics(traced, share)
        numbers = {Samples(): float(share.samples), Normaliser(): share.normaliser}
        like = self.params
        checked = checked if batch else _one_sample(checked)
        return checked, share, {k: like.new_full((), number) for k, number in numbers.items()}

    def _agree(self) -> None:
        """Compares ranks, once, before they first talk of a batch.

        Raises:
            NewtritonError: they have other versions, networks, options or parameters.
        """
        if self._agreed:
            return
        state = [self.params, *self.buffers.values()]
        options = self.weight_decay, self.dtype, self.dropout.state_dict(), sorted(self.frozen)
        assert self.parallel is not None
        sums = self.parallel.batch_norm, self.parallel.factors, self.parallel.bucket
        where = type(self.backend).__name__, self.backend.precision, *sums
        values = [x.detach().cpu().contiguous().numpy().tobytes() for x in state]
        facts = {
            "version of newtriton or PyTorch": digest(version("newtriton"), torch.__version__),
            "network": digest(str(self.programs[True].linearize)),
            "loss or option": digest(repr(self.criterion), repr(options), repr(where)),
            "state of the parameters": digest(*values),
        }
        check_alike(self.ranks, facts)
        self._agreed = True

    def _check_statistics(self, traced: Traced, share: Share | None, batch: int = 0) -> None:
        """Raises an error where batch norm cannot take statistics of a batch."""
        count = batch
        if share is not None:
            count = share.samples if traced.part == "whole" else share.least
        for name, running in traced.running.items():
            if traced.training and count * running.positions == 1:
                raise NewtritonError(
                    f"{name}: one value per channel has no variance: give at least 2 samples"
                )

    def of_ranks(self, programs: Programs) -> bool:
        """Whether batch statistics are those of each rank's part of a batch."""
        return programs.traced.part == "own"

    def batch_statistics(
        self, programs: Programs, found: Mapping[Output, Tensor], share: Share | None
    ) -> dict[str, Tensor]:
        """Returns a batch's statistics; those of a rank's part times its share of the samples."""
        given = {k.statistic: x for k, x in found.items() if isinstance(k, BatchStatistic)}
        if share is None or not self.of_ranks(programs):
            return given
        return {name: x * share.weight for name, x in given.items()}

    def drawn(self, share: Share | None) -> Drawn:
        """Returns which random numbers a batch, or a share of it, has now."""
        return self.dropout.now if share is None else self.dropout.now.behind(share.first)

    def watched(self) -> Iterator[tuple[str, Tensor]]:
        """Yields what makes a linearization stale when it is changed in place."""
        yield "parameters", self.params

    # --- frozen parameters ----------------------------------------------------------------------

    @cached_property
    def integers(self) -> frozenset[str]:
        """The names of the inputs that are integers."""
        leaves = self.programs[True].traced.inputs
        return frozenset(name for name, leaf in leaves.items() if leaf.type.kind == "int")

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
            self._executors.clear()
            self._parts.clear()
            self._fitting.clear()
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

    # --- h --------------------------------------------------------------------------------------

    def count(self, y: Tensor) -> float | Tensor:
        """Returns what weighs a batch in a mean of h over batches, by its labels.

        It is what the sum of its losses is divided by: a scalar on the model's device where labels
        decide that, or where ranks have parts of the batch.
        """
        programs, y = self.programs[True], self.labels_here(y)
        counted: float | Tensor = 0.0
        if len(y):
            labels, _ = check_labels(programs.traced, y, len(y), self.dtype, self.device)
            counted = self.counted(labels, len(y))
        if self.parallel is None:
            return counted
        number = torch.zeros((), dtype=torch.float64, device=self.device).add_(counted)
        return self.ranks.all_sum(number)

    def samples(self, x: Any) -> int:
        """Returns how many samples a batch has, with those that other ranks have."""
        here = count(self._inputs_here(x))
        if self.parallel is None:
            return here
        return int(self.ranks.all_sum(torch.tensor(here, device=self.device)))

    def counted(self, labels: Tensor, batch: int) -> float | Tensor:
        """Returns what labels that have been checked count here."""
        programs = self.programs[True]
        if not programs.counted.outputs:
            return float(batch * self._positions)
        given = {**self._constants, Labels(): labels}
        return self.run(programs.counted, batch, given)[Counted()].double()

    def counts(self, y: Tensor) -> Tensor:
        """Returns which int labels count."""
        ignored = self.criterion.ignored(self.programs[True].traced.z)
        return torch.ones_like(y, dtype=torch.bool) if ignored is None else y != ignored

    def total(self, losses: Tensor, counted: Tensor | None = None) -> Tensor:
        """Returns h, a scalar in float64: the mean of the losses plus λ/2 ‖θ‖².

        Args:
            losses: those of the samples.
            counted: what their sum is divided by, where labels decide that.
        """
        if counted is not None:
            mean = losses.double().sum() / counted.double()
        else:
            mean = losses.double().mean()
            mean = mean if self._positions == 1 else mean / self._positions
        return self._with_decay(mean)

    def _with_decay(self, mean: Tensor) -> Tensor:
        """Returns a mean loss plus λ/2 ‖θ‖²."""
        if not self.weight_decay:
            return mean
        squares = [inner_products([self.params[run]])[0] for run in self.trained]
        return mean + 0.5 * self.weight_decay * sum(squares)

    def measured(self, found: Mapping[Output, Tensor]) -> tuple[list[Demand], list[Tensor]]:
        """Returns what must be of the labels that count, and h with what divides its losses.

        The latter is left out where no label has a say in it.
        """
        counted = found.get(Counted())
        total = self.total(found[Losses()], counted)
        if counted is None:
            return [], [total]
        sentence = (
            f"no label of the batch counts for {quoted(self.criterion)}: leave out batches in "
            "which all labels are ignored or of classes of weight 0"
        )
        return [Demand(~(counted > 0.0), lambda: sentence)], [total, counted]

    def summed(
        self,
        found: Mapping[Output, Tensor],
        demands: Sequence[Demand],
        share: Share | None,
        *flat: Tensor,
    ) -> tuple[list[Demand], list[Tensor]]:
        """Returns all demands, and h as `measured` does, of the batch of which ranks have parts.

        Args:
            found: the results of a program.
            demands: what the values of this rank's part must be.
            share: this rank's share of the batch; None for all of it.
            flat: what is summed over ranks besides, in place.
        """
        if share is None:
            broken, numbers = self.measured(found)
            return [*demands, *broken], numbers
        flags = [demand.broken.reshape(1).double() for demand in demands]
        numbers = torch.cat([found[Losses()].double().sum().reshape(1), *flags])
        share.ranks.sum_(*flat, numbers)
        total = self._with_decay(numbers[0] / share.normaliser)
        everywhere = zip(demands, numbers[1:], strict=True)
        return [_of_all(demand, flag > 0.0) for demand, flag in everywhere], [total]

    def decay_(self, vector: Tensor, point: Tensor) -> Tensor:
        """Adds λ times `point` to a product or gradient of the data term, in place.

        Frozen parameters have no part in it.
        """
        for run in self.trained if self.weight_decay else ():
            vector[run].add_(point[run], alpha=self.weight_decay)
        return vector


def _of_all(demand: Demand, broken: Tensor) -> Demand:
    """Returns the demand that no rank's values break a demand."""

    def sentence() -> str:
        own = bool(demand.broken)
        return demand.sentence() if own else "another rank's part of the batch: its error says why"

    return Demand(broken, sentence)


def _one_sample(empty: Checked) -> Checked:
    """Returns a batch of one sample that does not count, where there is none."""

    def zeros(values: Tensor) -> Tensor:
        return values.new_zeros(1, *values.shape[1:])

    inputs = {name: zeros(values) for name, values in empty.inputs.items()}
    labels = None if empty.labels is None else zeros(empty.labels)
    return Checked(inputs, labels, empty.demands, 1)

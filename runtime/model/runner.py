"""What runs a model's programs, and what they take in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

from ...compiler.graph.ir import Node
from ...compiler.graph.program import Input, Output, Program
from ...compiler.graph.verify import check_range
from ...compiler.programs import Programs
from ...compiler.values import Data, Direction, Ggnvp, Gradient, Hvp, ParameterValue
from .. import capacity
from ..backend import Backend, Context, Executor, Expected
from ..capacity import Item
from ..footprint import Footprint
from ..forks import check_process
from ..inputs.layout import Layout
from ..parallel.ranks import Ranks
from ..parallel.share import Share

AMPLE = 32  # times all values of a program: no operator takes so much
OF_PARAMETER = ParameterValue, Direction  # inputs that lie like a parameter
BY_PARAMETER = Gradient, Hvp, Ggnvp  # outputs that do
NOTHING = frozenset[Node]()


class Runner:
    """Runs programs on a backend; each is compiled on first use, and refused where it cannot fit.

    Args:
        backend: where programs run.
        dtype: of data and results.
        ranks: those that run the same programs.
        layout: where each parameter lies in a flat vector.
        params: such a vector.
    """

    def __init__(
        self, backend: Backend, dtype: torch.dtype, ranks: Ranks, layout: Layout, params: Tensor
    ) -> None:
        self.backend, self.dtype, self.device = backend, dtype, backend.device
        self.ranks, self.layout, self.params = ranks, layout, params
        self._executors: dict[tuple[Program, frozenset[Node]], Executor] = {}
        self._fitting = set[tuple[Program, bool, int]]()  # what has been found to fit

    def forget(self) -> None:
        """Drops what was made of programs that are made again."""
        self._executors.clear()
        self._fitting.clear()

    def executor(self, program: Program, keep: frozenset[Node] = NOTHING) -> Executor:
        """Returns what runs a program, compiled on first use.

        Args:
            program: the program.
            keep: the tape, where it is returned besides the outputs.
        """
        key = program, keep
        if key not in self._executors:
            check_range(program.graph.nodes(), torch.finfo(self.dtype).max, self.dtype)
            self._executors[key] = self.backend.executor(program.graph, keep)
        return self._executors[key]

    def context(self, batch: int, share: Share | None = None) -> Context:
        """Returns the context of a call at a batch size, or on a share of a batch.

        Raises:
            NewtritonError: this process cannot use the model's device.
        """
        check_process(self.device)
        ranks = self.ranks if share is None else share.ranks
        return Context(batch, self.dtype, self.device, ranks.all_sum)

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
            program: the program.
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

    # --- before they run ------------------------------------------------------------------------

    def compile_ahead(self, known: Programs, programs: Iterable[Program], batch: int) -> None:
        """Compiles programs that will be called one after another together.

        Args:
            known: all programs of the network; its linearization will keep its tape.
            programs: some of them.
            batch: the batch size.
        """
        calls = [self._expected(known, program) for program in dict.fromkeys(programs)]
        self.backend.compile_ahead(self.context(batch), calls)

    def _expected(self, known: Programs, program: Program) -> Expected:
        """A call of a program, on the tape if it starts from there."""
        views, inputs = self.layout.views(self.params), program.inputs.items()
        on_tape = bool(program.graph.given)
        return Expected(
            self.executor(program, known.tape if program is known.linearize else NOTHING),
            [*program.inputs.values(), *(known.tape if on_tape else ())],
            on_tape,
            {n: views[key.parameter] for key, n in inputs if isinstance(key, OF_PARAMETER)},
            {
                program.names[key]: views[key.parameter]
                for key in program.outputs
                if isinstance(key, BY_PARAMETER)
            },
        )

    # --- the memory that they take --------------------------------------------------------------

    def footprints(
        self, known: Programs, programs: Iterable[Program], batch: int
    ) -> dict[Program, Callable[[int], Footprint]]:
        """Returns what counts the bytes that programs take which are called one after another.

        Parameters, data and what a program finds on the tape are not counted.

        Args:
            known: all programs of the network; its linearization will keep its tape.
            programs: some of them.
            batch: the batch size for which kernels are planned; it is counted at any.
        """
        found, made = dict[Program, Callable[[int], Footprint]](), list[Node]()
        for program in dict.fromkeys(programs):
            call = self._expected(known, program)
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
            programs: the programs.
            batch: the batch size.
            more: numbers that are held besides.
        """
        sizes = (n.type.numel(batch) for p in programs for n in p.graph.nodes())
        available = capacity.free(self.device)
        return available is None or AMPLE * self.dtype.itemsize * (more + sum(sizes)) < available

    def fit(
        self,
        program: Program,
        batch: int,
        given: Collection[Node],
        keep: frozenset[Node] = NOTHING,
    ) -> None:
        """Checks, once, that a program's values fit into the memory that is free.

        Args:
            program: the program.
            batch: the batch size.
            given: the nodes that will be fed.
            keep: the tape, where it is returned besides the outputs.

        Raises:
            NewtritonError: they do not; the error says how many samples fit.
        """
        if (program, bool(keep), batch) in self._fitting:
            return
        if not self.plenty([program], batch):
            executor = self.executor(program, keep)

            def need(n: int) -> list[Item]:
                return [Item("values", self._footprint(program, executor, given, n).peak)]

            capacity.check(program.name, need, batch, self.device)
        self._fitting.add((program, bool(keep), batch))

    def note_fitting(self, programs: Iterable[Program], batch: int) -> None:
        """Notes that programs have been found to fit together, with a tape or without."""
        self._fitting.update(
            (program, tape, batch) for program in programs for tape in (False, True)
        )

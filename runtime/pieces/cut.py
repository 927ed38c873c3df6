"""A batch that is cut in pieces, and programs that run on one piece after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ...compiler.graph.ir import Node, batch_axis
from ...compiler.graph.program import Input, Output, Program
from ...compiler.values import Counted, Losses, Normaliser, RandomNumbers, Samples
from ..inputs.data import Demand
from ..model.linearization import columns_of
from ..model.model import Model
from ..model.objective import counted, summed
from ..model.sharing import dropout_now, shared
from ..model.wanted import GRAMS


class CutBatch:
    """A batch in pieces of a size, the last of which may be smaller.

    Programs of parts divide by the numbers of the whole batch, so that what they give is added up;
    what has a row for each sample is put together again. Elements drop out as they do where the
    batch is whole, whichever way it is cut.

    Args:
        model: the model.
        x: the inputs.
        y: the labels.
        size: how many samples a piece has.
        training: whether elements drop out.
        draw: whether others drop out than in the last batch.
        fits: raises an error where pieces do not fit into memory.
        order: see `Model.linearize`.

    Attributes:
        model: the model.
        programs: the programs of parts.
        labels: the labels, as the loss takes them.
        here: the number of samples that are cut.
        share: which share of a batch they are, where other ranks have the others.
        batch: the number of samples of the whole batch.
        count: what the sum of their losses is divided by; on the device where labels decide that.
        demands: what the values of inputs and labels must be.
        passes: how often all pieces have been gone through.

    Raises:
        NewtritonError: inputs or labels do not fit the model, or samples are mixed.
    """

    def __init__(
        self,
        model: Model,
        x: Any,
        y: Tensor,
        size: int,
        training: bool = True,
        draw: bool = False,
        fits: Callable[[], object] = lambda: None,
        order: Tensor | None = None,
    ) -> None:
        self.model, self.programs, self.size = model, model.part_programs(training), size
        traced = model.programs[training].traced
        given = traced, x, y, True, lambda batch: fits(), order
        checked, self.share, self.numbers = shared(model, *given)
        assert checked.labels is not None
        self._inputs, self.labels = checked.inputs, checked.labels
        self.demands, self.here, self.passes = checked.demands, checked.batch, 0
        if self.share is None:
            self.batch, self.count = self.here, counted(model, self.labels, self.here)
            self.numbers |= {Samples(): self._scalar(self.batch)}
            self.numbers |= {Normaliser(): self._scalar(self.count)}
        else:
            self.batch, self.count = self.share.samples, self.share.normaliser
        if draw:
            model.dropout.draw()
        self._drawn = dropout_now(model, self.share)

    @property
    def is_cut(self) -> bool:
        """Whether there are several pieces."""
        return self.here > self.size

    def _scalar(self, number: float | Tensor) -> Tensor:
        """Returns a number as programs read it."""
        if isinstance(number, Tensor):
            return number.to(self.model.dtype)
        return torch.full((), number, dtype=self.model.dtype, device=self.model.device)

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yields of each piece where it begins, and how many samples it has."""
        self.passes += 1
        for start in range(0, self.here, self.size):
            yield start, min(self.size, self.here - start)

    def run(
        self,
        program: Program,
        given: Mapping[Input, Tensor] | None = None,
        out: Mapping[Output, Tensor] | None = None,
    ) -> dict[Output, Tensor]:
        """Returns a program's outputs on the whole batch: sums, and rows of all samples.

        Args:
            program: one of `programs`.
            given: its inputs besides the batch's, of the whole batch.
            out: memory that outputs are written to.
        """
        out = out or {}
        total, spare = _Total(program, out), dict[Output, Tensor]()
        if self.is_cut:
            spare = {key: torch.empty_like(x) for key, x in out.items()}
        for start, count in self.pieces():  # no piece's results outlive its turn
            total.add(self.run_on(program, start, count, given, spare if start else out))
        sums, rows = total.sums, total.joined()
        if self.share is not None:
            symmetric = [key for key in sums if program.outputs[key].op in GRAMS]
            flat = [x for key, x in sums.items() if key not in symmetric]
            self.share.ranks.sum_(*flat, symmetric=[sums[key] for key in symmetric])
            if not self.share.here:  # what stands in for samples does not count
                rows = {key: x.narrow(total.axes[key] or 0, 0, 0) for key, x in rows.items()}
        return sums | rows

    def run_on(
        self,
        program: Program,
        start: int,
        count: int,
        given: Mapping[Input, Tensor] | None = None,
        out: Mapping[Output, Tensor] | None = None,
    ) -> dict[Output, Tensor]:
        """Returns a program's outputs on the piece that begins at a sample, see `run`."""
        model, leaves = self.model, program.inputs
        inputs = {name: x.narrow(0, start, count) for name, x in self._inputs.items()}
        labels = _rows(self.programs.traced.y, self.labels, start, count)
        feed = model.feed(inputs, labels) | self.numbers
        feed |= columns_of(program, count, model.device)
        if any(isinstance(key, RandomNumbers) for key in leaves):
            feed |= model.dropout(model.runner.context(count), self._drawn.at(start, count))
        feed |= {
            key: _rows(leaves[key], x, start, count)
            for key, x in (given or {}).items()
            if key in leaves
        }
        return model.runner.run(program, count, feed, out=out)

    def measured(self, losses: Tensor) -> tuple[list[Demand], list[Tensor]]:
        """Returns all that values must be, and h, see `summed`."""
        given = {Counted(): self.count} if isinstance(self.count, Tensor) else {}
        return summed(self.model, {Losses(): losses, **given}, self.demands, self.share)


class _Total:
    """What a program gives on the pieces so far.

    Args:
        program: the program.
        out: where sums lie that the first piece has written there.

    Attributes:
        axes: of each output the axis of its samples; None where it is a sum.
        sums: the sums so far.
    """

    def __init__(self, program: Program, out: Mapping[Output, Tensor]) -> None:
        self.axes = {key: batch_axis(node.shape) for key, node in program.outputs.items()}
        self.sums: dict[Output, Tensor] = {}
        self._out, self._rows = out, dict[Output, list[Tensor]]()

    def add(self, part: Mapping[Output, Tensor]) -> None:
        """Takes in what a piece gives."""
        for key, x in part.items():
            if self.axes[key] is not None:
                self._rows.setdefault(key, []).append(x)
            elif key in self.sums:
                self.sums[key].add_(x)
            else:
                self.sums[key] = self._out[key] if key in self._out else x.clone()

    def joined(self) -> dict[Output, Tensor]:
        """Returns the rows of all samples."""
        return {key: torch.cat(xs, self.axes[key] or 0) for key, xs in self._rows.items()}


def _rows(leaf: Node, x: Tensor, start: int, count: int) -> Tensor:
    """Returns the part of a leaf's value that some samples have; all of one without samples."""
    axis = batch_axis(leaf.shape)
    if axis is None:
        return x
    times = leaf.shape[axis].times
    return x.narrow(axis, start * times, count * times)

"""How far rounding moves the mean loss of given outputs.

A loss forgets what it was computed from: log Σ e^z − z_y of a class that is certain is 0 or 1e-7,
never 1e-9, and (z − y)² at z ≈ y is all rounding of z. No share of the loss itself tells this.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from ...compiler.graph.ir import concrete, per_sample
from ...compiler.graph.program import Input, Program
from ...compiler.values import Constant, Counted, GivenOutputs, Labels, Losses
from ..aten.executor import AtenExecutor
from ..backend import Context
from .bounds import Arithmetic, bounded


class LossRounding:
    """Finds how far rounding may move the mean loss.

    That is the bound of the losses' own arithmetic, and what outputs that are moved by their error
    make of them. That error is taken to be the largest output's everywhere, which is as large as
    the terms whose sum an output is; its signs are all but random.

    Args:
        program: the losses of given outputs, `Programs.losses`.
        positions: by what the sum of a sample's losses is divided where labels do not decide that.
        constants: the constant tensors of the network, by name.
        classes: how many int labels there are.

    Attributes:
        scale: what is a large loss: the largest one where outputs and labels are 0 or 1.
    """

    def __init__(
        self,
        program: Program,
        positions: int = 1,
        constants: Mapping[str, Tensor] = MappingProxyType({}),
        classes: int = 2,
    ) -> None:
        self.program, self.executor = program, AtenExecutor(program.graph)
        self.positions = positions
        fixed: dict[Input, Tensor] = {Constant(n): values for n, values in constants.items()}
        self._constants = {leaf: fixed[key] for key, leaf in program.inputs.items() if key in fixed}
        self.scale = self._scale(classes)

    def _scale(self, classes: int) -> float:
        """Returns the largest of the losses at outputs and labels of 0 and 1, on the host."""
        z, y = self.program.inputs[GivenOutputs()], self.program.inputs[Labels()]
        ends = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64, device="cpu")
        outputs, labels = (
            part.expand(4, per_sample(node.shape)).reshape(concrete(node.shape, 4))
            for part, node in ((ends[:, None], z), (ends[[0, 2, 0, 2], None], y))
        )
        given = {
            z: outputs,
            y: labels.long().clamp_(max=classes - 1) if y.type.kind == "int" else labels,
        }
        found = self.executor(Context(4, torch.float64, ends.device), given | self._constants)
        results = self.program.results(found)
        counted = float(results.get(Counted(), 4.0 * self.positions))
        return float(results[Losses()].abs().max()) * 4.0 / counted if counted else 0.0

    def __call__(self, z: Tensor, y: Tensor, size: int | None = None) -> Tensor:
        """Returns a scalar in float64, infinite or NaN where a loss has overflowed.

        Args:
            z: the outputs.
            y: the labels, as the loss takes them.
            size: how many samples are looked at together; None for all.
        """
        batch, rows, outputs = len(z), len(y) // len(z), z.numel() // len(z)
        size, moved = size or batch, torch.finfo(z.dtype).eps * z.abs().max().double()
        found = list[tuple[Tensor, float | Tensor]]()
        for start in range(0, batch, size):
            some = z[start : start + size]
            labels = y[start * rows : (start + size) * rows]
            places = torch.arange(some.numel(), device=z.device) + start * outputs
            signs = places.double().cos().sign().view_as(some)
            found.append(self._errors(some, labels, moved * signs))
        errors = torch.stack([each for each, _ in found]).sum()
        return errors / sum(counted for _, counted in found)

    def _errors(self, z: Tensor, y: Tensor, moved: Tensor) -> tuple[Tensor, float | Tensor]:
        """Returns the sum of the losses' errors where outputs are moved, and what divides it."""
        unit, losses = torch.finfo(z.dtype).eps, self.program.outputs[Losses()]
        arithmetic = Arithmetic(Context(len(z), torch.float64, z.device), unit)
        exact, labels = z.double(), y.double() if y.is_floating_point() else y
        given: dict[Input, Tensor] = {GivenOutputs(): exact, Labels(): labels}
        feed = {n: given[key] for key, n in self.program.inputs.items() if key in given}
        feed |= {leaf: values.to(z.device) for leaf, values in self._constants.items()}
        there = bounded([losses], feed, arithmetic)[losses]
        feed[self.program.inputs[GivenOutputs()]] = exact + moved
        found = self.executor(arithmetic.context, feed)
        error = there.spread + (found[losses] - there.value).abs()
        counted = self.program.outputs.get(Counted())
        return error.sum(), float(len(z) * self.positions) if counted is None else found[counted]

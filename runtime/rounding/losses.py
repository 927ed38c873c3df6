"""How far rounding moves the mean loss of given outputs.

A loss forgets what it was computed from: log Σ e^z − z_y of a class that is certain is 0 or 1e-7,
never 1e-9, and (z − y)² at z ≈ y is all rounding of z. No share of the loss itself tells this.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...compiler.graph.ir import concrete
from ...compiler.graph.program import Program
from ...compiler.values import GivenOutputs, Labels, Losses
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

    Attributes:
        scale: what is a large loss: the largest one where outputs and labels are 0 or 1.
    """

    def __init__(self, program: Program) -> None:
        self.program, self.executor = program, AtenExecutor(program.graph)
        self.scale = self._scale()

    def _scale(self) -> float:
        """Returns the largest of the losses at outputs and labels of 0 and 1, on the host."""
        z, y = self.program.inputs[GivenOutputs()], self.program.inputs[Labels()]
        ends = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
        outputs = ends[:, None].expand(concrete(z.shape, 4))
        labels = ends[[0, 2, 0, 2]].reshape(4, *[1] * (len(y.shape) - 1))
        labels = labels.expand(concrete(y.shape, 4))
        given = {z: outputs, y: labels.long() if y.type.kind == "int" else labels}
        (losses,) = self.executor(Context(4, torch.float64, ends.device), given).values()
        return float(losses.abs().max())

    def __call__(self, z: Tensor, y: Tensor) -> Tensor:
        """Returns a scalar in float64, infinite or NaN where a loss has overflowed.

        Args:
            z: the outputs, N×K.
            y: the labels, as the loss takes them.
        """
        unit, losses = torch.finfo(z.dtype).eps, self.program.outputs[Losses()]
        arithmetic = Arithmetic(Context(len(z), torch.float64, z.device), unit)
        exact, labels = z.double(), y.double() if y.is_floating_point() else y
        feed = self.program.feed({GivenOutputs(): exact, Labels(): labels})
        there = bounded([losses], feed, arithmetic)[losses]
        signs = torch.arange(z.numel(), device=z.device).double().cos().sign().view_as(z)
        feed[self.program.inputs[GivenOutputs()]] = exact + unit * exact.abs().max() * signs
        moved = self.executor(arithmetic.context, feed)[losses]
        return (there.spread + (moved - there.value).abs()).mean()

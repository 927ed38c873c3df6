"""Networks whose pictures are tested, and their programs as pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import newtriton as nt
from newtriton.compiler.graph.program import Program
from newtriton.runtime.checking.networks import SMALL
from newtriton.runtime.drawing.picture import Kernel, Picture
from newtriton.runtime.drawing.programs import pictures
from newtriton.runtime.model.model import Model

BATCH = 7
PROGRAMS: dict[str, Callable[[Model], Program]] = {
    "linearize": lambda model: model.programs[True].linearize,
    "evaluate": lambda model: model.programs[True].evaluate,
    "hvp": lambda model: model.programs[True].hvp,
    "quadratic": lambda model: model.programs[True].quadratic(1),
    "kfac": lambda model: model.programs[True].factors("kfac"),
}


def in_passing() -> nt.Sequential:
    """Attention over so many positions that its scores are never whole in memory."""
    body = nt.Flatten(2), nt.Permute((0, 2, 1)), nt.SelfAttention(1), nt.Flatten(), nt.Linear(3)
    return nt.Sequential(*body)


NETWORKS = {**SMALL, "in_passing": (in_passing, (8, 16, 16))}
CASES = [(net, program) for net in NETWORKS for program in ("linearize", "hvp")]
CASES += [("plain", name) for name in ("evaluate", "quadratic", "kfac")]


@cache
def model(name: str) -> Model:
    net, shape = NETWORKS[name]
    return nt.compile(net(), shape, nt.CrossEntropyLoss(), backend="aten", device="cpu")


@cache
def picture(net: str, program: str, fused: bool = True) -> Picture:
    (found,) = pictures(model(net), [PROGRAMS[program](model(net))], BATCH, fused)
    return found


def nodes(kernels: Sequence[Kernel]) -> list[int]:
    """The numbers of the nodes that are drawn, sums of parts left out."""
    return [pill.number for k in kernels for pill in k.pills if pill.style != "parts"]

"""The steps of a check of numbers, in their order: data that the command runs.

On a GPU the first minutes give the most. One network's numbers come first, at the batch size and in
the precision that people use, then its times. What follows says less the longer it takes: small
networks of all kinds and arithmetic on vectors, the other precisions and their times, then smaller
batches, other networks, and what single kernels take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product

import torch

from ..bench import gpu
from ..compiler.language.losses import CrossEntropyLoss
from ..runtime.checking.networks import LARGE, LENGTH, SMALL
from ..runtime.checking.numbers import Line, numbers, vector_numbers
from ..runtime.fused.settings import Settings, settings_of
from ..runtime.model.compile import compile as compile_network
from ..runtime.model.model import Model

SAMPLES, SHORT, INTERPRETED = 3, 33, 20_000  # samples of small networks; lengths of vectors
GPU, CPU = torch.device("cuda"), torch.device("cpu")


@dataclass(frozen=True)
class NetworkNumbers:
    """The numbers of a network.

    Attributes:
        net: its name.
        batch: the batch size.
        precision: the precision of contractions.
    """

    net: str
    batch: int
    precision: str

    def lines(self, device: torch.device) -> Iterator[Line]:
        """Yields a line for each kernel; on a CPU they are interpreted."""
        settings = _settings(device, self.precision)
        name = f"{self.net} {self.batch}"
        yield from numbers(name, _model(self.net, device), self.batch, settings)

    def __str__(self) -> str:
        return f"numbers of {self.net} at {self.batch} samples in {self.precision}"


@dataclass(frozen=True)
class VectorNumbers:
    """The numbers of arithmetic on vectors.

    Attributes:
        length: the length of the vectors.
    """

    length: int

    def lines(self, device: torch.device) -> Iterator[Line]:
        """Yields a line for each kernel; on a CPU they are interpreted."""
        yield from vector_numbers(self.length, device, _settings(device, "ieee"))

    def __str__(self) -> str:
        return f"numbers of vectors of length {self.length}"


@dataclass(frozen=True)
class Times:
    """A measurement of `bench.gpu`.

    Attributes:
        name: the name of its file of rows.
        step: yields its rows.
    """

    name: str
    step: Callable[[torch.device], Iterator[gpu.Rows]] = field(compare=False)

    def __str__(self) -> str:
        return f"times of {self.name}"


Numbers = NetworkNumbers | VectorNumbers
Step = Numbers | Times


def interpreted_steps(precisions: Sequence[str]) -> list[Numbers]:
    """Returns what is checked in the interpreter, which has no bfloat16."""
    known = [p for p in precisions if p != "bf16"]
    networks = [NetworkNumbers(net, SAMPLES, p) for net, p in product(SMALL, known)]
    return [*networks, VectorNumbers(SHORT), VectorNumbers(INTERPRETED)]


def gpu_steps(nets: Sequence[str], precisions: Sequence[str]) -> list[Step]:
    """Returns what is checked on a GPU.

    Args:
        nets: networks of `LARGE`, the most important first.
        precisions: the precisions of contractions.
    """
    known = sorted(precisions, key=_importance)
    (net, *other_nets), (large, *smaller) = nets, gpu.BATCHES
    first, *others = known
    case = (net, large, first)
    rest = [c for c in gpu.CASES if c != case and c[-1] in known]
    measured = {**gpu.STEPS, "first": gpu.programs([case]), "programs": gpu.programs(rest)}
    times = {name: Times(name, step) for name, step in measured.items()}
    return [
        *(NetworkNumbers(net, large, first), times.pop("first")),
        *(NetworkNumbers(small, SAMPLES, first) for small in SMALL),
        *(VectorNumbers(length) for length in (SHORT, LENGTH)),
        *(NetworkNumbers(net, large, precision) for precision in others),
        times.pop("programs"),
        *(NetworkNumbers(small, SAMPLES, p) for small, p in product(SMALL, others)),
        *(NetworkNumbers(net, batch, p) for batch, p in product(smaller, known)),
        times.pop("vectors"),
        *(NetworkNumbers(n, b, p) for n, b, p in product(other_nets, gpu.BATCHES, known)),
        *times.values(),
    ]


def _importance(precision: str) -> int:
    """Returns the place of a precision among those that are measured."""
    measured = gpu.PRECISIONS
    return measured.index(precision) if precision in measured else len(measured)


def _settings(device: torch.device, precision: str) -> Settings:
    interpreted = device.type == "cpu"
    return settings_of(device, precision, "fused", interpreted, cuda_graphs=False)


@cache
def _model(net: str, device: torch.device) -> Model:
    """Returns a network, whose parameters no check changes."""
    made, shape = {**SMALL, **LARGE}[net]
    return compile_network(made(), shape, CrossEntropyLoss(), backend="aten", device=device)

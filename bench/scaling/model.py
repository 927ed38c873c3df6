"""The cost model: what each rank of K computes, sends and holds in a step of FITRE.

A step is compute, then calls: none of them is taken to be hidden behind work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...runtime.parallel.counter import SHARES
from ...runtime.parallel.data_parallel import MEMORIES
from ...runtime.parallel.owners import LIGHT, placed, rows_of
from .machine import Algorithm, Machine
from .networks import Block, Network

GATHERED = 16  # bytes in which a rank says what it has of a batch: two numbers in float64
AGREED = 8  # bytes in which a rank says that its statistics are finite, or its inverses made
LOSS = 24  # bytes that are summed beside a gradient, or alone: the loss, two checks of the data
VECTORS = 8  # flat vectors that a step holds: parameters, gradient, see `optimizers.needs`
NODE = 1 << 30  # more ranks than there are
BUCKET = 1 << 25  # bytes of statistics that are summed together


@dataclass(frozen=True)
class Setting:
    """How a network is trained.

    Attributes:
        ranks: K.
        batch: the samples of a rank.
        every: r, the steps from one refresh of factors and inverses to the next.
        memory: who holds factors, as `newtriton.DataParallel` takes it.
        itemsize: the bytes of a number.
    """

    ranks: int
    batch: int
    every: int = 25
    memory: str | float = "replicated"
    itemsize: int = 4

    @property
    def rows(self) -> int:
        """How many ranks hold a layer."""
        fraction = MEMORIES[self.memory] if isinstance(self.memory, str) else self.memory
        return rows_of(self.ranks, fraction)

    @property
    def columns(self) -> int:
        """How many ranks hold all layers together."""
        return self.ranks // self.rows


@dataclass(frozen=True)
class Call:
    """A call of the communication library.

    Attributes:
        name: see `Machine.seconds`.
        size: the bytes of a rank's tensor.
        times: how often a step makes it.
        ranks: how many ranks take part.
        apart: the steps from one of them to the next.
    """

    name: str
    size: float
    times: float
    ranks: int
    apart: int = 1

    @property
    def sent(self) -> float:
        """The bytes that a rank sends for it in a step."""
        return self.times * SHARES[self.name](self.ranks) * self.size


def calls(network: Network, setting: Setting) -> Iterator[Call]:
    """Yields what a step communicates, see `runtime.parallel.owners`."""
    k, r, item = setting.ranks, setting.every, setting.itemsize
    yield Call("all_gather", GATHERED, 2, k)
    yield Call("all_reduce", item * network.parameters, 1, k)
    yield Call("all_reduce", LOSS, 2, k)
    yield Call("all_reduce", item, 1, k)  # the quadratic form
    for name, (times, numbers) in network.sums.items():
        if times:
            often = 1 / r if name == "factors" else 1
            yield Call("all_reduce", item * numbers / times, times * often, k)
    columns = setting.columns
    for own in filter(None, held_by(network, setting) if columns > 1 else ()):
        statistics = item * sum(block.numbers for block in own)
        yield from _in_buckets("reduce", statistics, r, columns)
        yield Call("broadcast", item * sum(block.parameters for block in own), 1, columns)
    if columns > 1:
        yield Call("all_gather", AGREED, 2 / r, columns)
    statistics = item * network.statistics / columns
    yield from _in_buckets("all_reduce", statistics, r, setting.rows, columns)


def _in_buckets(name: str, size: float, every: int, ranks: int, apart: int = 1) -> Iterator[Call]:
    """Yields the calls that carry statistics."""
    buckets = math.ceil(size / BUCKET)
    yield Call(name, size / buckets, buckets / every, ranks, apart)


def held_by(network: Network, setting: Setting) -> list[list[Block]]:
    """Returns the blocks that each column of ranks holds."""
    dear = {str(i): LIGHT + block.factorising for i, block in enumerate(network.blocks)}
    places = placed(dear, setting.columns)
    return [
        [block for i, block in enumerate(network.blocks) if places[str(i)] == column]
        for column in range(setting.columns)
    ]


def work(network: Network, setting: Setting) -> dict[str, float]:
    """Returns the operations of the rank that has most of them, a step, by their kind."""
    columns = held_by(network, setting)
    found = {name: float(setting.batch * each) for name, each in network.flops.items()}
    found["factors"] /= setting.every
    dearest = max(sum(block.factorising for block in own) for own in columns)
    found["factorise"] = dearest / setting.every
    found["solve"] = max(sum(block.solving for block in own) for own in columns)
    found["vectors"] = network.parameters
    return found


def held(network: Network, setting: Setting) -> float:
    """Returns the bytes that a rank holds: vectors, the tape, statistics, averages, inverses.

    Statistics of all layers are a rank's own until they have been summed.
    """
    statistics = sum(block.kept for block in network.blocks)
    kept = max(sum(block.kept for block in own) for own in held_by(network, setting))
    vectors, tape = VECTORS * network.parameters, setting.batch * network.tape
    return setting.itemsize * (vectors + tape + statistics + 2 * kept)


@dataclass(frozen=True)
class Cost:
    """What a step costs a rank.

    Attributes:
        computing: seconds of work.
        communicating: seconds of calls.
        sent: bytes that it sends.
        held: bytes that it holds.
    """

    computing: float
    communicating: float
    sent: float
    held: float

    @property
    def seconds(self) -> float:
        """The seconds of a step."""
        return self.computing + self.communicating

    @property
    def share(self) -> float:
        """The share of communication in them."""
        return self.communicating / self.seconds


def cost(network: Network, setting: Setting, machine: Machine) -> Cost:
    """Returns what a step costs on a machine."""
    made = [*calls(network, setting)]
    return Cost(
        sum(
            operations / machine.rates[kind] for kind, operations in work(network, setting).items()
        ),
        sum(c.times * machine.seconds(c.name, c.size, c.ranks, c.apart) for c in made),
        sum(call.sent for call in made),
        held(network, setting),
    )


def calibrated(
    network: Network, batch: int, seconds: Mapping[str, float], call: float, byte: float
) -> Machine:
    """Returns the machine of some measurements, all ranks in one node.

    Args:
        network: what was timed on one rank.
        batch: its samples.
        seconds: the seconds of each kind of work.
        call: α, the seconds of a sum of little over two ranks.
        byte: β, the seconds of a byte that a rank sends.
    """
    operations = work(network, Setting(1, batch, 1))
    rates = {kind: operations[kind] / seconds[kind] for kind in operations}
    width = math.inf if byte == 0.0 else 1.0 / byte
    return Machine(NODE, width, width, (Algorithm(0.0, call / 2, 0.0),), rates)

"""The cost model: what each rank of K computes, sends and holds in a step of FITRE.

A step is compute, then calls: none of them is taken to be hidden behind work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from .machine import Machine
from .networks import Block, Network

GATHERED = 16  # bytes in which a rank says what it has of a batch: two numbers in float64
LOSS = 24  # bytes that are summed beside a gradient, or alone: the loss, two checks of the data
VECTORS = 8  # flat vectors that a step holds: parameters, gradient, see `optimizers.needs`
BUCKET = 1 << 25  # bytes of statistics that are summed together


@dataclass(frozen=True)
class Setting:
    """How a network is trained.

    Attributes:
        ranks: K.
        batch: the samples of a rank.
        every: r, the steps from one refresh of factors and inverses to the next.
        memory: what a rank keeps, "replicated", "owned", or the fraction of the ranks that keep a
            layer's inverses (KAISA: Pauloski et al. 2021).
        itemsize: the bytes of a number.
    """

    ranks: int
    batch: int
    every: int = 25
    memory: str | float = "replicated"
    itemsize: int = 4

    @property
    def sharing(self) -> int:
        """How many ranks keep a layer's inverses."""
        if isinstance(self.memory, str):
            return self.ranks if self.memory == "replicated" else 1
        return max(1, round(self.memory * self.ranks))


@dataclass(frozen=True)
class Call:
    """A call of the communication library.

    Attributes:
        name: see `Machine.seconds`.
        size: the bytes of a rank's tensor; what is gathered is that of all ranks.
        times: how often a step makes it.
        ranks: how many ranks take part.
    """

    name: str
    size: float
    times: float
    ranks: int

    @property
    def sent(self) -> float:
        """The bytes that a rank sends for it in a step, at least (Patarasuk & Yuan 2009)."""
        rounds = 2 if self.name == "all_reduce" else 1
        return rounds * self.times * self.size * (self.ranks - 1) / self.ranks


def calls(network: Network, setting: Setting) -> Iterator[Call]:
    """Yields what a step communicates."""
    k, r, item = setting.ranks, setting.every, setting.itemsize
    yield Call("all_gather", GATHERED * k, 2, k)
    yield Call("all_reduce", item * network.parameters, 1, k)
    yield Call("all_reduce", LOSS, 2, k)
    yield Call("all_reduce", item, 1, k)  # the quadratic form
    for name, (times, numbers) in network.sums.items():
        if times:
            often = 1 / r if name == "factors" else 1
            yield Call("all_reduce", item * numbers / times, times * often, k)
    statistics, kept_by = item * network.statistics, setting.sharing
    buckets = -(-statistics // BUCKET)
    if setting.memory == "replicated":
        yield Call("all_reduce", statistics / buckets, buckets / r, k)
        return
    yield Call("reduce_scatter", statistics / buckets, buckets / r, k)
    inverses = sum(block.kept for block in network.blocks) * kept_by / k
    yield Call("all_gather", item * inverses, 1 / r, kept_by)
    yield Call("all_gather", item * network.parameters, 1, -(-k // kept_by))


def owners(blocks: tuple[Block, ...], ranks: int) -> list[list[Block]]:
    """Returns the blocks of each rank: the dearest first, each to whom has least (Graham 1969)."""
    owned: list[list[Block]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for block in sorted(blocks, key=lambda block: -block.factorising):
        least = loads.index(min(loads))
        owned[least].append(block)
        loads[least] += block.factorising
    return owned


def work(network: Network, setting: Setting) -> dict[str, float]:
    """Returns the operations of the rank that has most of them, a step, by their kind."""
    r = setting.every
    found = Counter({name: setting.batch * each for name, each in network.flops.items()})
    found["factors"] /= r
    blocks = network.blocks
    alone = owners(blocks, setting.ranks) if setting.memory != "replicated" else [[*blocks]]
    found["factorise"] = max(sum(b.factorising for b in own) for own in alone) / r
    most = max(sum(block.solving for block in own) for own in alone)
    shared = sum(block.solving for block in blocks) * setting.sharing / setting.ranks
    found["solve"] = max(most, shared)
    found["vectors"] = network.parameters
    return dict(found)


def held(network: Network, setting: Setting) -> float:
    """Returns the bytes that a rank holds: vectors, the tape, statistics, averages, inverses.

    Statistics of all layers are a rank's own until they have been summed.
    """
    kept = sum(block.kept for block in network.blocks)
    averages = kept if setting.memory == "replicated" else kept / setting.ranks
    inverses = kept * setting.sharing / setting.ranks
    vectors, tape = VECTORS * network.parameters, setting.batch * network.tape
    return setting.itemsize * (vectors + tape + kept + averages + inverses)


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
        sum(operations / machine.rates[kind] for kind, operations in work(network, setting).items()),
        sum(call.times * machine.seconds(call.name, call.size, call.ranks) for call in made),
        sum(call.sent for call in made),
        held(network, setting),
    )

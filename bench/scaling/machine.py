"""Machines as a cost model sees them: rates of work, and what a collective call takes.

Calls take α + β·bytes by the fastest of some algorithms. Those of a cluster are NCCL's own model of
itself (NVIDIA/nccl, src/graph/tuning.cc): a latency for each hop in a node and between nodes, rings
of 2(K − 1) hops and double binary trees (Sanders, Speck & Träff 2009) of 2(k − 1) in a node of k
and 2 log₂ N between N nodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...runtime.parallel.counter import SHARES

US, GB = 1e-6, 1e9


@dataclass(frozen=True)
class Algorithm:
    """How a call goes through the ranks.

    Attributes:
        base: seconds of any call.
        inside: seconds of a hop in a node.
        between: seconds of a hop between nodes.
        share: of the bandwidth, what it makes use of.
        tree: whether it is a tree, which only sums go along, or a ring.
    """

    base: float
    inside: float
    between: float
    share: float = 1.0
    tree: bool = False

    def latency(self, here: int, nodes: int, ranks: int, rounds: int) -> float:
        """Returns α, the seconds of a call without bytes.

        Args:
            here: the ranks of a node.
            nodes: how many nodes there are.
            ranks: how many ranks there are.
            rounds: how often it goes through all of them.
        """
        between = math.ceil(math.log2(nodes)) if self.tree else nodes - 1
        inside = here - 1 if self.tree else ranks - nodes
        return self.base + rounds * (inside * self.inside + between * self.between)


@dataclass(frozen=True)
class Machine:
    """What work and calls take.

    Attributes:
        per_node: the ranks of a node.
        inside: bytes a second between ranks of a node, each way.
        between: the same between nodes, for all rings of a node together.
        algorithms: how calls may go.
        rates: by the kind of work floating-point operations a second, see `model.work`.
    """

    per_node: int
    inside: float
    between: float
    algorithms: tuple[Algorithm, ...]
    rates: Mapping[str, float]

    def seconds(self, call: str, size: float, ranks: int, apart: int = 1) -> float:
        """Returns the seconds of a call.

        Where its ranks are some apart, those between them make the same call at the same time.

        Args:
            call: its name in `torch.distributed`, one of `runtime.parallel.counter.SHARES`.
            size: the bytes of a rank's tensor.
            ranks: how many ranks take part.
            apart: the steps from one of them to the next.
        """
        if ranks == 1:
            return 0.0
        together = min(apart, self.per_node)
        here = min(ranks, self.per_node // together)
        nodes = -(-ranks // here)
        width = self.inside if nodes == 1 else min(self.inside, self.between / together)
        sums = call == "all_reduce"
        return min(
            each.latency(here, nodes, ranks, 2 if sums else 1)
            + (2.0 if each.tree else SHARES[call](ranks)) * size / (each.share * width)
            for each in self.algorithms
            if sums or not each.tree
        )


# A rank of a DGX H200: NVLink 4 gives it 450 GB/s each way, its network adapter of 400 Gb/s 50, and
# eight rings leave a node by eight adapters (NVIDIA, DGX H100/H200 user guide). Calls are taken to
# reach four fifths of that. NCCL's latencies (tuning.cc): "simple" calls at full rate, "LL" ones,
# where a flag travels beside each number, at half of it.
SIMPLE = 8.4 * US, 3.4 * US, 14.0 * US
REACHED = 0.8
NCCL = (
    Algorithm(*SIMPLE),
    Algorithm(6.6 * US, 0.6 * US, 2.7 * US, 0.5),
    Algorithm(8.4 * US, 4.0 * US, 14.0 * US, tree=True),
    Algorithm(6.8 * US, 0.6 * US, 5.0 * US, 0.5, tree=True),
)

# An H200 with VGG11 at batch 200 in tf32: operations of a program over the time of its launches
# (bench/results/gpu-launches.json). Cholesky factors took a step from 18 to 75 ms, 4 of which were
# the statistics (docs/gpu.md). Products with inverses are taken to be as fast as a linearization,
# vectors to be passed over 20 times at the 3.5 TB/s of pointwise kernels.
H200 = {
    "linearize": 101e12,
    "quadratic": 102e12,
    "evaluate": 123e12,
    "factors": 27e12,
    "factorise": 12e12,
    "solve": 101e12,
    "vectors": 3.5e12 / (20 * 4),
}
CLUSTER = Machine(8, REACHED * 450 * GB, REACHED * 8 * 50 * GB, NCCL, H200)

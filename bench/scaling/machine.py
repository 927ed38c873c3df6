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

    def seconds(self, call: str, size: float, ranks: int) -> float:
        """Returns the seconds of a call.

        Args:
            call: "all_reduce"; "reduce_scatter", of which sums to single ranks are parts; or
                "all_gather".
            size: the bytes of what is summed, or of what is gathered from all.
            ranks: how many ranks take part.
        """
        if ranks == 1:
            return 0.0
        return min(
            self._latency(each, call, ranks) + self._volume(each, call, size, ranks)
            for each in self.algorithms
            if call == "all_reduce" or not each.tree
        )

    def _latency(self, algorithm: Algorithm, call: str, ranks: int) -> float:
        """Returns α, the seconds of a call without bytes."""
        nodes = -(-ranks // self.per_node)
        rounds = 2 if call == "all_reduce" else 1
        if algorithm.tree:
            inside, between = min(ranks, self.per_node) - 1, math.ceil(math.log2(nodes))
        else:
            between = nodes - 1
            inside = ranks - 1 - between
        hops = inside * algorithm.inside + between * algorithm.between
        return algorithm.base + rounds * hops

    def _volume(self, algorithm: Algorithm, call: str, size: float, ranks: int) -> float:
        """Returns the seconds of a call's bytes."""
        rounds = 2 if call == "all_reduce" else 1
        share = 1.0 if algorithm.tree else (ranks - 1) / ranks
        width = self.inside if ranks <= self.per_node else min(self.inside, self.between)
        return rounds * share * size / (algorithm.share * width)


# A rank of a DGX H200: NVLink 4 gives it 450 GB/s each way, its network adapter of 400 Gb/s 50 GB/s,
# and eight rings leave a node by eight adapters (NVIDIA, DGX H100/H200 user guide). Of these rates
# calls are taken to reach four fifths. NCCL's latencies (tuning.cc): "simple" calls at full rate,
# "LL" ones, where a flag travels beside each number, at half of it.
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

"""Seconds of calls, by hand; rates of work are those of the files of results."""

from __future__ import annotations

import json
from collections import Counter

import pytest

import newtriton as nt
from newtriton.bench.scaling.machine import CLUSTER, H200, Algorithm, Machine
from newtriton.bench.scaling.networks import described

from ...sources import ROOT

RING = Algorithm(base=1.0, inside=0.1, between=2.0)
TREE = Algorithm(base=1.0, inside=0.1, between=2.0, share=0.5, tree=True)


def machine(*algorithms: Algorithm) -> Machine:
    return Machine(per_node=4, inside=10.0, between=5.0, algorithms=algorithms, rates={})


@pytest.mark.parametrize(
    ("call", "ranks", "expected"),
    [
        ("all_reduce", 1, 0.0),
        ("all_reduce", 4, 1.0 + 2 * 3 * 0.1 + 2 * 0.75 * 40.0 / 10.0),
        ("all_gather", 4, 1.0 + 3 * 0.1 + 3 * 40.0 / 10.0),
        ("broadcast", 4, 1.0 + 3 * 0.1 + 0.75 * 40.0 / 10.0),
        ("reduce", 8, 1.0 + 6 * 0.1 + 2.0 + 0.875 * 40.0 / 5.0),
        ("all_reduce", 16, 1.0 + 2 * (12 * 0.1 + 3 * 2.0) + 2 * 15 / 16 * 40.0 / 5.0),
    ],
)
def test_a_ring(call: str, ranks: int, expected: float) -> None:
    assert machine(RING).seconds(call, 40.0, ranks) == pytest.approx(expected)


def test_a_tree_has_as_many_hops_as_nodes_have_doublings() -> None:
    expected = 1.0 + 2 * (3 * 0.1 + 2 * 2.0) + 2 * 40.0 / (0.5 * 5.0)
    assert machine(TREE).seconds("all_reduce", 40.0, 16) == pytest.approx(expected)


def test_the_fastest_algorithm_counts_and_only_sums_go_along_trees() -> None:
    both, ring, tree = machine(RING, TREE), machine(RING), machine(TREE)
    assert both.seconds("all_reduce", 0.0, 64) == tree.seconds("all_reduce", 0.0, 64)
    assert both.seconds("all_reduce", 1e6, 64) == ring.seconds("all_reduce", 1e6, 64)
    assert both.seconds("all_gather", 0.0, 64) == ring.seconds("all_gather", 0.0, 64)


def test_ranks_that_stand_apart_share_the_way_out_of_their_node() -> None:
    alone = machine(RING)
    assert alone.seconds("broadcast", 40.0, 2, apart=2) == alone.seconds("broadcast", 40.0, 2)
    hops, width = 1.0 + 2 * (2 * 0.1 + 2.0), 5.0 / 2  # two of four ranks a node, and two groups
    seconds = alone.seconds("all_reduce", 40.0, 4, apart=2)
    assert seconds == pytest.approx(hops + 2 * 0.75 * 40.0 / width)
    hops, width = 1.0 + 2 * 3 * 2.0, 5.0 / 4  # one rank a node
    for apart in (4, 8):
        seconds = alone.seconds("all_reduce", 40.0, 4, apart)
        assert seconds == pytest.approx(hops + 2 * 0.75 * 40.0 / width)


def test_calls_take_longer_on_more_ranks() -> None:
    for call in ("all_reduce", "reduce", "broadcast", "all_gather"):
        for size in (8.0, 1e6, 1e9):
            seconds = [CLUSTER.seconds(call, size, 2**i) for i in range(11)]
            assert seconds == sorted(seconds)


def test_rates_are_those_that_were_measured() -> None:
    rows = json.loads((ROOT / "bench/results/gpu-launches.json").read_text())["rows"]
    micros = Counter[str]()
    for row in rows:
        micros[row["program"]] += row["us"]
    work = described(nt.models.vgg11(), (3, 32, 32)).flops
    names = {"quadratic": "quadratic(1, hessian)", "factors": "factors(kfac, 1)"}
    for kind, operations in work.items():
        rate = 200 * operations / (1e-6 * micros[names.get(kind, kind)])
        assert H200[kind] == pytest.approx(rate, rel=0.01)

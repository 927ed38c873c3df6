"""The cost model against cases that are counted by hand."""

from __future__ import annotations

import pytest

from newtriton.bench.scaling import model
from newtriton.bench.scaling.machine import Algorithm, Machine
from newtriton.bench.scaling.model import AGREED, GATHERED, LOSS, Setting
from newtriton.bench.scaling.networks import Block, Network

BLOCKS = (
    Block(parameters=1000, matrices=(40, 25), numbers=820 + 325, solving=130_000),
    Block(parameters=600, matrices=(30, 20), numbers=465 + 210, solving=60_000),
    Block(parameters=500, matrices=(25, 20), numbers=325 + 210, solving=45_000),
    Block(parameters=20, matrices=(), numbers=20, solving=20),
)
P, T = 2120, 2375
FLOPS = {"linearize": 3000, "quadratic": 2000, "evaluate": 1000, "factors": 500}
NO_SUMS = dict.fromkeys(FLOPS, (0, 0))
NETWORK = Network(P, BLOCKS, FLOPS, NO_SUMS, tape=70)


def sent(memory: str | float, ranks: int, every: int, network: Network = NETWORK) -> float:
    setting = Setting(ranks, 8, every, memory)
    return sum(call.sent for call in model.calls(network, setting))


@pytest.mark.parametrize("ranks", [1, 2, 3, 64])
@pytest.mark.parametrize("every", [1, 25])
def test_bytes_are_those_of_the_bounds(ranks: int, every: int) -> None:
    """2(P + ΣT/r)(K−1)/K numbers replicated and (3P + ΣT/r)(K−1)/K owned, and a few more."""
    share = (ranks - 1) / ranks
    few = 2 * (ranks - 1) * GATHERED + 2 * share * (2 * LOSS + 4)
    whole = 4 * 2 * (P + T / every) * share
    owned = 4 * (3 * P + T / every) * share + 2 * (ranks - 1) * AGREED / every
    assert sent("replicated", ranks, every) == pytest.approx(whole + few)
    assert sent("owned", ranks, every) == pytest.approx(owned + few)


def test_statistics_go_along_rows_and_then_along_columns() -> None:
    """Of eight ranks four hold a layer: rows of two, columns of four."""
    of_all = 2 * 7 * GATHERED + 2 * 7 / 8 * (4 * P + 2 * LOSS + 4)
    rows = 4 * (T / 5 + P) / 2 + 2 * AGREED / 5
    columns = 2 * 3 / 4 * 4 * T / 2 / 5
    assert sent(0.5, 8, 5) == pytest.approx(of_all + rows + columns)


def test_sums_of_batch_norm_are_each_a_call() -> None:
    sums = {"linearize": (4, 16), "quadratic": (2, 8), "evaluate": (2, 8), "factors": (2, 8)}
    normed = Network(P, BLOCKS, FLOPS, sums, tape=70)
    more = 4 * 2 * (1 / 2) * (16 + 8 + 8 + 8 / 5)
    assert sent("replicated", 2, 5, normed) == pytest.approx(sent("replicated", 2, 5) + more)
    calls = [*model.calls(normed, Setting(2, 8, 5))]
    assert sum(call.times for call in calls) == pytest.approx(2 + 4 + 4 + 2 + 2 + (2 + 1) / 5)


def test_the_dearest_block_goes_first_to_whom_has_least() -> None:
    first, second = model.held_by(NETWORK, Setting(2, 8, 5, "owned"))
    assert first == [BLOCKS[0]] and second == [*BLOCKS[1:]]
    assert model.held_by(NETWORK, Setting(8, 8, 5, 0.5)) == [first, second]
    assert model.held_by(NETWORK, Setting(6, 8, 5, "owned"))[2:] == [[*BLOCKS[2:]], [], [], []]
    assert model.held_by(NETWORK, Setting(6, 8, 5)) == [[*BLOCKS]]


def test_work_is_that_of_the_busiest_rank() -> None:
    of_all = model.work(NETWORK, Setting(2, 8, 5))
    assert of_all["linearize"] == 8 * 3000 and of_all["factors"] == 8 * 500 / 5
    cubes = [2 * (40**3 + 25**3), 2 * (30**3 + 20**3), 2 * (25**3 + 20**3)]
    assert of_all["factorise"] == sum(cubes) / 5 and of_all["solve"] == 235_020
    owned = model.work(NETWORK, Setting(2, 8, 5, "owned"))
    assert owned["factorise"] == cubes[0] / 5 and owned["solve"] == 130_000


def test_a_rank_holds_what_it_keeps() -> None:
    kept = [40**2 + 25**2, 30**2 + 20**2, 25**2 + 20**2]
    base = 8 * P + 16 * 70 + sum(kept)
    held = {m: model.held(NETWORK, Setting(4, 16, 5, m)) for m in ("replicated", 0.5, "owned")}
    assert held["replicated"] == 4 * (base + 2 * sum(kept))
    assert held[0.5] == 4 * (base + 2 * (kept[1] + kept[2]))
    assert held["owned"] == 4 * (base + 2 * kept[0])


RATES = dict.fromkeys((*FLOPS, "factorise", "solve", "vectors"), 1e6)


def test_a_step_is_work_and_calls() -> None:
    machine = Machine(8, 1e3, 1e3, (Algorithm(0.5, 0.25, 0.0),), RATES)
    setting = Setting(2, 8, 5)
    found = model.cost(NETWORK, setting, machine)
    assert found.computing == pytest.approx(sum(model.work(NETWORK, setting).values()) / 1e6)
    sums, gathers = 1 + 2 + 1 + 1 / 5, 2
    seconds = sums * (0.5 + 2 * 0.25) + gathers * (0.5 + 0.25) + found.sent / 1e3
    assert found.communicating == pytest.approx(seconds)
    assert found.share == pytest.approx(seconds / (seconds + found.computing))


def test_a_machine_of_measurements_gives_them_back() -> None:
    seconds = dict(zip(RATES, range(1, 8), strict=True))
    machine = model.calibrated(NETWORK, 200, seconds, call=0.25, byte=0.5)
    alone = model.cost(NETWORK, Setting(1, 200, 1), machine)
    assert alone.seconds == pytest.approx(sum(seconds.values()))
    assert machine.seconds("all_reduce", 8, 2) == pytest.approx(0.25 + 8 * 0.5)

"""Offsets: blocks that are alive together never overlap, and little is wasted."""

from hypothesis import given, settings
from hypothesis import strategies as st

from newtriton.compiler.graph.memory import ALIGNMENT, Lifetime, arena, peak, shared


@st.composite
def lifetimes(draw: st.DrawFn) -> dict[int, Lifetime]:
    blocks = draw(
        st.lists(
            st.tuples(st.integers(0, 5000), st.integers(0, 20), st.integers(0, 6)), max_size=30
        )
    )
    return {
        i: Lifetime(size, first, first + length) for i, (size, first, length) in enumerate(blocks)
    }


@settings(max_examples=200, deadline=None, derandomize=True)
@given(lifetimes())
def test_blocks_alive_together_do_not_overlap(blocks: dict[int, Lifetime]):
    placed = arena(blocks)
    for i, a in blocks.items():
        assert placed.offsets[i] % ALIGNMENT == 0
        assert placed.offsets[i] + a.size <= placed.size
        for j, b in blocks.items():
            if i < j and a.meets(b):
                ends = placed.offsets[i] + a.size, placed.offsets[j] + b.size
                assert ends[0] <= placed.offsets[j] or ends[1] <= placed.offsets[i]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(lifetimes())
def test_the_arena_is_at_least_the_peak_and_not_the_sum(blocks: dict[int, Lifetime]):
    placed = arena(blocks)
    rounding = ALIGNMENT * len(blocks)
    assert peak(blocks) <= placed.size <= sum(b.size for b in blocks.values()) + rounding


def test_a_chain_needs_two_blocks():
    chain = {i: Lifetime(1000, i, i + 1) for i in range(10)}
    assert arena(chain).size == 2 * 1024


def test_values_in_one_block_follow_each_other():
    values = {"a": Lifetime(9, 0, 2), "b": Lifetime(9, 2, 4), "c": Lifetime(9, 4, 5)}
    other = {"d": Lifetime(9, 1, 3)}
    blocks, home = shared(values | other, {"c": "b", "b": "a"})
    assert blocks == {"a": Lifetime(9, 0, 5), **other} and home == {"b": "a", "c": "a"}
    assert arena(blocks).size == 2 * ALIGNMENT < arena(values | other).size

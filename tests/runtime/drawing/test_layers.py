"""Layers of a small graph."""

import random

import pytest

from newtriton.runtime.drawing.layers import depths, layered


def test_depths_are_longest_ways() -> None:
    assert depths(5, [(0, 1), (1, 3), (0, 3), (4, 2)]) == [0, 1, 1, 2, 0]


@pytest.mark.parametrize("seed", range(20))
def test_nothing_overlaps_and_edges_go_to_the_right(seed: int) -> None:
    draw = random.Random(seed)
    count = draw.randint(1, 14)
    pairs = [(a, b) for b in range(count) for a in range(b) if draw.random() < 0.3]
    sizes = [(draw.uniform(10, 90), draw.choice([15.0, 20.0])) for _ in range(count)]
    found = layered(sizes, pairs, depths(count, pairs))
    boxes = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(found.places, sizes, strict=True)]
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert right <= found.width + 1e-9
        assert bottom <= found.height + 1e-9
        for x, y, x_end, y_end in boxes[:i]:
            assert right <= x or x_end <= left or bottom <= y or y_end <= top
    for (a, b), route in zip(pairs, found.routes, strict=True):
        assert [x for x, _ in route] == sorted(x for x, _ in route)
        assert route[0] == pytest.approx((boxes[a][2], (boxes[a][1] + boxes[a][3]) / 2))
        assert route[-1] == pytest.approx((boxes[b][0], (boxes[b][1] + boxes[b][3]) / 2))
        for x, y in route[1:-1]:  # no edge runs behind a node
            assert not any(left < x < right and t < y < u for left, t, right, u in boxes)
    assert layered(sizes, pairs, depths(count, pairs)) == found

"""Views of memory: the strides that PyTorch has, and the values that must be written first."""

from __future__ import annotations

import torch

from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import LEAVES, N, Node, Op, concrete
from newtriton.compiler.streaming.views import View, view

BATCH = 3
PACKED = ops.input_("packed", (N, 5, 36))


def found(x: Node) -> View:
    return view(x, lambda n: n.op in LEAVES, BATCH)


def part(x: Node, start: int, stop: int) -> Node:
    return ops.make(Op.SLICE, x, axis=len(x.shape) - 1, start=start, stop=stop)


def heads(x: Node, count: int) -> Node:
    n, length, width = x.shape
    return ops.transpose(ops.reshape(x, (n, length, count, width // count)), (0, 2, 1, 3))


def test_heads_of_a_part_lie_in_the_projection():
    memory = torch.arange(BATCH * 5 * 36).view(BATCH, 5, 36)
    for i in range(3):
        keys = heads(part(PACKED, 12 * i, 12 * i + 12), 4)
        expected = memory[..., 12 * i : 12 * i + 12].view(BATCH, 5, 4, 3).transpose(1, 2)
        seen = found(keys)
        assert seen.of is PACKED
        sizes, strides, offset = seen.layout(BATCH)
        assert torch.equal(memory.as_strided(sizes, strides, offset), expected)
        assert strides == expected.stride() and offset == expected.storage_offset()


def test_copies_have_no_stride():
    keys = ops.input_("keys", (N, 2, 5, 3))
    grouped = ops.broadcast(keys, (N, 2, 4, 5, 3), (2,))
    assert found(grouped).of is keys
    assert found(grouped).layout(BATCH).strides == (30, 15, 0, 3, 1)


def test_what_has_no_strides_is_written():
    keys = ops.input_("keys", (N, 2, 5, 3))
    grouped = ops.broadcast(keys, (N, 2, 4, 5, 3), (2,))
    merged = ops.reshape(grouped, (N, 8, 5, 3))
    assert found(merged) == View(grouped, [merged])
    turned = ops.transpose(keys, (0, 2, 1, 3))
    together = ops.reshape(turned, (N, 5, 6))
    first = part(together, 0, 4)
    assert found(first) == View(turned, [together, first])
    assert found(first).layout(BATCH).sizes == concrete(first.shape, BATCH)


def test_axes_of_one_element_are_no_obstacle():
    single = ops.transpose(ops.input_("single", (N, 1, 5, 6)), (0, 2, 1, 3))
    assert found(ops.reshape(single, (N * 5, 6))).layout(BATCH).strides == (6, 1)
    square = ops.transpose(ops.input_("square", (N, 4, 5, 6)), (0, 2, 1, 3))
    assert found(ops.reshape(square, (N * 5, 24))).of is square

"""Places: an element of a view lies where that of its memory does."""

from __future__ import annotations

from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N, Op
from newtriton.compiler.lowering.printing import triton
from newtriton.compiler.lowering.tile import Index
from newtriton.compiler.passes.placing import in_rows, viewed
from newtriton.compiler.streaming.views import view

PACKED = ops.input_("packed", (N, 10, 3 * 2 * 4))


def test_values_in_memory_lie_row_by_row() -> None:
    i, j, k = (Index.named(name) for name in "ijk")
    assert triton(in_rows(PACKED).address((i, j, k))) == triton(i * 240 + j * 24 + k)


def test_keys_lie_where_the_projection_does() -> None:
    keys = ops.make(Op.SLICE, PACKED, axis=2, start=8, stop=16)
    keys = ops.transpose(ops.reshape(keys, (N, 10, 2, 4)), (0, 2, 1, 3))
    place = viewed(view(keys, lambda x: x is PACKED, batch=5), 5)
    assert place.buffer is PACKED and triton(place.offset) == "8"
    assert [triton(s) for s in place.strides] == ["240", "4", "24", "1"]

"""Equal values are one object, whichever threads make them."""

import gc
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from weakref import WeakValueDictionary

import pytest

import newtriton as nt
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.interning import interned
from newtriton.compiler.graph.ir import Batched, N
from newtriton.compiler.lowering.tile import Form, Index


@pytest.fixture(autouse=True)
def _switching() -> Iterator[None]:
    """Threads switch often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


class Value:
    pass


def test_a_value_is_made_again_when_it_is_gone():
    table: WeakValueDictionary[tuple, Value] = WeakValueDictionary()
    value = interned(table, (1,), Value)
    assert interned(table, (1,), Value) is value
    assert interned(table, (2,), Value) is not value
    del value
    gc.collect()
    assert not table


@pytest.mark.parametrize("make", [
    lambda i: nt.scalar.sigmoid(nt.scalar.var(0) * (1.5 + i)),
    lambda i: ops.input_(f"leaf {i}", (N, 3)),
    lambda i: Index(Form.NAME, detail=f"name {i}"),
    lambda i: N * (1000 + i),
])  # fmt: skip
def test_equal_values_of_threads_are_one_object(make: Callable[[int], object]):
    barrier = Barrier(4)

    def made(_: int) -> list[object]:
        barrier.wait()
        return [make(i) for i in range(300)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(made, range(4)))
    assert all(len({id(x) for x in each}) == 1 for each in zip(*found, strict=True))
    assert all(x.times >= 1000 for x in found[0] if isinstance(x, Batched))

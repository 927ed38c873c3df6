"""A launch alone reads what is given, and writes to memory of its own, or over what it read."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from newtriton.compiler.graph import ops
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.compiler.graph.ir import N, Node
from newtriton.compiler.graph.memory import arena
from newtriton.compiler.lowering.code import Part
from newtriton.compiler.lowering.kernel import Kernel
from newtriton.compiler.lowering.space import Space
from newtriton.runtime.backend import Context
from newtriton.runtime.checking.isolation import Isolated, computed_by
from newtriton.runtime.checking.kernels import program_plans
from newtriton.runtime.fused.call import Memory
from newtriton.runtime.fused.storage import Storage, Use

from .small import small

CONTEXT = Context(3, torch.float32, torch.device("cpu"))
X = ops.input_("x", (N,))
Y, Z = ops.scale(X, 2.0), ops.scale(X, 3.0)
TOTAL = ops.reduce_sum(Z)


@dataclass
class Call:
    """A launch that is a Python function."""

    use: Use
    written: list[Node]
    call: Callable[[Memory], object]
    calls: tuple[()] = ()
    recordable: bool = True
    kernels: list[Kernel] = field(init=False)

    def __post_init__(self) -> None:
        self.kernels = [Kernel(0, Space((N,), 1), writes=dict.fromkeys(self.written))]

    def run(self, context: Context, tensor: Memory) -> None:
        self.call(tensor)


def isolated(values: dict[Node, Tensor], block: dict[Node, Node] | None = None) -> Isolated:
    scratch = {Part(TOTAL): 4}
    storage = Storage(3, scratch, {X}, {Z}, [], {}, block or {}, arena({}))
    return Isolated(storage, CONTEXT, values)


def test_what_a_launch_makes_in_memory_of_its_own_is_read_by_the_next():
    alone, part = isolated({X: torch.ones(3)}), Part(Y)
    alone.run(Call(Use([X], {}, elsewhere=[part]), [], lambda t: t.put(part, 2 * t(X))))
    (written,) = alone.run(Call(Use([part, Y], {}), [Y], lambda t: t(Y).copy_(t(part)))).values()
    assert written.tolist() == [2.0] * 3


def test_what_is_not_written_is_nan():
    alone = isolated({X: torch.ones(3)})
    launch = Call(Use([X, Y], {}), [Y], lambda t: t(Y)[:2].copy_(2 * t(X)[:2]))
    (written,) = alone.run(launch).values()
    assert written[:2].tolist() == [2.0, 2.0] and written[2].isnan()


def test_what_has_not_been_computed_cannot_be_read():
    alone = isolated({X: torch.ones(3)})
    with pytest.raises(NewtritonError, match="before that is computed"):
        alone.run(Call(Use([Y, Z], {}), [Z], lambda t: t(Z).copy_(t(Y))))
    with pytest.raises(NewtritonError, match="before that is computed"):
        alone.run(Call(Use([Part(TOTAL), Z], {}), [Z], lambda t: t(Part(TOTAL))))


def test_values_that_share_memory_share_it_and_what_is_given_stays():
    values = {X: torch.ones(3), Y: torch.tensor([1.0, 2.0, 3.0])}
    alone = isolated(values, {Z: Y})
    seen = []

    def in_place(tensor: Memory) -> None:
        seen.append(tensor(Z).data_ptr() == tensor(Y).data_ptr())
        tensor(Z).add_(1.0)

    written = alone.run(Call(Use([Y, Z], {}), [Z], in_place))
    assert seen == [True] and written[Z].tolist() == [2.0, 3.0, 4.0]
    assert values[Y].tolist() == [1.0, 2.0, 3.0]


def test_parts_of_sums_are_handed_on():
    alone, part = isolated({X: torch.ones(3)}), Part(TOTAL)
    alone.run(Call(Use([X, part], {part: 4}), [], lambda t: t(part)[:3].fill_(2.0)))
    launch = Call(Use([part, Z], {}), [Z], lambda t: t(Z).copy_(t(part)[1:]))
    written = alone.run(launch)[Z]
    assert written[:2].tolist() == [2.0, 2.0] and written[2].isnan()


def test_a_sum_of_parts_is_computed_again_from_what_its_tiles_read():
    plan = next(iter(program_plans(small(), "ieee", 3)))
    schedule = plan.schedule
    for node, producer in schedule.part_of.items():
        fresh = computed_by(schedule.kernel_of[node], schedule)
        assert {node, *producer.nodes} <= fresh

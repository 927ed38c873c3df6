"""Where values lie: given and results outside, the rest in an arena where none meets another."""

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import N, Node
from newtriton.compiler.graph.memory import ALIGNMENT
from newtriton.compiler.lowering.code import Overwriting, Part
from newtriton.runtime.fused.executor import FusedExecutor
from newtriton.runtime.fused.selection import Selection
from newtriton.runtime.fused.settings import Settings
from newtriton.runtime.fused.storage import Use, dtype_of, lay_out, pointer_type

X = ops.input_("x", (N, 64))


def chain(count: int) -> list[Node]:
    """Maps of x, one of the other."""
    nodes = [X]
    for _ in range(count):
        nodes.append(ops.map_(scalar.tanh(scalar.var(0)), nodes[-1]))
    return nodes[1:]


def over(x: Node, *written: Node) -> Overwriting:
    return Overwriting({x: 0}, {y: 1 + i for i, y in enumerate(written)})


def test_given_and_results_lie_outside():
    a, b = chain(2)
    storage = lay_out([Use([X, a], {}), Use([a, b], {})], [b], {X}, 8)
    assert storage.given == {X} and storage.results == {b}
    assert storage.addressed == [X, b]
    assert list(storage.lifetimes) == [a] and storage.arena.size == 4 * 8 * 64


def test_a_value_is_written_over_one_that_nobody_reads_again():
    a, b, c = chain(3)
    uses = [Use([X, a], {}), Use([a, b], {}, [over(a, b)]), Use([b, c], {}, [over(b, c)])]
    storage = lay_out(uses, [], {X}, 8)
    assert storage.block == {b: a, c: a}
    assert {storage.offset(n) for n in (a, b, c)} == {0}
    later = [*uses, Use([a], {})]
    assert lay_out(later, [], {X}, 8).block == {c: b}


def test_one_value_is_replaced_by_one_alone():
    a, b = chain(2)
    other = ops.map_(scalar.exp(scalar.var(0)), a)
    use = Use([a, b, other], {}, [over(a, b, other)])
    storage = lay_out([Use([X, a], {}), use], [], {X}, 8)
    assert storage.block == {b: a} and storage.offset(other) != storage.offset(a)


def test_memory_between_kernels_has_the_size_that_its_launch_says():
    (a,) = chain(1)
    storage = lay_out([Use([X, Part(a)], {Part(a): 1000})], [], {X}, 8)
    assert storage.size(Part(a)) == 1000 and storage.size(X) == 8 * 64
    assert storage.arena.size == -(-4 * 1000 // ALIGNMENT) * ALIGNMENT


def test_types_of_what_is_stored():
    half = ops.map_(scalar.unary("bf16", scalar.var(0)), X)
    labels = ops.input_("y", (N,), "int")
    assert [dtype_of(b) for b in (X, half, Part(half), Part(half, 0))] == [
        torch.float32, torch.bfloat16, torch.float32, torch.int32,
    ]  # fmt: skip
    assert [pointer_type(b) for b in (X, half, labels)] == ["*fp32", "*bf16", "*i64"]


@pytest.mark.parametrize("contractions", ["fused", "vendor"])
def test_values_that_live_at_once_lie_apart(contractions: str):
    net = nt.Sequential(nt.Conv2d(8, 3), nt.BatchNorm2d(), nt.SiLU(), nt.MaxPool2d(2))
    net = nt.Sequential(net, nt.Conv2d(8, 3), nt.SiLU(), nt.Flatten(), nt.Linear(5))
    model = nt.compile(net, (3, 12, 12), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    selection, p = Selection(Settings("ieee", contractions)), model.programs[True]
    for program in (p.linearize, p.hvp, p.factors("kfac")):
        storage = FusedExecutor(program.graph, (), selection).plan(16).storage
        lives = storage.lifetimes.items()
        places = [(storage.offset(b), storage.offset(b) + life.size, b, life) for b, life in lives]
        for start, stop, b, life in places:
            assert stop <= storage.arena.size
            for other_start, other_stop, other, other_life in places:
                same = storage.block.get(b, b) == storage.block.get(other, other)
                if not same and life.meets(other_life):
                    assert stop <= other_start or other_stop <= start

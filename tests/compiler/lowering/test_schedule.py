"""Schedules: every value computed once, kernels in a legal order, and the fusions that matter."""

import dataclasses
import itertools
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node, Op
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.language.network import trace
from newtriton.compiler.lowering.code import Tile
from newtriton.compiler.lowering.codegen import generate, listing
from newtriton.compiler.lowering.joining import share_loops, share_reads
from newtriton.compiler.lowering.kernel import ANCHORS, VENDOR, Kernel, Schedule, Way
from newtriton.compiler.lowering.placement import Placement
from newtriton.compiler.lowering.reading import Reading, Ways
from newtriton.compiler.lowering.schedule import place_all, schedule
from newtriton.compiler.lowering.space import is_partial
from newtriton.compiler.programs import Programs

from ...eager import double_backward
from ...networks import pairs

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


def programs(net, shape, loss=None) -> Programs:
    return Programs(trace(net, shape, loss or nt.CrossEntropyLoss(), training=True))


def linearized(p: Programs) -> Graph:
    """The linearization with its tape."""
    tape = {f"tape:{i}": n for i, n in enumerate(sorted(p.tape, key=str))}
    return Graph("linearize", {**p.linearize.graph.outputs, **tape})


def graphs(p: Programs) -> list[Graph]:
    others = (p.hvp, p.ggnvp, p.quadratic(1), p.quadratic(2), p.factors("kfac", 2))
    return [linearized(p), *(program.graph for program in others)]


def split_some(node: Node, batch: int) -> Way:
    if node.op is Op.PATCH_GRAM:
        return VENDOR
    return Way(3) if node.op in (Op.CONV_WEIGHT_GRAD, Op.GRAM) else Way()


def check_legal(scheduled: Schedule) -> None:
    owners: dict[Node, list[Kernel]] = {}
    for kernel in scheduled.kernels:
        for node in kernel.nodes:
            if node not in kernel.anchors or not kernel.way.apart:
                owners.setdefault(node, []).append(kernel)
    assert all(len(kernels) == 1 for kernels in owners.values())
    assert not owners.keys() & scheduled.leaves
    for node in scheduled.graph.computed():
        merged = any(h.joint and node in h.anchors for k in scheduled.kernels for h in [k, *k.adds])
        known = {*owners, *scheduled.looked_up, *scheduled.leaves}
        assert node in known or merged, node
    launched = {k: i for i, kernels in enumerate(scheduled.launches) for k in kernels}
    assert len(launched) == len(scheduled.kernels)
    for kernel in scheduled.kernels:
        for value in kernel.reads:
            if value not in scheduled.leaves:
                (producer,) = owners[value]
                assert value in producer.writes
                assert launched[producer] < launched[kernel]
        for node in kernel.body:
            if is_partial(node):
                assert launched[scheduled.part_of[node]] < launched[kernel]
        for head in kernel.adds:
            assert launched[head] < launched[kernel]


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=SLOW)
@given(pairs(), st.sampled_from([nt.CrossEntropyLoss(), nt.MSELoss(), nt.BCEWithLogitsLoss()]))
def test_every_value_is_computed_once_and_in_order(pair, loss):
    p = programs(pair.ours, pair.shape, loss)
    for graph in graphs(p):
        for ways in (lambda *_: VENDOR, lambda *_: Way(), split_some):
            check_legal(schedule(graph, 5, ways))


def only(scheduled: Schedule, op: Op) -> Kernel:
    """The one kernel that computes nodes of an op."""
    (found,) = [k for k in scheduled.kernels if op in {n.op for n in k.nodes}]
    return found


def test_bias_and_activation_join_their_convolution():
    net = nt.Sequential(nt.Conv2d(4, 3), nt.SiLU(), nt.Conv2d(2, 3), nt.Flatten())
    scheduled = schedule(programs(net, (1, 6, 6), nt.MSELoss()).outputs.graph)
    assert [n.op for k in scheduled.kernels for n in k.anchors] == [Op.CONV, Op.CONV]
    assert [n.op for n in scheduled.kernels[0].body] == [Op.MAP]
    (conv,) = scheduled.kernels[0].anchors
    assert conv not in scheduled.kernels[0].writes  # s is not needed by an evaluation


def test_a_sum_of_contractions_is_one_kernel():
    x, w = ops.input_("x", (N, 5)), ops.param("w", (4, 5))
    y, v = ops.input_("y", (N, 5)), ops.param("v", (4, 5))
    both = [ops.matmul(a, b, tb=True) for a, b in ((x, w), (y, v))]
    scheduled = schedule(Graph("sum", {"out": ops.map_(var(0) + 2.0 * var(1), *both)}))
    (kernel,) = scheduled.kernels
    assert kernel.anchors == both
    squares = ops.map_(var(0) * var(1), *both)
    assert len(schedule(Graph("product", {"out": squares})).kernels) == 2  # not affine in both


def test_the_two_products_of_a_quadratic_form_share_a_kernel():
    net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3))
    scheduled = schedule(programs(net, (5,), nt.MSELoss()).quadratic(1).graph)
    (kernel,) = [k for k in scheduled.kernels if len(k.anchors) == 2]
    assert kernel.joint is not None and len(kernel.partials) == 2
    stages = [scheduled.stages[kernel][node] for node in kernel.partials]
    assert sorted(stages) == [0, 1]  # ⟨s̄, V⋆ȧ⟩ while V⋆ȧ is in registers, the rest behind the sum


def test_losses_and_their_adjoints_are_one_kernel():
    net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3))
    scheduled = schedule(programs(net, (5,)).linearize.graph)
    kernel = only(scheduled, Op.ROW_MAX)
    assert kernel.whole_rows and len(kernel.writes) == 2  # losses and z̄


def test_a_pool_takes_the_maps_around_it():
    net = nt.Sequential(nt.Conv2d(4, 3), nt.SiLU(), nt.MaxPool2d(2), nt.Conv2d(2, 2), nt.Flatten())
    scheduled = schedule(programs(net, (1, 6, 6), nt.MSELoss()).linearize.graph)
    assert only(scheduled, Op.ARGMAX_POOL) is only(scheduled, Op.GATHER_MAX)
    assert not any(n.op is Op.SCATTER_MAX for k in scheduled.kernels for n in k.nodes)


def test_a_fusion_that_would_close_a_cycle_is_not_made():
    x, w = ops.input_("x", (N, 4)), ops.param("w", (4, 4))
    s = ops.matmul(x, w, tb=True)
    again = ops.matmul(ops.map_(scalar.tanh(var(0)), s), w, tb=True)
    out = ops.map_(var(0) * var(1), s, again)
    scheduled = schedule(Graph("cycle", {"out": out}))
    assert [len(k.body) for k in scheduled.kernels] == [1, 1]
    check_legal(scheduled)


def test_first_stages_share_a_launch_and_so_do_last_ones():
    net = nt.Sequential(*itertools.chain(*((nt.Linear(4), nt.Tanh()) for _ in range(4))))
    scheduled = schedule(programs(net, (4,), nt.MSELoss()).linearize.graph, 8, split_some)
    transposes = [k for k in scheduled.kernels if k.body and k.body[0].op is Op.TRANSPOSE]
    assert set(transposes) <= set(scheduled.launches[0])
    biases = [k for k in scheduled.kernels if all(map(is_partial, k.body)) and k.body]
    assert set(biases) <= set(scheduled.launches[-1])


def test_kernels_of_a_launch_that_read_one_value_are_one():
    x, y, z, apart = (ops.input_(name, (N,)) for name in ("x", "y", "z", "apart"))
    dots = {"xy": ops.dot(x, y), "yz": ops.dot(y, z), "apart": ops.dot(apart, apart)}
    scheduled = schedule(Graph("dots", dots))
    first, last = scheduled.launches
    assert [list(k.reads) for k in first] == [[x, y, z], [apart]]
    assert [len(k.body) for k in last] == [3]
    check_legal(scheduled)


def test_a_value_read_in_another_order_is_no_reason_to_share_a_kernel():
    x, y = (ops.input_(name, (N, 4, 4)) for name in "xy")
    turned = ops.transpose(x, (0, 2, 1))
    scheduled = schedule(Graph("turned", {"a": ops.dot(x, y), "b": ops.dot(turned, turned)}))
    assert [len(k.partials) for k in scheduled.launches[0]] == [1, 1]


def test_forms_of_batch_norm_read_each_value_once():
    layers = [(nt.Conv2d(4, 3, padding=1), nt.BatchNorm2d(), nt.SiLU()) for _ in range(2)]
    net = nt.Sequential(*itertools.chain(*layers), nt.Flatten(), nt.Linear(2))
    scheduled = schedule(programs(net, (1, 6, 6)).quadratic(2).graph, 8, split_some)
    for launch in scheduled.launches:
        maps = [k for k in launch if not k.anchors]
        read = [(k.space, x) for k in maps for x in k.reads if x.shape == k.space.shape]
        assert len(read) == len(set(read))
    check_legal(scheduled)


def test_a_printed_schedule_names_spaces_and_ops():
    net = nt.Sequential(nt.Conv2d(4, 3), nt.SiLU(), nt.Flatten(), nt.Linear(2))
    text = str(schedule(programs(net, (1, 6, 6)).linearize.graph, 2, split_some))
    assert "linearize: " in text.splitlines()[0]
    assert any("N×4×4×4" in line and "conv map" in line for line in text.splitlines())
    assert "conv_weight_grad in 3 parts" in text


@pytest.mark.parametrize(("program", "most"), [("linearize", 50), ("quadratic", 24), ("hvp", 48)])
def test_launches_of_vgg11(program: str, most: int):
    p = programs(nt.models.vgg11(), (3, 32, 32))
    derived = {"quadratic": p.quadratic(1).graph, "hvp": p.hvp.graph}
    graph = {"linearize": linearized(p), **derived}[program]
    assert len(schedule(graph, 200, split_some).launches) <= most


def test_three_products_of_four_operands_share_a_kernel():
    p = programs(nt.models.vgg11(), (3, 32, 32))
    plain = schedule(p.quadratic(1, two_products=False).graph, 200)
    shared = [k for k in plain.kernels if k.shares_loop]
    assert len(shared) == 8 and len(plain.launches) <= 18
    for kernel in shared:
        (x, v), (y, w), (z, u) = (plain.operands[a][:2] for a in kernel.anchors)
        assert x is y and v is u and len({x, z, v, w}) == 4
    check_legal(plain)


def test_kernels_move_at_most_half_of_what_eager_double_backward_moves():
    p = programs(nt.models.vgg11(), (3, 32, 32))
    fused = sum(schedule(g, 200).traffic(200) for g in (linearized(p), p.hvp.graph))
    assert fused <= 0.5 * double_backward(200).moved


def test_values_that_are_looked_up_count_as_far_as_they_are_read():
    table, words = ops.param("t", (50_257, 16)), ops.input_("w", (N, 8), "int")
    rows = ops.make(Op.GATHER_ROWS, table, words)
    s = ops.total([rows, ops.broadcast(ops.param("p", (8, 16)), rows.shape, (0,))])
    found = schedule(Graph("rows", {"s": s}), 4)
    assert len(found.kernels) == 1
    assert found.traffic(4) == 4 * (2 * 4 * 8 * 16 + 4 * 8 + 8 * 16)
    x = ops.input_("x", (N, 100))
    part = ops.scale(ops.make(Op.SLICE, x, axis=1, start=3, stop=10), 2.0)
    assert schedule(Graph("slice", {"y": part}), 4).traffic(4) == 4 * 2 * 4 * 7
    both = ops.map_(var(0) + var(1), part, ops.make(Op.SLICE, x, axis=1, start=0, stop=7))
    assert schedule(Graph("two", {"y": both}), 4).traffic(4) == 4 * 3 * 4 * 7
    looped = ops.reduce_sum(ops.input_("z", (N, 3, 5, 7)), (2,))
    assert schedule(Graph("loop", {"y": looped}), 4).traffic(4) == 4 * 4 * 3 * (5 + 1) * 7


def deep(layers: int) -> Programs:
    """A deep perceptron, in which every layer but the last is two nodes."""
    net = nt.Sequential(*itertools.chain(*((nt.Linear(4), nt.Tanh()) for _ in range(layers))))
    return programs(nt.Sequential(net, nt.Linear(3)), (4,))


def deep_and_normalized(blocks: int) -> Programs:
    """A convolutional network of residual blocks with batch norm."""

    def block() -> nt.Residual:
        return nt.Residual(nt.Sequential(nt.Conv2d(2, 3, padding=1), nt.BatchNorm2d(), nt.ReLU()))

    layers = [block() for _ in range(blocks)]
    return programs(nt.Sequential(*layers, nt.Flatten(), nt.Linear(2)), (2, 4, 4))


def work(graph: Graph, ways: Ways) -> int:
    """How many element rules are run and how many kernels are visited to schedule a graph."""
    placement = Placement(Reading(graph, 8, ways))
    place_all(placement)
    share_loops(placement)
    share_reads(placement)
    return placement.reading.rules_applied + placement.order.visited


@pytest.mark.parametrize(("network", "layers"), [(deep, 20), (deep_and_normalized, 6)])
def test_the_work_of_scheduling_is_linear_in_depth(network: Callable[[int], Programs], layers: int):
    shallow, twice = (graphs(network(count)) for count in (layers, 2 * layers))
    for small, large in zip(shallow, twice, strict=True):
        for ways in (lambda *_: Way(), lambda *_: VENDOR, split_some):
            assert work(large, ways) <= 2.1 * work(small, ways), small.name


def test_deep_networks_are_scheduled_and_lowered_without_recursion():
    scheduled = schedule(deep(600).linearize.graph, 8)
    code = generate(scheduled, {k: Tile(16, 16, 1) for k in scheduled.kernels})
    source = listing([launch.text for launch in code])
    assert len(scheduled.kernels) > 1200
    assert source.count("@triton.jit") < 60  # layers of one shape share their code


def test_chains_without_parameters_are_cut():
    chain = nt.Sequential(*(nt.Tanh() for _ in range(400)), nt.Linear(3))
    graph = programs(chain, (4,)).linearize.graph
    scheduled = schedule(graph, 8)
    generate(scheduled, {k: Tile(16, 16, 1) for k in scheduled.kernels})
    check_legal(scheduled)


def test_a_schedule_is_data():
    net = nt.Sequential(nt.Conv2d(4, 3), nt.SiLU(), nt.Flatten(), nt.Linear(2))
    scheduled = schedule(programs(net, (1, 6, 6)).linearize.graph, 2, split_some)
    assert scheduled.looked_up.isdisjoint(scheduled.leaves)
    for kernel in scheduled.kernels:
        assert all(scheduled.accumulated_by[a] is kernel for a in kernel.anchors)
        assert all(scheduled.kernel_of[node] is kernel for node in kernel.writes)
        assert all(scheduled.part_of[node] is kernel for node in kernel.partials)
    with pytest.raises(dataclasses.FrozenInstanceError):
        scheduled.kernels = []  # type: ignore[misc]


def test_anchors_are_what_has_no_elements():
    assert {op.value for op in ANCHORS} == {
        "matmul", "conv", "conv_input_grad", "conv_weight_grad", "gram", "patch_gram", "spectral",
        "scatter_rows", "all_sum",
    }  # fmt: skip

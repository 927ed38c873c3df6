"""What nodes read: operands that are looked up, and chains that are cut."""

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node, Op
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.language.network import trace
from newtriton.compiler.lowering import reading
from newtriton.compiler.lowering.kernel import ALONE
from newtriton.compiler.lowering.reading import LONGEST_CHAIN, Reading
from newtriton.compiler.programs import Programs

x = ops.input_("x", (N, 4))


def read(out: Node) -> Reading:
    return Reading(Graph("read", {"out": out}), 8, lambda *_: ALONE)


def test_maps_of_given_values_are_computed_by_every_reader():
    a = ops.map_(scalar.tanh(var(0)), x)
    s = ops.reduce_sum(a, (0,))
    found = read(s)
    assert found.looked_up(a) and not found.looked_up(s) and found.leaf(x)
    assert a in found.all_looked_up() and x in found.leaves()


def test_what_is_asked_for_lies_in_memory():
    a = ops.transpose(x, (1, 0))
    assert not read(a).looked_up(a)


def test_operands_of_contractions_lie_in_memory():
    w = ops.param("w", (4, 5))
    product = ops.matmul(ops.map_(scalar.tanh(var(0)), x), w)
    found = read(product)
    left, right = found.operands[product]
    assert right.op is Op.TRANSPOSE and right in found.nodes
    assert not found.looked_up(left) and not found.looked_up(right)


def test_an_image_with_its_channels_last_is_given_and_not_computed():
    traced = trace(nt.Sequential(nt.Conv2d(4, 3), nt.Flatten()), (3, 5, 5), nt.MSELoss())
    found = read(traced.z)
    (last,) = [n for n in found.leaves() if n.op is Op.TRANSPOSE]
    assert last.inputs[0].op is Op.INPUT and last not in found.nodes


def test_a_long_chain_of_lookups_is_cut():
    node, chain = x, []
    for _ in range(3 * LONGEST_CHAIN):
        node = ops.map_(scalar.tanh(var(0)), node)
        chain.append(node)
    found = read(ops.reduce_sum(node, (0,)))
    stored = [n for n in chain if not found.looked_up(n)]
    assert [chain.index(n) for n in stored] == [LONGEST_CHAIN, 2 * LONGEST_CHAIN + 1]


def test_no_chain_of_a_usual_network_is_cut(monkeypatch):
    net = nt.models.vgg11(batch_norm=True)
    p = Programs(trace(net, (3, 32, 32), nt.CrossEntropyLoss(), training=True))
    found = [read_all(g) for g in (p.linearize.graph, p.hvp.graph, p.quadratic(1).graph)]
    monkeypatch.setattr(reading, "LONGEST_CHAIN", LONGEST_CHAIN // 3)
    assert found == [read_all(g) for g in (p.linearize.graph, p.hvp.graph, p.quadratic(1).graph)]


def read_all(graph: Graph) -> frozenset[Node]:
    return Reading(graph, 8, lambda *_: ALONE).all_looked_up()

"""The order of kernels: depths, paths and merging, against networkx."""

import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st

from newtriton.compiler.lowering.kernel import Kernel
from newtriton.compiler.lowering.order import Order
from newtriton.compiler.lowering.space import Space

SPACE = Space((4,), 0)


def order_of(count: int, edges: list[tuple[int, int]]) -> tuple[Order, list[Kernel]]:
    order, kernels = Order(), []
    for _ in range(count):
        kernels.append(Kernel(order.next_number, SPACE))
        order.add(kernels[-1])
    for first, last in edges:
        order.wait(kernels[last], kernels[first])
    return order, kernels


def graph_of(order: Order) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(order)
    graph.add_edges_from((k, later) for k in order for later in order.after[k])
    return graph


def check(order: Order) -> None:
    graph = graph_of(order)
    generations = enumerate(nx.topological_generations(graph))
    assert order.depth == {k: depth for depth, found in generations for k in found}
    for first in order:
        for last in order:
            assert order.reaches(first, last) == nx.has_path(graph, first, last)
    expected = nx.lexicographical_topological_sort(graph, key=lambda k: k.number)
    assert order.in_sequence() == list(expected)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30), st.randoms())
def test_depths_paths_and_sequence_are_those_of_the_graph(pairs, random):
    names = list(range(12))
    random.shuffle(names)  # depths must also rise in kernels that were added before
    order, kernels = order_of(12, [(names[min(p)], names[max(p)]) for p in pairs if p[0] != p[1]])
    check(order)
    apart = [
        (a, b)
        for a in kernels
        for b in kernels
        if a is not b and not order.reaches(a, b) and not order.reaches(b, a)
    ]
    if apart:
        order.merge(apart[0])
        assert apart[0][0] not in order.before
        check(order)


def test_the_youngest_number_is_given_again_when_its_kernel_is_merged():
    order, (_, second, third) = order_of(3, [])
    order.merge([third, second])
    assert order.next_number == 2 and list(order)[-1] is second


def test_a_search_stays_between_two_depths():
    order, kernels = order_of(200, [(i, i + 1) for i in range(199)])
    before = order.visited
    assert not order.reaches(kernels[100], kernels[99])
    assert order.reaches(kernels[100], kernels[103])
    assert order.visited - before <= 4


def test_kernels_without_contractions_share_launches():
    order, kernels = order_of(5, [(0, 2), (1, 3), (2, 4)])
    assert order.launches() == [[kernels[0], kernels[1]], [kernels[2]], [kernels[3], kernels[4]]]

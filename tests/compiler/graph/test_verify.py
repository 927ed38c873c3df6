"""What is no valid graph is found, and the node at fault named."""

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.compiler.graph.ir import Graph, N, Node, Op, Type
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.graph.verify import verify


def test_verify_finds_a_wrong_type_and_two_leaves_of_one_name() -> None:
    x = ops.input_("x", (N, 2))
    wrong = Node(Op.MAP, (x,), {"expr": var(0) + 1.0}, Type((N, 3)))
    with pytest.raises(NewtritonError, match="should be N×2"):
        verify(Graph("g", {"y": wrong}))
    twins = ops.reduce_sum(x), ops.reduce_sum(ops.input_("x", (N, 4)))
    with pytest.raises(NewtritonError, match="'x'"):
        verify(Graph("g", {"a": twins[0], "b": twins[1]}))


def test_verify_gives_a_valid_graph_back() -> None:
    graph = Graph("g", {"y": ops.scale(ops.input_("x", (N, 2)), 2.0)})
    assert verify(graph) is graph


def test_numbers_that_a_dtype_does_not_hold_are_named_with_their_layer() -> None:
    net = nt.Sequential(nt.Linear(3), nt.ELU(1e300))
    for loss in (nt.MSELoss(), nt.CrossEntropyLoss()):
        with pytest.raises(nt.NewtritonError, match=r"number 1e\+300 of 1 \(ELU\) is too large"):
            nt.compile(net, (4,), loss, backend="aten", device="cpu")
    nt.compile(net, (4,), nt.MSELoss(), backend="aten", device="cpu", dtype=torch.float64)
    for loss in (nt.Scaled(nt.MSELoss(), 1e300), nt.BCEWithLogitsLoss(pos_weight=1e300)):
        with pytest.raises(nt.NewtritonError, match=r"too large for torch.float32"):
            nt.compile(nt.Linear(3), (4,), loss, backend="aten", device="cpu")

"""What is said of scores and rows: which are computed in passing, and which are whole, and why."""

from __future__ import annotations

import pytest

import newtriton as nt
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Graph, N, Op
from newtriton.compiler.language.network import trace
from newtriton.compiler.streaming import wide
from newtriton.compiler.streaming.described import described


def lines(net: nt.Sequential, shape: tuple[int, ...], deepest: int | None = None) -> list[str]:
    loss = trace(net, shape, nt.CrossEntropyLoss(), training=True).loss
    return described(Graph("loss", {"loss": loss}), [loss], deepest)


def attention(length: int, width: int, layers: int = 1) -> tuple[nt.Sequential, tuple[int, ...]]:
    body = [nt.Residual(nt.SelfAttention(1)) for _ in range(layers)]
    return nt.Sequential(*body, nt.Flatten(), nt.Linear(3)), (length, width)


def test_layers_alike_share_a_line():
    assert lines(*attention(256, 8)) == ["0.body (SelfAttention): N×1×256×256 in passing"]
    first = "0.body (SelfAttention) … 3.body (SelfAttention), 4 of them"
    assert lines(*attention(256, 8, 4)) == [f"{first}: N×1×256×256 in passing"]


def test_small_scores_are_whole():
    name = "0.body (SelfAttention): "
    assert lines(*attention(16, 4)) == [f"{name}N×1×16×16 whole, fewer than {wide.LEAST} a head"]
    (line,) = lines(*attention(130, 72))
    assert line == f"{name}N×1×130×130 whole, no larger than what is multiplied, 72 numbers each"


def test_large_heads_are_named():
    net, shape = attention(600, 200)
    assert lines(net, shape) == ["0.body (SelfAttention): N×1×600×600 in passing"]
    (line,) = lines(net, shape, deepest=128)
    kept = "products of 200 numbers are kept, which is more than 128"
    assert line.endswith(f"in passing; {kept}; written for matmul")  # by the values


@pytest.mark.parametrize("deepest", [None, 128])
def test_many_classes_are_rows(deepest: int | None):
    net = nt.Sequential(nt.Linear(300), nt.Tanh(), nt.Linear(4096))
    (line,) = lines(net, (5,), deepest)
    limit = wide.SHORT if deepest is None else deepest
    kept = f"products of 300 numbers are kept, which is more than {limit}"
    assert line == f"CrossEntropyLoss: N×4096 in passing; {kept}"


def test_few_classes_and_plain_networks_are_not_mentioned():
    assert lines(nt.Sequential(nt.Linear(5)), (4,)) == []


def test_whoever_needs_a_whole_value_is_named():
    x, y = ops.input_("x", (N, 200, 8)), ops.input_("y", (N, 200, 8))
    scores = ops.matmul(x, y, tb=True)
    weights = ops.softmax(scores)
    turned = ops.transpose(weights, (0, 2, 1))
    asked = Graph("scores", {"weights": weights})
    assert described(asked, [weights])[0].endswith("; written for whoever asks for it")
    padded = ops.make(Op.PAD, turned, axis=1, low=0, high=1)
    assert described(Graph("padded", {"padded": padded}), [padded])[0].endswith(
        "; written for transpose"
    )

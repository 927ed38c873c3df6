"""A small network of attention with an embedding that is tied to its head, in the op set alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import N, Node, Op
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.language.network import Scope

POSITIONS, WIDTH, HEADS, WORDS = 5, 6, 2, 9


def _norm(x: Node, scope: Scope) -> Node:
    """Layer norm with a scale and a shift of each feature."""
    width, last = x.shape[-1], (ops.rank(x) - 1,)

    def mean(value: Node) -> Node:
        return ops.broadcast(ops.scale(ops.reduce_sum(value, last), 1 / width), x.shape, last)

    centred = ops.map_(var(0) - var(1), x, mean(x))
    variance = mean(ops.multiply(centred, centred))
    normal = ops.map_(var(0) / scalar.sqrt(var(1) + 1e-5), centred, variance)
    scale = scope.parameter("weight", (width,), "ones", (width, width))
    shift = scope.parameter("bias", (width,), "zeros", (width, width))
    everywhere = [ops.broadcast(p, x.shape, range(ops.rank(x) - 1)) for p in (scale, shift)]
    return ops.map_(var(0) * var(1) + var(2), normal, *everywhere)


def _linear(x: Node, scope: Scope, features: int) -> Node:
    """A linear map of rows, with weights inputs × outputs."""
    width = x.shape[-1]
    w = scope.parameter("weight", (width, features), "default", (width, features))
    b = scope.parameter("bias", (features,), "default", (width, features))
    return ops.matmul(x, w, b)


class Attentive:
    """The logits of the word after the last, from the words before: N×T int → N×V."""

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns N×V."""
        fans = (WORDS, WIDTH)
        table = scope.child("words").parameter("weight", (WORDS, WIDTH), "xavier", fans)
        places = scope.parameter("places", (1, POSITIONS, WIDTH), "xavier", fans)
        shape = (N, POSITIONS, WIDTH)
        where = ops.broadcast(ops.reshape(places, shape[1:]), shape, (0,))
        h = ops.total([ops.make(Op.GATHER_ROWS, table, x), where])
        h = ops.total([h, self._attention(_norm(h, scope.child("first")), scope.child("attend"))])
        inner = _linear(_norm(h, scope.child("second")), scope.child("up"), 2 * WIDTH)
        inner = ops.map_(var(0) * scalar.sigmoid(var(0)), inner)
        h = ops.total([h, _linear(inner, scope.child("down"), WIDTH)])
        last = ops.make(Op.SLICE, h, axis=1, start=POSITIONS - 1, stop=POSITIONS)
        return ops.matmul(ops.reshape(last, (N, WIDTH)), table, tb=True)

    def _attention(self, x: Node, scope: Scope) -> Node:
        """Self-attention, queries, keys and values from one product."""
        size = WIDTH // HEADS
        packed = ops.reshape(
            _linear(x, scope.child("in"), 3 * WIDTH), (N, POSITIONS, 3, HEADS, size)
        )
        apart = ops.transpose(packed, (2, 0, 3, 1, 4))
        q, k, v = (
            ops.reshape(ops.make(Op.SLICE, apart, axis=0, start=i, stop=i + 1), apart.shape[1:])
            for i in range(3)
        )
        p = ops.softmax(ops.scale(ops.matmul(q, k, tb=True), 1 / math.sqrt(size)))
        o = ops.transpose(ops.matmul(p, v), (0, 2, 1, 3))
        return _linear(ops.reshape(o, (N, POSITIONS, WIDTH)), scope.child("out"), WIDTH)


def attentive(samples: int = 12, **options: object) -> tuple[nt.Model, Tensor, Tensor]:
    """A model and a batch; a word follows from the one before."""
    options = {"dtype": torch.float64, "device": "cpu", **options}
    words = nt.InputSpec((POSITIONS,), "int")
    model = nt.compile(Attentive(), words, nt.CrossEntropyLoss(), **options)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    start = torch.randint(0, WORDS, (samples, 1), generator=generator)
    both = (start + 2 * torch.arange(POSITIONS + 1)) % WORDS
    return model, both[:, :-1], both[:, -1]

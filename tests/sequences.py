"""Networks of tokens with attention, in the op set alone: of images, and of words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import N, Node, Op
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.language.network import Layer, Scope

HIDDEN = 1e9  # subtracted from the score of a word that is not to be seen


def linear(x: Node, scope: Scope, name: str, outputs: int) -> Node:
    """W x + b along the last axis."""
    inputs = x.shape[-1]
    inner, fans = scope.child(name), (inputs, outputs)
    w = inner.parameter("weight", (outputs, inputs), "default", fans)
    return ops.matmul(x, w, inner.parameter("bias", (outputs,), "default", fans), tb=True)


def _mean(x: Node) -> Node:
    """The mean along the last axis, at every element."""
    last = (ops.rank(x) - 1,)
    mean = ops.scale(ops.reduce_sum(x, last), 1.0 / x.shape[-1])
    return ops.broadcast(mean, x.shape, last)


def norm(x: Node, scope: Scope, name: str) -> Node:
    """Layer norm along the last axis."""
    inner, d = scope.child(name), x.shape[-1]
    centred = ops.map_(var(0) - var(1), x, _mean(x))
    variance = _mean(ops.multiply(centred, centred))
    normed = ops.map_(var(0) / scalar.sqrt(var(1) + 1e-5), centred, variance)
    affine = [
        inner.parameter(n, (d,), init, (1, 1))
        for n, init in (("weight", "ones"), ("bias", "zeros"))
    ]
    spread = [ops.broadcast(p, x.shape) for p in affine]
    return ops.map_(var(0) * var(1) + var(2), normed, *spread)


def softmax(s: Node) -> Node:
    """The softmax along the last axis."""
    last = (ops.rank(s) - 1,)
    peak = ops.broadcast(ops.row_max(s, stabiliser=True), s.shape, last)
    e = ops.map_(scalar.exp(var(0) - var(1)), s, peak)
    return ops.map_(var(0) / var(1), e, ops.broadcast(ops.reduce_sum(e, last), s.shape, last))


@dataclass(eq=False)
class Block(Layer):
    """x + attention, then x + a small network, each of the norm of x.

    Attributes:
        heads: the heads of attention.
        causal: whether a word sees only those before it.
    """

    heads: int
    causal: bool = False

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns tokens for tokens."""
        x = ops.total([x, self.attention(norm(x, scope, "first"), scope)])
        inner = linear(norm(x, scope, "second"), scope, "up", 2 * x.shape[-1])
        gelu = ops.map_(0.5 * var(0) * (1.0 + scalar.erf(math.sqrt(0.5) * var(0))), inner)
        return ops.total([x, linear(gelu, scope, "down", x.shape[-1])])

    def attention(self, x: Node, scope: Scope) -> Node:
        """Returns what the heads have seen, put together."""
        _, t, d = x.shape
        packed, size = linear(x, scope, "qkv", 3 * d), d // self.heads
        apart = ops.transpose(ops.reshape(packed, (N, t, 3, self.heads, size)), (2, 0, 3, 1, 4))
        q, k, v = (
            ops.reshape(ops.make(Op.SLICE, apart, axis=0, start=i, stop=i + 1), apart.shape[1:])
            for i in range(3)
        )
        s = ops.scale(ops.matmul(q, k, tb=True), size**-0.5)
        if self.causal:
            hidden = scope.constant(torch.ones(t, t).triu(1) * HIDDEN)
            s = ops.map_(var(0) - var(1), s, ops.broadcast(hidden, s.shape, (0, 1)))
        o = ops.transpose(ops.matmul(softmax(s), v), (0, 2, 1, 3))
        return linear(ops.reshape(o, (N, t, d)), scope, "proj", d)


@dataclass(eq=False)
class Patches(Layer):
    """Images of patches with positions, behind a token of their class.

    Attributes:
        size: the side of a patch.
        width: the size of a token.
    """

    size: int
    width: int

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns tokens for an image."""
        x = scope.build("conv", nt.Conv2d(self.width, self.size, stride=self.size), x)
        x = ops.reshape(x, (N, x.shape[1] * x.shape[2], self.width))
        first = scope.parameter("token", (1, self.width), "default", (1, 1))
        x = ops.make(Op.CONCAT, ops.broadcast(first, (N, 1, self.width), (0,)), x, axis=1)
        positions = scope.parameter("positions", x.shape[1:], "default", (1, 1))
        return ops.total([x, ops.broadcast(positions, x.shape, (0,))])


@dataclass(eq=False)
class First(Layer):
    """The first token."""

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns N×D for tokens."""
        return ops.reshape(ops.make(Op.SLICE, x, axis=1, start=0, stop=1), (N, x.shape[-1]))


@dataclass(eq=False)
class Words(Layer):
    """A model of language whose head has the weights of its embedding: N×V for the words' mean.

    Attributes:
        words: the number of different words.
        width: the size of a token.
        block: what is between embedding and head.
    """

    words: int
    width: int
    block: Block

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns a score of every word."""
        table = scope.parameter("weight", (self.words, self.width), "default", (1, 1))
        x = ops.make(Op.GATHER_ROWS, table, x)
        positions = scope.parameter("positions", x.shape[1:], "default", (1, 1))
        x = scope.build(
            "block", self.block, ops.total([x, ops.broadcast(positions, x.shape, (0,))])
        )
        mean = ops.scale(ops.reduce_sum(x, (1,)), 1.0 / x.shape[1])
        return ops.matmul(mean, table, tb=True)


def vit(width: int = 12, heads: int = 3) -> Layer:
    """Patches, a block and a head on the first token."""
    return nt.Sequential(Patches(2, width), Block(heads), First(), nt.Linear(5))


def gpt(words: int = 7, width: int = 12, heads: int = 3) -> Layer:
    """Words, a causal block and the same words."""
    return Words(words, width, Block(heads, causal=True))

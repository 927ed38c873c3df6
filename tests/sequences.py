"""Networks of tokens: of an image behind a token of its class, of words whose weights are tied."""

from __future__ import annotations

from dataclasses import dataclass

import newtriton as nt
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N, Node, Op
from newtriton.compiler.language.network import Layer, Scope
from newtriton.runtime.checking.networks import block


def _with_positions(x: Node, scope: Scope) -> Node:
    """Adds a parameter to each token."""
    positions = scope.parameter("positions", x.shape[1:], "default", (1, 1))
    return ops.total([x, ops.broadcast(positions, x.shape, (0,))])


class Classified(Layer):
    """A token of the class before the others, and positions."""

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns N×(1 + T)×D for N×T×D."""
        first = scope.parameter("token", (1, x.shape[-1]), "default", (1, 1))
        first = ops.broadcast(first, (N, *first.shape), (0,))
        return _with_positions(ops.make(Op.CONCAT, first, x, axis=1), scope)


class First(Layer):
    """The first token."""

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns N×D for tokens."""
        return ops.reshape(ops.make(Op.SLICE, x, axis=1, start=0, stop=1), (N, x.shape[-1]))


@dataclass(eq=False)
class Tied(Layer):
    """A head that has the weights of the embedding.

    Attributes:
        words: the number of different words.
        width: the size of a token.
        body: what is between them.
    """

    words: int
    width: int
    body: Layer

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns a score of every word at every position."""
        table = scope.parameter("weight", (self.words, self.width), "default", (1, 1))
        x = _with_positions(ops.make(Op.GATHER_ROWS, table, x), scope)
        return ops.matmul(scope.build("body", self.body, x), table, tb=True)


def vit(width: int = 12, heads: int = 3) -> Layer:
    """Patches, a block and a head on the first token."""
    patches = nt.Conv2d(width, 2, stride=2), nt.Flatten(2), nt.Permute((0, 2, 1))
    return nt.Sequential(*patches, Classified(), block(heads, width), First(), nt.Linear(5))


def gpt(words: int = 7, width: int = 12, heads: int = 3) -> Layer:
    """Words, a causal block and the same words."""
    return Tied(words, width, block(heads, width, causal=True))

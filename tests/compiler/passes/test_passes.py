"""Generated passes: what they write is what the graph says, whatever the tiles and the sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node, Op
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.passes.passes import Refusal
from newtriton.compiler.passes.space import Tile
from newtriton.compiler.streaming import wide

from ...streams import Program, random
from ...tolerances import RELATIVE

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # masked elements, in NumPy
]
LENGTH, WORDS, BATCH = 37, 71, 3
TILES = [Tile(64, 64), Tile(16, 32)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets small values pass, and few classes."""
    monkeypatch.setattr(wide, "LEAST", 1)
    monkeypatch.setattr(wide, "MANY", 60)


class Words(nn.Module):
    """Attention of two heads of twelve, whose queries, keys and values are packed, and a head."""

    def __init__(self, dropout: float = 0.0, causal: bool = True, shared: bool = False) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(WORDS, 24), nn.Linear(24, WORDS)
        self.project, self.out = nn.Linear(24, 72), nn.Linear(24, 24)
        self.dropout, self.causal, self.shared = dropout, causal, shared

    def forward(self, x: Tensor) -> Tensor:
        h = self.words(x)
        parts = self.project(h).view(x.shape[0], LENGTH, 3, 2, 12).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        if self.shared:
            k, v = (a[:, :1].repeat_interleave(2, dim=1) for a in (k, v))
        o = functional.scaled_dot_product_attention(
            q, k, v, is_causal=self.causal, dropout_p=self.dropout if self.training else 0.0
        )
        return self.head(functional.silu(h + self.out(o.transpose(1, 2).reshape(h.shape))))


def programs(net: nn.Module, smoothing: float = 0.0) -> Iterator[Graph]:
    loss = nt.CrossEntropyLoss(label_smoothing=smoothing)
    example = torch.zeros(2, LENGTH, dtype=torch.int64)
    known = nt.from_torch(net, example, loss, backend="aten").programs[True]
    tape = {f"kept {i}": n for i, n in enumerate(known.tape)}
    first = known.linearize.graph
    yield Graph(first.name, {**first.outputs, **tape}, first.given)
    for program in (known.hvp, known.ggnvp, known.quadratic(1), known.factors("kfac", 2)):
        yield program.graph


def check(program: Program, tile: Tile | None = None) -> None:
    assert program.streams
    for stream in program.streams:
        for node, value in program.run(stream, tile).items():
            difference = value.double() - program.values[node].double()
            error = float(difference.norm()) / program.scale(node)
            assert error <= RELATIVE[torch.float32], f"{node!r} of {stream}: {error:.1e}"


@pytest.mark.parametrize(
    ("net", "smoothing"),
    [
        pytest.param(Words(), 0.0, id="causal"),
        pytest.param(Words(causal=False, shared=True), 0.1, id="all keys, one for two heads"),
        pytest.param(Words(dropout=0.25), 0.0, id="dropout"),
    ],
)
def test_all_programs_of_a_network_of_words(net: nn.Module, smoothing: float):
    for graph in programs(net, smoothing):
        check(Program(graph, 1, random(WORDS)), Tile(64, 64))


def test_tiles_of_any_size_give_the_same():
    first, *_ = programs(Words())
    program = Program(first, 1, random(WORDS))
    for tile in TILES:
        check(program, tile)


def scores(*lead: int) -> tuple[Node, Node, Node]:
    """Scores of a few heads, and values of what their rows and columns stand for."""
    q, k = (ops.input_(name, (*lead, size, 5)) for name, size in (("q", 21), ("k", 33)))
    return ops.matmul(q, k, tb=True), q, k


def softmax(s: Node) -> Node:
    most = ops.broadcast(ops.row_max(s, stabiliser=True), s.shape, (ops.rank(s) - 1,))
    return ops.softmax(ops.map_(var(0) - var(1), s, most))


def along(x: Node, *axes: int) -> Node:
    return ops.reduce_sum(x, axes)


@pytest.mark.parametrize("tile", TILES, ids=str)
def test_sums_along_any_axes(tile: Tile):
    s, q, k = scores(N, 2)
    p = softmax(s)
    squares = ops.multiply(p, s)
    sums = [along(squares, *axes) for axes in ((3,), (2,), (2, 3), (0, 3), (0, 1, 2), (0, 1, 2, 3))]
    products = [ops.matmul(p, k), ops.matmul(p, q, ta=True)]
    turned = [ops.transpose(x, (0, 1, 3, 2)) for x in (q, k)]
    products += [ops.matmul(turned[0], p), ops.matmul(turned[1], p, tb=True)]
    outputs = {str(i): n for i, n in enumerate([*sums, *products, ops.row_max(s)])}
    check(Program(Graph("sums", outputs), BATCH, random(WORDS)), tile)


@pytest.mark.parametrize("lanes", [False, True])
def test_rows_in_memory(lanes: bool):
    """Rows that come from no product; sums of lanes are added up behind the loop."""
    z, y = ops.input_("z", (N * 5, WORDS)), ops.input_("y", (N * 5,), "int")
    z = ops.map_(var(0) * 20.0, z)
    p = softmax(z)
    outputs = [
        ops.log_sum_exp(z), ops.row_max(z), along(ops.multiply(p, z), 1), along(p, 0), p,
        along(ops.multiply(z, ops.make(Op.ONE_HOT, y, classes=WORDS)), 1), along(z, 0, 1),
    ]  # fmt: skip
    graph = Graph("rows", {str(i): n for i, n in enumerate(outputs)})
    check(Program(graph, BATCH, random(WORDS)), Tile(4, 16, lanes=lanes))


def test_copies_have_their_own_and_share_the_rest():
    s, q, k = scores(N, 2)
    copies = ops.input_("copies", (3, *k.shape))
    p = softmax(s)
    adjoint = ops.multiply(ops.matmul(q, copies, tb=True), ops.broadcast(p, (3, *p.shape), (0,)))
    outputs = [ops.matmul(p, copies), ops.matmul(adjoint, q, ta=True), ops.matmul(p, k)]
    graph = Graph("copies", {str(i): n for i, n in enumerate(outputs)})
    check(Program(graph, BATCH, random(WORDS)), Tile(16, 32))


def test_rows_of_which_nothing_is_seen_and_large_scores():
    s, _, k = scores(N, 2)
    mask = ops.broadcast(ops.input_("mask", (21, 33)), s.shape, (0, 1))
    masked = ops.map_(scalar.where(var(1), var(0) * 300.0, -math.inf), s, mask)
    outputs = [ops.matmul(softmax(masked), k), ops.log_sum_exp(masked), ops.row_max(masked)]
    graph, usual = Graph("masked", {str(i): n for i, n in enumerate(outputs)}), random(WORDS)

    def feed(node: Node, shape: tuple[int, ...]) -> Tensor:
        value = usual(node, shape)
        if node["name"] == "mask":
            value[0], value[1, :20] = -1.0, -1.0  # nothing, and nothing of the first tile
        return value

    program = Program(graph, BATCH, feed)
    for stream in program.streams:
        for node, value in program.run(stream, Tile(16, 16)).items():
            torch.testing.assert_close(
                value, program.values[node].float(), rtol=2e-5, atol=2e-5, equal_nan=True
            )
            assert torch.isfinite(value[:, :, 1:]).all()


def test_what_does_not_fit_is_said():
    q, k = (ops.input_(name, (N, 300, 130)) for name in "qk")
    s = ops.matmul(q, k, tb=True)
    small, _, _ = scores(N, 2)
    kept = along(softmax(small), 0)
    for output, reason in (
        (softmax(s), ""),
        (kept, "a sum over axes (0,) keeps both rows and columns"),
    ):
        graph = Graph("unfit", {"0": along(output, 2), "1": output})
        program = Program(graph, BATCH, random(WORDS))
        found = [program.codes(stream) for stream in program.streams]
        reasons = [each.reason for each in found if isinstance(each, Refusal)]
        assert reasons == ([reason] if reason else [])


def test_drawn_labels():
    z, u = ops.input_("z", (N * 5, WORDS)), ops.input_("uniform", (4, N * 5))
    log_p = ops.map_(var(0), z)
    graph = Graph("draws", {"k": ops.make(Op.SAMPLE, log_p, u), "l": ops.log_sum_exp(log_p)})
    program = Program(graph, BATCH, random(WORDS))
    for stream in program.streams:
        for node, value in program.run(stream, Tile(16, 16)).items():
            assert torch.allclose(value.double(), program.values[node].double(), rtol=1e-5)


class Variety:
    """Random maps and sums of a softmax, its scores, and what belongs to their rows and columns.

    Args:
        seed: chooses what is drawn.
    """

    def __init__(self, seed: int) -> None:
        self.draw = Random(seed)
        rows, columns = self.draw.choice([(21, 33), (16, 16), (33, 17)])
        lead = self.draw.choice([(N,), (N, 2), (2, N)])
        names, sizes = ("q", "x", "k", "v"), (rows, rows, columns, columns)
        self.narrow = [
            ops.input_(name, (*lead, size, 5)) for name, size in zip(names, sizes, strict=True)
        ]
        self.scores = ops.matmul(self.narrow[0], self.narrow[2], tb=True)
        self.last = ops.rank(self.scores) - 1
        self.wide = [softmax(self.scores), self.scores]
        self.of_rows = [ops.input_("r", self.scores.shape[:-1])]
        self.of_columns = ops.input_("c", (columns,))
        self.outputs = [ops.matmul(self.wide[0], self.narrow[3])]

    def graph(self) -> Graph:
        """Returns a graph of some of them."""
        for _ in range(self.draw.randint(2, 7)):
            self.draw.choice([self.map, self.map, self.copy, self.sum])()
        for _ in range(self.draw.randint(1, 4)):
            self.draw.choice([self.product, self.product, self.total, self.sum])()
        outputs = dict.fromkeys(self.outputs)
        return Graph("variety", {str(i): n for i, n in enumerate(outputs)})

    def map(self) -> None:
        """Takes a map of two wide values."""
        exprs = [var(0) * var(1), var(0) - 0.5 * var(1), scalar.tanh(var(0)) + var(1)]
        both = self.draw.choices(self.wide, k=2)
        self.wide.append(ops.map_(self.draw.choice(exprs), *both))

    def copy(self) -> None:
        """Takes a product or a difference of a wide value and what belongs to rows or columns."""
        shape, axes = self.scores.shape, range(self.last)
        row = ops.broadcast(self.draw.choice(self.of_rows), shape, (self.last,))
        copies = self.draw.choice([row, ops.broadcast(self.of_columns, shape, axes)])
        expr = self.draw.choice([var(0) * var(1), var(0) - 0.1 * var(1)])
        self.wide.append(ops.map_(expr, self.draw.choice(self.wide), copies))

    def sum(self) -> None:
        """Sums a row, which later values may be made of."""
        self.of_rows.append(along(self.draw.choice(self.wide), self.last))
        self.outputs.append(self.of_rows[-1])

    def product(self) -> None:
        """Multiplies a wide value by a matrix, over columns or over rows."""
        by_rows = self.draw.random() < 0.5
        other = self.draw.choice(self.narrow[2:] if by_rows else self.narrow[:2])
        self.outputs.append(ops.matmul(self.draw.choice(self.wide), other, ta=not by_rows))

    def total(self) -> None:
        """Sums a wide value over rows or over everything, or normalises it."""
        x, every = self.draw.choice(self.wide), range(self.last + 1)
        totals = [along(x, self.last - 1), along(x, *every), ops.log_sum_exp(x), ops.row_max(x)]
        self.outputs.append(self.draw.choice(totals))


@pytest.mark.parametrize("seed", range(24))
def test_whatever_a_softmax_is_made_into(seed: int):
    precision = ("ieee", "tf32x3")[seed % 2]
    check(Program(Variety(seed).graph(), 2, random(WORDS), precision), TILES[seed // 2 % 2])

"""Rows added at the indices of a table: the adjoint of looking rows up, in a fixed order.

    out[copy, word] = Σ_{positions i with index_i = word} rows[copy, i]

The positions are sorted by their words: runs by counting who comes first, then runs of runs, each
element looking up its place in the others. All positions of a word stand in a row then, and are
added in that order, never by atomics: two runs are bitwise equal. A word may have one position or
nearly all: stretches of a fixed length that are one word's alone are added beforehand, side by
side. Rows that nobody names are written as zeros.
"""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .pointwise import power, tile_shape

WAYS = 8  # sorted runs that become one in a pass
BLOCK = 128  # elements of a program instance that looks places up
TURN = 16  # elements of a run that are compared with all of it at once
TERMS = 4  # rows of a word that are on their way to a program instance at once
ELEMENTS = 1024  # of a tile of rows that are added beforehand


@triton.jit
def _below(ordered, key, low, high, steps):
    """Returns where numbers below a key end between two places of an ascending list."""
    for _ in range(steps):
        middle = (low + high) // 2
        apart = low < high
        less = tl.load(ordered + middle, mask=apart, other=0) < key
        low = tl.where(apart & less, middle + 1, low)
        high = tl.where(apart & ~less, middle, high)
    return low


@triton.jit(do_not_specialize=["count", "size"])
def sort_runs(index, ordered, count, size, RUN: tl.constexpr, TURN: tl.constexpr):
    """Sorts a run of words: writes them, and behind `count` of them their positions.

    Words that the table of `size` rows does not have become −1 or `size`.
    """
    start = tl.program_id(0) * RUN
    i = start + tl.arange(0, RUN)
    key = tl.load(index + i, mask=i < count, other=0)
    key = tl.minimum(tl.maximum(key, -1), size).to(tl.int32)
    rank = tl.zeros((RUN,), tl.int32)
    for turn in range(0, RUN, TURN):
        j = start + turn + tl.arange(0, TURN)
        other = tl.load(index + j, mask=j < count, other=0)
        other = tl.minimum(tl.maximum(other, -1), size).to(tl.int32)[None, :]
        first = (other < key[:, None]) | ((other == key[:, None]) & (j[None, :] < i[:, None]))
        rank += tl.sum((first & (j < count)[None, :]).to(tl.int32), axis=1)
    tl.store(ordered + start + rank, key, mask=i < count)
    tl.store(ordered + count + start + rank, i, mask=i < count)


@triton.jit(do_not_specialize=["count", "run", "steps"])
def merge_runs(
    ordered, merged, count, run, steps, WAYS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Merges sorted runs, so many to one; of equal words those of earlier runs come first."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    key = tl.load(ordered + i, mask=inside, other=0)
    own = i // run
    group = own // WAYS * WAYS
    other = group[:, None] + tl.arange(0, WAYS)[None, :]
    start = tl.minimum(tl.minimum(other, count // run + 1) * run, count)
    stop = tl.where(inside[:, None], tl.minimum(start + run, count), start)
    bound = key[:, None] + (other < own[:, None]).to(tl.int32)
    ahead = _below(ordered, bound, start, stop, steps) - start
    ahead = tl.where(other == own[:, None], (i - own * run)[:, None], ahead)
    place = group * run + tl.sum(ahead, axis=1)
    tl.store(merged + place, key, mask=inside)
    position = tl.load(ordered + count + i, mask=inside, other=0)
    tl.store(merged + count + place, position, mask=inside)


@triton.jit(do_not_specialize=["count", "size", "steps"])
def find_words(ordered, starts, count, size, steps, BLOCK: tl.constexpr):
    """Writes for every word where its positions start, and behind the last one where they end."""
    word = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    nothing = tl.zeros((BLOCK,), tl.int32)
    start = _below(ordered, word, nothing, nothing + count, steps)
    tl.store(starts + word, start, mask=word <= size)


@triton.jit(do_not_specialize=["count", "parts"])
def add_parts(
    rows, ordered, sums, count, parts, COLUMNS: tl.constexpr, PART: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Adds the rows of a part of the sorted positions, if it is one word's alone."""
    strips: tl.constexpr = (COLUMNS + BN - 1) // BN
    which = tl.program_id(0) // strips
    n = tl.program_id(0) % strips * BN + tl.arange(0, BN)
    copy = which // parts
    start = which % parts * PART
    if tl.load(ordered + start) == tl.load(ordered + start + PART - 1):
        acc = tl.zeros((BM, BN), tl.float32)
        for turn in range(0, PART, BM):
            row = tl.load(ordered + count + start + turn + tl.arange(0, BM))
            at = ((copy * count + row) * COLUMNS)[:, None] + n[None, :]
            acc += tl.load(rows + at, mask=(n < COLUMNS)[None, :], other=0.0)
        tl.store(sums + which * COLUMNS + n, tl.sum(acc, axis=0), mask=n < COLUMNS)


@triton.jit(do_not_specialize=["batch", "total", "count", "parts"])
def scatter_rows(
    rows, ordered, starts, sums, p, batch, total, count, parts, SIZE: tl.constexpr,
    COLUMNS: tl.constexpr, PART: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    TERMS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Computes one tile of the result, and hands it to the slot.

    Of each word these are the rows before its first part, its parts, and the rows behind them.
    """
    strips: tl.constexpr = (COLUMNS + BN - 1) // BN
    i = tl.program_id(0) // strips
    j = tl.program_id(0) % strips
    m = i * BM + tl.arange(0, BM)
    n = j * BN + tl.arange(0, BN)
    copy = m // SIZE
    start = tl.load(starts + m % SIZE, mask=m < total, other=0)
    stop = tl.load(starts + m % SIZE + 1, mask=m < total, other=0)
    first = (start + PART - 1) // PART
    whole = tl.maximum(stop // PART - first, 0)
    before = tl.where(whole > 0, first * PART, stop) - start
    behind = before + whole
    terms = tl.where(whole > 0, behind + stop % PART, before)
    acc = tl.zeros((BM, BN), tl.float32)
    for turn in range(0, tl.max(terms, axis=0), TERMS):
        for k in tl.static_range(TERMS):
            term = turn + k
            part = (term >= before) & (term < behind)
            alone = (term < terms) & ~part
            place = start + term + tl.where(term < behind, 0, whole * (PART - 1))
            row = tl.load(ordered + count + place, mask=alone, other=0)
            at = ((copy * count + row) * COLUMNS)[:, None] + n[None, :]
            acc += tl.load(rows + at, mask=alone[:, None] & (n < COLUMNS)[None, :], other=0.0)
            row = copy * parts + first + term - before
            at = (row * COLUMNS)[:, None] + n[None, :]
            acc += tl.load(sums + at, mask=part[:, None] & (n < COLUMNS)[None, :], other=0.0)
    STAGES[0](acc, i, j, 0, m, n, (m < total)[:, None], (n < COLUMNS)[None, :], p, batch)


@dataclass(frozen=True)
class RowTiles:
    """How rows are sorted and added.

    Attributes:
        bm: the words of a tile.
        bn: the columns of a tile.
        run: the positions that are sorted at once, a multiple of `TURN`.
        part: the sorted positions that are added beforehand where they are one word's.
    """

    bm: int
    bn: int
    run: int
    part: int


@dataclass(frozen=True)
class RowGeometry:
    """The shapes of rows that are added at indices.

    Attributes:
        size: the rows of a table.
        columns: the numbers of a row.
    """

    size: int
    columns: int

    def tiles(self, copies: int, count: int, elements: int) -> RowTiles:
        """Returns tiles of about so many elements for the tables of copies.

        A word that has all positions takes about as many turns as a part.
        """
        bm, bn = tile_shape(copies * self.size, self.columns, 256, elements)
        part = max(TURN, min(power(math.isqrt(count)), 1024))
        return RowTiles(bm, bn, 256, part)

    def constants(self, tiles: RowTiles) -> dict[Any, dict[str, Any]]:
        """Returns by kernel its constexpr arguments, without the slots."""
        row = {"COLUMNS": self.columns, "PART": tiles.part, "BN": tiles.bn}
        bm = min(tiles.part, max(1, ELEMENTS // tiles.bn))
        return {
            sort_runs: {"RUN": tiles.run, "TURN": TURN},
            merge_runs: {"WAYS": WAYS, "BLOCK": BLOCK},
            find_words: {"BLOCK": BLOCK},
            add_parts: {**row, "BM": bm},
            scatter_rows: {**row, "SIZE": self.size, "BM": tiles.bm, "TERMS": TERMS},
        }

    def instances(self, tiles: RowTiles, copies: int, count: int) -> dict[Any, int]:
        """Returns by kernel the number of its program instances."""
        strips = -(-self.columns // tiles.bn)
        return {
            sort_runs: -(-count // tiles.run),
            merge_runs: -(-count // BLOCK),
            find_words: -(-(self.size + 1) // BLOCK),
            add_parts: copies * (count // tiles.part) * strips,
            scatter_rows: -(-copies * self.size // tiles.bm) * strips,
        }


def merges(count: int, run: int) -> Iterator[int]:
    """Yields the length of the runs that each pass merges, until one has all positions."""
    while run < count:
        yield run
        run *= WAYS


def scatter_rows_reference(rows: Tensor, index: Tensor, size: int) -> Tensor:
    """Returns copies × size × D of rows, copies × positions × D, and their words: the oracle."""
    hot = torch.nn.functional.one_hot(index.long(), size).to(rows.dtype)
    return hot.mT @ rows

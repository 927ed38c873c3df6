"""Which ranks hold the factors of a layer: these average, factorise and solve, the others do not.

K ranks stand in m rows of K/m columns. Each layer has a column, whose m ranks hold it; so a row has
every layer once. Factors are summed within rows, at the rank of their column, then within columns;
directions are given by each column to the rest of its row. With m = K all ranks hold everything,
with m = 1 each layer has one owner, and between them m/K is the fraction of KAISA (Pauloski et al.
2021, section 3.2).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import compress

import torch
from torch import Tensor

from .ranks import Ranks

LIGHT = 1.0  # the work of a layer in which nothing is inverted


@dataclass(frozen=True)
class Grid:
    """Ranks in rows and columns.

    Attributes:
        ranks: all of them.
        row: those of this one's row: number i of it is in column i.
        column: those of its column.
    """

    ranks: Ranks
    row: Ranks
    column: Ranks

    @classmethod
    def of(cls, ranks: Ranks, rows: int, timeout: timedelta | None = None) -> Grid:
        """Returns ranks in so many rows, a number that divides theirs; all of them call it."""
        columns = ranks.size // rows
        row, column = divmod(ranks.rank, columns)
        mine = ranks.part(range(row * columns, (row + 1) * columns), timeout)
        return cls(ranks, mine, ranks.part(range(column, ranks.size, columns), timeout))

    def begin(self) -> Ranks:
        """Counts what rows and columns do next as one call of all ranks, and returns the row."""
        if not (self.row.alone or self.row is self.ranks):
            self.ranks.begin()
        return self.row


def rows_of(ranks: int, fraction: float) -> int:
    """Returns the most rows, of those that divide the ranks, which are at most such a fraction.

    Examples:
        >>> rows_of(8, 0.5), rows_of(6, 0.5), rows_of(6, 0.4), rows_of(4, 0.0)
        (4, 3, 2, 1)
    """
    most = max(1, int(round(fraction * ranks, 9)))  # 0.29 · 100 is below 29
    return next(m for m in range(most, 0, -1) if ranks % m == 0)


def placed(costs: Mapping[str, float], columns: int) -> dict[str, int]:
    """Returns a column for each layer: the longest work first, each to where least is so far.

    No column holds light ones alone: each that holds some gives directions by a call of its own.

    Args:
        costs: the work on each layer; up to `LIGHT` where nothing is inverted.
        columns: how many columns there are.

    Examples:
        >>> placed({"a": 3.0, "b": 5.0, "c": 3.0}, 2)
        {'a': 1, 'b': 0, 'c': 1}
    """
    heavy = sum(cost > LIGHT for cost in costs.values()) or len(costs)
    loads, found = [0.0] * min(columns, max(heavy, 1)), dict[str, int]()
    for name in sorted(costs, key=lambda name: -costs[name]):
        found[name] = least = loads.index(min(loads))
        loads[least] += costs[name]
    return {name: found[name] for name in costs}


@dataclass(frozen=True)
class Owners:
    """The columns that hold layers.

    Attributes:
        grid: the ranks.
        columns: by the name of each parameter, the column of its layer.

    Examples:
        >>> import torch
        >>> from newtriton.runtime.parallel.ranks import Ranks
        >>> owners = Owners(Grid.of(Ranks(None), 1), {"weight": 0})
        >>> owners.hold(["weight"]), owners.everything, owners.agree(1.0, 2.0)
        (True, True, [[1.0, 2.0]])
    """

    grid: Grid
    columns: Mapping[str, int]

    @property
    def everything(self) -> bool:
        """Whether every rank holds everything."""
        return self.grid.row.alone

    def hold(self, names: Sequence[str]) -> bool:
        """Whether this rank holds the layer that has these parameters."""
        return self.everything or self.columns[names[0]] == self.grid.row.rank

    def agree(self, *numbers: float) -> list[list[float]]:
        """Returns the numbers that the ranks of a row have, which are the same in all rows."""
        return self.grid.begin().gather(torch.tensor(numbers, dtype=torch.float64)).tolist()

    def all_sum(self, x: Tensor) -> Tensor:
        """Returns the sum over a row of what each of its ranks has of the layers that it holds."""
        return self.grid.begin().all_sum(x)

    def sum_(
        self,
        *tensors: Tensor,
        symmetric: Sequence[Tensor],
        dtype: torch.dtype | None,
        names: Sequence[Collection[str]],
    ) -> None:
        """Sums tensors over all ranks, in place; nothing is left of them where nobody holds them.

        Args:
            tensors: what is summed.
            symmetric: symmetric matrices, of which one triangle travels.
            dtype: the dtype in which these matrices travel, theirs unless given.
            names: for each of both the parameters that it is about.
        """
        row, column = self.grid.begin(), self.grid.column
        wanted = [{self.columns[name] for name in about} for about in names]
        to = [min(columns) if len(columns) == 1 else None for columns in wanted]
        row.sum_(*tensors, symmetric=symmetric, dtype=dtype, to=to)
        here = [rank in (None, row.rank) for rank in to]
        mine = [*compress(tensors, here)], [*compress(symmetric, here[len(tensors) :])]
        column.sum_(*mine[0], symmetric=mine[1], dtype=dtype)

    def give(self, views: Mapping[str, Tensor]) -> None:
        """Gives all ranks the parts of a vector that columns have, in place.

        Args:
            views: the parts by parameter.
        """
        row = self.grid.begin()
        if not row.alone:
            of = range(row.size)
            row.give([[x for n, x in views.items() if self.columns[n] == i] for i in of])

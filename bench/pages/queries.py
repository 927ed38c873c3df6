"""Queries into files of results: which rows, which field of them, and what is made of it.

    cpu-second-order call="newtriton: gradient" .median_ms
    cpu-kfac-jax method=KFAC .updates
    gpu-second-order net=vgg11 call="eager: hvp" .median_ms / call="newtriton: gradient + hvp"
    gpu-kernels sum .kernels
    sequences-counted positions=1024 by=ieee call=gradient .MB_moved / 1000
    static-sm_90[summary] max .spills
    soak .parts."full disks".trials

A lookup is a file, conditions on the fields of its rows, and fields. A condition is NAME=VALUE, or
with `!=`, `<`, `<=`, `>`, `>=`; `|` stands between values of which one will do, and what has spaces
in it stands in quotes. A field begins with a dot, and so does each name or index inside it; `.*` is
everything in a list or an object. FILE[NAME] is another list of the file than its `rows`; a field
whose first name the file itself has is the file's. All values that are found count, row by row and
field by field, unless `min`, `max`, `sum`, `mean`, `median` or `count` makes one of them.

Lookups and numbers are joined by `+`, `-`, `*` and `/`, from left to right, value by value. A
lookup without a file goes on from the one before it, and says what differs: other conditions on a
field take the place of those before. `;` begins another query.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import mean, median
from typing import Any, TypeAlias

from ...compiler.graph.errors import NewtritonError, quoted
from .results import Results

Condition: TypeAlias = tuple[str, str, tuple[str, ...]]
WORD = re.compile(r'(?:"[^"]*"|[^\s";])+|;')
COMPARISON = re.compile(r'("[^"]*"|[\w-]+)(<=|>=|!=|=|<|>)(.+)', re.DOTALL)
PATH = re.compile(r'\.("[^"]*"|[^."]+)')
FILE = re.compile(r"([\w/.-]+?)(?:\[(\w+)\])?")
REDUCERS: dict[str, Callable[[list[float]], float]] = {
    "min": min, "max": max, "sum": sum, "mean": mean, "median": median, "count": len,
}  # fmt: skip
JOINS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
}  # fmt: skip
COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True)
class Lookup:
    """Values of a file.

    Attributes:
        file: its name.
        among: the list of the file that the rows are in.
        conditions: a field, a comparison, and the values of which one will do, for each.
        reducer: what makes one value of all, "" where none does.
        paths: the names and indices that lead to each field.
    """

    file: str
    among: str = "rows"
    conditions: tuple[Condition, ...] = ()
    reducer: str = ""
    paths: tuple[tuple[str, ...], ...] = ()

    def values(self, results: Results) -> list[float]:
        """Returns the values that are found.

        Raises:
            NewtritonError: there are none, or what is found is no number.
        """
        held = results.file(self.file)
        if self.paths and self.paths[0][0] in held and not self.conditions:
            rows: list[Any] = [held]
        else:
            rows = [row for row in held.get(self.among, ()) if self._takes(row)]
        if self.reducer == "count" and not self.paths:
            return [float(len(rows))]
        found = [value for row in rows for path in self.paths for value in _inside(row, path)]
        for value in found:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise NewtritonError(f"{self} leads to {quoted(value)}, which is no number")
        if not found:
            raise NewtritonError(f"{self} leads to nothing")
        return [REDUCERS[self.reducer](found)] if self.reducer else found

    def _takes(self, row: Any) -> bool:
        """Returns whether a row meets all conditions."""
        return all(
            name in row and any(_holds(row[name], how, value) for value in values)
            for name, how, values in self.conditions
        )

    def __str__(self) -> str:
        conditions = [f"{name}{how}{'|'.join(values)}" for name, how, values in self.conditions]
        paths = ["".join(f".{name}" for name in path) for path in self.paths]
        return " ".join([self.file, *conditions, *filter(None, [self.reducer]), *paths])


def evaluate(query: str, results: Results) -> list[float]:
    """Returns the values of a query.

    Raises:
        NewtritonError: the query is none, or leads to nothing or to what is no number.

    Examples:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> rows = [{"call": "ours", "ms": 2.0}, {"call": "theirs", "ms": 3.0}]
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "made.json").write_text(json.dumps({"rows": rows}))
        >>> evaluate("made call=theirs .ms / call=ours", Results(folder))
        [1.5]
    """
    words = WORD.findall(query)
    found, values, join, last = list[float](), list[float](), "", None
    for part in _parts(words):
        if part == [";"]:
            found += values
            values, join = [], ""
        elif len(part) == 1 and part[0] in JOINS:
            join = part[0]
        else:
            term, last = _term(part, last, results)
            values = _joined(join, values, term, query) if join else term
            join = ""
    if join or not values:
        raise NewtritonError(f"the query {quoted(query)} ends where a value is due")
    return found + values


def _parts(words: list[str]) -> Iterator[list[str]]:
    """Yields the words of each term, and what stands between terms by itself."""
    part = list[str]()
    for word in words:
        if word == ";" or word in JOINS:
            if part:
                yield part
            yield [word]
            part = []
        else:
            part.append(word)
    if part:
        yield part


def _term(
    words: list[str], last: Lookup | None, results: Results
) -> tuple[list[float], Lookup | None]:
    """Returns the values of a term, and the lookup that the next one goes on from."""
    if len(words) == 1:
        try:
            return [float(words[0])], last
        except ValueError:
            pass
    lookup = _lookup(words, last)
    return lookup.values(results), lookup


def _lookup(words: list[str], last: Lookup | None) -> Lookup:
    """Returns the lookup that words say, which goes on from the last one unless it has a file."""
    first, *rest = words
    named = FILE.fullmatch(first) if first not in REDUCERS and first[0] != "." else None
    if named:
        found = Lookup(named[1], named[2] or "rows")
    elif last is None:
        raise NewtritonError(f"a query begins with the name of a file, not with {quoted(first)}")
    else:
        found, rest = last, words
    conditions, paths, reducer = list[Condition](), list[tuple[str, ...]](), found.reducer
    for word in rest:
        if word in REDUCERS:
            reducer = word
        elif word[0] == ".":
            paths.append(tuple(name.strip('"') for name in PATH.findall(word)))
        elif condition := COMPARISON.fullmatch(word):
            name, how, value = condition.groups()
            values = (part.strip('"') for part in re.findall(r'"[^"]*"|[^|]+', value))
            conditions.append((name.strip('"'), how, (*values,)))
        else:
            raise NewtritonError(
                f"{quoted(word)} in a query is no condition NAME=VALUE, no .FIELD and none of "
                f"{', '.join(REDUCERS)}"
            )
    told = {name for name, _, _ in conditions}
    kept = [condition for condition in found.conditions if condition[0] not in told]
    fields = tuple(paths) or found.paths
    return replace(found, conditions=(*kept, *conditions), reducer=reducer, paths=fields)


def _holds(value: Any, how: str, given: str) -> bool:
    """Returns whether a comparison holds: of numbers where both are some, else of texts."""
    if isinstance(value, bool) or value is None:
        return COMPARED[how](str(value).lower(), given.lower())
    if isinstance(value, int | float):
        try:
            return COMPARED[how](value, float(given))
        except ValueError:
            return how == "!="
    return COMPARED[how](str(value), given)


def _inside(value: Any, path: tuple[str, ...]) -> Iterator[Any]:
    """Yields what a path leads to, the items of a list one by one; maybe nothing."""
    if isinstance(value, list) and not path:
        path = ("*",)
    if not path:
        yield value
        return
    first, *rest = path
    if first == "*" and isinstance(value, dict | list):
        inside = list(value.values()) if isinstance(value, dict) else value
    elif isinstance(value, dict):
        inside = [value[first]] if first in value else []
    elif isinstance(value, list) and first.lstrip("-").isdigit():
        inside = value[int(first) :][:1]
    else:
        inside = []
    for part in inside:
        yield from _inside(part, (*rest,))


def _joined(join: str, a: list[float], b: list[float], query: str) -> list[float]:
    """Returns what an operator makes of two lists of values, one of which may be a single one."""
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        raise NewtritonError(f"{quoted(query)} joins {len(a)} values with {len(b)}")
    count = max(len(a), len(b))
    a, b = (values * (count // len(values)) for values in (a, b))
    try:
        return [JOINS[join](x, y) for x, y in zip(a, b, strict=True)]
    except ZeroDivisionError:
        raise NewtritonError(f"{quoted(query)} divides by zero") from None

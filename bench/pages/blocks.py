"""Blocks of a page that are made: between `<!-- table NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeAlias

from ...compiler.graph.errors import NewtritonError, quoted
from .results import Results

Table: TypeAlias = Callable[..., Iterable[str]]
BEGIN = re.compile(r"^<!-- table (.*?) -->\n", re.MULTILINE)
END = "<!-- end -->"
BLOCK = re.compile(rf"{BEGIN.pattern}.*?{END}", re.DOTALL | re.MULTILINE)
FENCE = re.compile(r"^ *(`{3,}|~{3,}).*?^ *\1[`~]*[^\S\n]*$", re.DOTALL | re.MULTILINE)
NAME = re.compile(r"([\w-]+)(?:\((.*)\))?")


def filled(text: str, results: Results, tables: Mapping[str, Table]) -> str:
    r"""Returns a page with all its blocks made anew.

    Args:
        text: the page.
        results: the files that tables are made of.
        tables: what makes each table, by name: a function of the results and of what stands in
            parentheses behind the name, which yields lines. The files that it has asked for are
            named below them.

    Raises:
        NewtritonError: a block has no end, or there is no table of its name.

    Examples:
        >>> from pathlib import Path
        >>> page = "Before.\n\n<!-- table squares(3) -->\n<!-- end -->\n\nBehind."
        >>> squares = lambda results, n: ["| x | x² |", "|---|---|"] + [f"| {n} | {int(n) ** 2} |"]
        >>> print(filled(page, Results(Path()), {"squares": squares}))
        Before.
        <BLANKLINE>
        <!-- table squares(3) -->
        | x | x² |
        |---|---|
        | 3 | 9 |
        <!-- end -->
        <BLANKLINE>
        Behind.
    """
    parts, place, bare = list[str](), 0, without_code(text)
    while found := BEGIN.search(bare, place):
        end = bare.find(END, found.end())
        following = BEGIN.search(bare, found.end())
        if end < 0 or (following and following.start() < end):
            raise NewtritonError(f"the table {quoted(found[1])} has no {END} behind it")
        lines = made(found[1], results, tables)
        parts += [text[place : found.end()], *(f"{line}\n" for line in lines)]
        place = end
    return "".join([*parts, text[place:]])


def made(call: str, results: Results, tables: Mapping[str, Table]) -> list[str]:
    """Returns the lines of a table, with the files that it is made of behind them.

    Raises:
        NewtritonError: there is no table of this name, or it does not take the arguments.
    """
    named = NAME.fullmatch(call)
    if named is None or named[1] not in tables:
        raise NewtritonError(f"there is no table {quoted(call)}: there are {', '.join(tables)}")
    arguments = [part.strip() for part in (named[2] or "").split(",") if part.strip()]
    table = partial(tables[named[1]], results, *arguments)
    results.asked.clear()
    try:
        lines = [*table()]
    except TypeError as error:
        raise NewtritonError(f"the table {quoted(call)}: {error}") from error
    if results.asked:
        lines += ["", f"*{results.origin()}.*"]
    return lines


def blank(match: re.Match[str]) -> str:
    """Returns as many characters and lines as there were, without what they said."""
    return re.sub(r"[^\n]", " ", match[0])


def without_code(text: str) -> str:
    """Returns a page without its blocks of code, everything else where it was."""
    return FENCE.sub(blank, text)

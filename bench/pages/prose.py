"""Figures in the prose of a page, and the marks that say where they come from.

A mark is a comment right behind a figure, without a space, and no reader of the page sees it:

    296 ms<!-- cpu-second-order call="newtriton: hvp" .median_ms -->  a query, see `queries`
    45, 50 and 55<!-- cpu-kfac-jax method=KFAC .updates -->  as many figures as it has values
    4 transfers<!-- tests/runtime/test_x.py::test_name -->  a test that asserts the number
    3 minutes<!-- by examples/demo.py, 2026-11-26 -->  a script whose rows no file has, and when

A value is compared with a figure in the digits that the page shows. The last two forms may also
stand on a line of their own: they then hold all figures of the paragraph or table that follows.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path

from ...compiler.graph.errors import NewtritonError
from .blocks import BLOCK, blank, without_code
from .queries import evaluate
from .results import Results

NUMBER = re.compile(
    r"(?<![\w.,/^-])[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?(?!\w|-[A-Za-z]|\.\d)"
)
WORDS = (
    "ns|µs|ms|s|seconds|minutes|hours|kB|MB|GB|TB|MiB|GiB|GB/s|TB/s|TFLOP/s|GFLOP|"
    "launches|kernels|transfers|times (?:as|faster|less|more|sooner)"
)
UNIT = re.compile(rf"\s?(?:×(?!\w|\s?\d)|%|(?:{WORDS})(?!\w))")
ROW = re.compile(r"^ *\|.*\|\s*$", re.MULTILINE)
CELL = re.compile(r"(?<=\|) *\**([^|\n]*?)\** *(?=\|)")
MARK = re.compile(r"(?<=\S)<!--\s*(.*?)\s*-->", re.DOTALL)
ALONE = re.compile(r"^<!--\s*((?:tests/|by ).*?)\s*-->\n((?:.+\n?)*)", re.MULTILINE)
TEST = re.compile(r"(tests/[\w/.]+\.py)::(\w+)")
SCRIPT = re.compile(r"by ([\w/.-]+\.\w+), \d{4}-\d\d-\d\d")
HIDDEN = (  # code, what stands for a picture, and addresses
    re.compile(r"`[^`\n]+`"), re.compile(r"!\[[^\]]*\]"), re.compile(r"(?<=\])\([^)\n]*\)"),
)  # fmt: skip
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
PARAGRAPH = re.compile(r"\n\s*\n|\|")


@dataclass(frozen=True)
class Fault:
    """What is wrong on a page.

    Attributes:
        line: the line, from 1 on.
        what: what is wrong there.
    """

    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.line}: {self.what}"


def faults(text: str, results: Results, root: Path) -> list[Fault]:
    """Returns the marks of a page that do not hold what stands before them.

    Args:
        text: the page.
        results: the files that queries are into.
        root: the folder that tests and scripts are in.
    """
    return [
        Fault(_line(text, at), wrong)
        for at, _, complaints in _marks(text, results, root)
        for wrong in complaints
    ]


def unheld(text: str, results: Results, root: Path) -> list[Fault]:
    """Returns the figures that no mark holds: numbers with a unit, and cells of tables.

    A number in code, in a table that is made, or in the address of a link is no figure.
    """
    shown = _prose(text)
    held = {place for _, places, _ in _marks(text, results, root) for place in places}
    return [
        Fault(_line(text, start), shown[start:end])
        for start, end in sorted(dict(_figures(shown)).items())
        if start not in held
    ]


def _marks(
    text: str, results: Results, root: Path
) -> Iterator[tuple[int, Sequence[int], list[str]]]:
    """Yields where each mark is, where the figures are that it holds, and what is wrong with it."""
    shown = _prose(text)
    for mark in ALONE.finditer(without_code(text)):
        yield mark.start(), range(*mark.span()), _source(mark[1], root)
    for mark in MARK.finditer(_bare(text)):
        if mark[1].startswith(("tests/", "by ")):
            yield mark.start(), _behind(shown, mark.start(), 1), _source(mark[1], root)
            continue
        try:
            values = evaluate(mark[1], results)
        except NewtritonError as error:
            yield mark.start(), [], [str(error)]
            continue
        places = _behind(shown, mark.start(), len(values))
        yield mark.start(), places, _differences(shown, places, values, mark[1])


def _differences(
    shown: str, places: Sequence[int], values: Sequence[float], query: str
) -> list[str]:
    """Returns in what the figures at some places differ from the values of a query."""
    said = [figure[0] for at in places if (figure := NUMBER.match(shown, at))]
    if len(said) < len(values):
        return [f"{query} has {len(values)} values, and {len(said)} figures stand before it"]
    return [
        f"{figure} is {as_shown(figure, value)} in {query}"
        for figure, value in zip(said, values, strict=True)
        if not agrees(figure, value)
    ]


def _figures(shown: str) -> Iterator[tuple[int, int]]:
    """Yields where numbers begin that fill a table's cell or have a unit, and where they end."""
    for row in ROW.finditer(shown):
        for cell in CELL.finditer(shown, *row.span()):
            if NUMBER.fullmatch(shown, *cell.span(1)):
                yield cell.span(1)
    for number in NUMBER.finditer(shown):
        if unit := UNIT.match(shown, number.end()):
            yield number.start(), unit.end()


def agrees(figure: str, value: float) -> bool:
    """Returns whether a value is a figure in the digits that it has.

    Examples:
        >>> agrees("1.72", 1.7249), agrees("1.72", 1.7251), agrees("4,235", 4235.0)
        (True, False, True)
        >>> agrees("3.6e-4", 0.000363), agrees("40", 41.0)
        (True, False)
    """
    said = _decimal(figure)
    half = Decimal(5).scaleb(_exponent(said) - 1)
    return abs(Decimal(str(value)) - said) <= half * Decimal("1.000001")


def as_shown(figure: str, value: float) -> str:
    """Returns a value in as many digits as a figure has."""
    exponent = _exponent(_decimal(figure))
    rounded = Decimal(str(value)).quantize(Decimal(1).scaleb(exponent))
    return f"{rounded:e}" if "e" in figure else f"{rounded:f}"


def _decimal(figure: str) -> Decimal:
    """Returns a figure as it is written."""
    return Decimal(figure.replace(",", "").replace("−", "-"))


def _exponent(number: Decimal) -> int:
    """Returns the power of ten of a number's last digit."""
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)  # a figure is finite
    return exponent


def _behind(shown: str, end: int, count: int) -> list[int]:
    """Returns where the last figures before a mark begin, in its paragraph or cell.

    What stands before another mark is that one's.

    Args:
        shown: the prose, with a null character where each mark begins.
        end: where the mark is.
        count: how many figures.
    """
    before = [m.end() for m in PARAGRAPH.finditer(shown, 0, end)][-1:]
    start = max([*before, shown.rfind("\0", 0, end) + 1])
    return [m.start() for m in NUMBER.finditer(shown, start, end)][-count:]


def _source(mark: str, root: Path) -> list[str]:
    """Returns what is wrong with a mark that names a test or a script."""
    if test := TEST.fullmatch(mark):
        return [] if test[2] in _tests(root / test[1]) else [f"there is no test {mark}"]
    script = SCRIPT.fullmatch(mark)
    if script and (root / script[1]).is_file():
        return []
    return [f"{mark!r} names no test as tests/FILE.py::NAME and no script as by FILE, DATE"]


@cache
def _tests(path: Path) -> frozenset[str]:
    """Returns the names of the functions in a file of tests."""
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _line(text: str, at: int) -> int:
    """Returns the line of a place."""
    return text.count("\n", 0, at) + 1


def _bare(text: str) -> str:
    """Returns a page without its code and what is made, everything else where it was."""
    text = without_code(text)
    for hidden in (BLOCK, *HIDDEN):
        text = hidden.sub(blank, text)
    return text


def _prose(text: str) -> str:
    """Returns what is said on a page, with a null character where each mark begins."""
    text = MARK.sub(lambda mark: "\0" + blank(mark)[1:], _bare(text))
    return COMMENT.sub(blank, text)

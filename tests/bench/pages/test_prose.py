"""Figures are compared with what their marks lead to, and those without a mark are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from newtriton.bench.pages.prose import agrees, as_shown, faults, unheld

from ...sources import ROOT
from .made import results

HERE = "tests/bench/pages/test_prose.py"


@pytest.mark.parametrize(
    "text",
    [
        "It takes 4.0 ms<!-- made net=a min .ms -->.",
        "It takes 6 and 4 ms<!-- made net=a .ms -->, 1,250 ms<!-- made net=b .ms -->.",
        "1.5×<!-- made net=a max .ms / min .ms -->",
        "an error of 1.0e-7<!-- papers/other .ms -->, and of 1e-7<!-- papers/other .ms -->",
        "| net | 6 ms<!-- made net=a max .ms --> | 4 ms<!-- made net=a min .ms --> |",
        "**1.25 s**<!-- made net=b .ms / 1000 -->",
        f"at most 4 transfers<!-- {HERE}::test_marks_that_hold -->",
        "in 3 minutes<!-- by examples/demo.py, 2026-11-26 -->",
        f"<!-- {HERE}::test_marks_that_hold -->\n| | 4 ms |\n|---|---|\n| | 17 |\n\nBehind it.",
        "<!-- any other comment -->\n\nNo figure.",
        "`7 ms`, [a link](page-7.html), ![7 ms](x.svg), VGG11, 32×32, batches of 64, 2-D, 2.13.0",
        "```\n7 ms\n```\n\n<!-- table x -->\n| 7 ms | 8 |\n<!-- end -->\n",
    ],
)
def test_marks_that_hold(text: str, tmp_path: Path) -> None:
    files = results(tmp_path)
    assert faults(text, files, ROOT) == unheld(text, files, ROOT) == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("5 ms<!-- made net=a min .ms -->", "1: 5 is 4 in made net=a min .ms"),
        ("\n\n1.51×<!-- made net=a max .ms / 4 -->", "3: 1.51 is 1.50 in"),
        ("6 and 5 ms<!-- made net=a .ms -->", "1: 5 is 4 in"),
        ("6 and\n\n4 ms<!-- made net=a .ms -->", "has 2 values, and 1 figures stand before it"),
        ("| 6 | 4 ms<!-- made net=a .ms --> |", "has 2 values, and 1 figures stand before it"),
        ("5e-7<!-- papers/other .ms -->", "1: 5e-7 is 1e-7 in"),
        ("4 ms<!-- mode .ms -->", "has no 'mode'"),
        (f"4 ms<!-- {HERE}::test_none -->", "there is no test"),
        ("4 ms<!-- tests/none.py::test_none -->", "there is no test"),
        ("4 ms<!-- by examples/none.py, 2026-11-26 -->", "names no test"),
        ("4 ms<!-- by examples/demo.py -->", "names no test"),
    ],
)
def test_marks_that_do_not_hold(text: str, what: str, tmp_path: Path) -> None:
    (found,) = faults(text, results(tmp_path), ROOT)
    assert what in str(found)


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        ("It takes 4 ms, or 1.72× as long.", ["1: 4 ms", "1: 1.72×"]),
        ("80 launches\nand 97.5 % of 1,224 MB.", ["1: 80 launches", "2: 97.5 %", "2: 1,224 MB"]),
        ("| a | 17 | **0.5** |\n|---|---|---|\n", ["1: 17", "1: 0.5"]),
        ("3 ms, 4 ms<!-- made net=a min .ms -->", ["1: 3 ms"]),
        ("4 ms <!-- made net=a min .ms -->", ["1: 4 ms"]),
        ("2.1 times as fast", ["1: 2.1 times as"]),
    ],
)
def test_figures_without_a_mark_are_found(text: str, figures: list[str], tmp_path: Path) -> None:
    assert [str(found) for found in unheld(text, results(tmp_path), ROOT)] == figures


def test_a_figure_is_compared_in_its_digits() -> None:
    assert agrees("1,250", 1250.4) and not agrees("1,250", 1251.0)
    assert agrees("0.45", 0.445) and agrees("0.44", 0.445)
    assert agrees("−0.09", -0.092) and agrees("3.6e-4", 3.55e-4)
    assert as_shown("1.72", 1.726) == "1.73" and as_shown("3.6e-4", 0.00041) == "4.1e-4"

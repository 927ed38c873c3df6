"""Queries find what files have, and say what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

import newtriton as nt
from newtriton.bench.pages.queries import evaluate

from .made import results


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("made .ms", [6.0, 4.0, 1250.0]),
        ("made net=a .ms", [6.0, 4.0]),
        ('made call="ours: hvp" .ms', [4.0, 1250.0]),
        ('made call="eager: hvp"|"ours: hvp" net!=b min .ms', [4.0]),
        ("made ms>4 ms<=1250 .ms", [6.0, 1250.0]),
        ("made good=true .ms", [1250.0]),
        ("made count", [3.0]),
        ("made .seed", [1.0, 2.0, 3.0, 4.0]),
        ("made .seed.1 .ms", [2.0, 6.0, 4.0, 4.0, 1250.0]),
        ("made .seed.-1", [2.0, 4.0]),
        ('made .of."told, y"', [2.0, 4.0]),
        ("made max .of.*", [4.0]),
        ("made sum .ms", [1260.0]),
        ("made net=a mean .ms", [5.0]),
        ("made net=a median .ms", [5.0]),
        ("made[summary] target=x .spills", [7.0]),
        ("made .summary.0.spills", [7.0]),
        ("papers/other .ms", [1e-7]),
        ('made net=a call="eager: hvp" .ms / call="ours: hvp"', [1.5]),
        ("made net=a .ms / 2 - 1", [2.0, 1.0]),
        ("made net=a .ms ; net=b .ms / 1000", [6.0, 4.0, 1.25]),
        ("made net=b .ms / made net=a min .ms + 0.5", [313.0]),
        ("made net=a .ms * .seed.0", [6.0, 12.0]),
    ],
)
def test_a_query_finds(query: str, expected: list[float], tmp_path: Path) -> None:
    assert evaluate(query, results(tmp_path)) == expected


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("", "ends where a value is due"),
        ("made .ms /", "ends where a value is due"),
        ("none .ms", "has no 'none': it has made, papers/other"),
        (".ms", "begins with the name of a file, not with '.ms'"),
        ("made .call", "which is no number"),
        ("made .good", "which is no number"),
        ("made net=c .ms", "leads to nothing"),
        ("made .nothing", "leads to nothing"),
        ("made ms .ms", "'ms' in a query is no condition"),
        ("made .ms / net=a", "joins 3 values with 2"),
        ("made net=a .ms / 0", "divides by zero"),
    ],
)
def test_what_is_wrong_is_said(query: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(nt.NewtritonError, match=what):
        evaluate(query, results(tmp_path))

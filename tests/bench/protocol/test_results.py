"""Rows as a file has them."""

from __future__ import annotations

from pathlib import Path

import pytest

import newtriton as nt
from newtriton.bench.protocol.results import Result, rounded


def test_numbers_have_five_digits_and_what_is_not_finite_is_none() -> None:
    row = {"a": [1.2345678, float("inf"), 3], "b": {"c": float("nan")}, "d": "x", "e": (True, None)}
    expected = {"a": [1.2346, None, 3], "b": {"c": None}, "d": "x", "e": [True, None]}
    assert rounded(row) == expected


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    Result({"size": "smoke"}, [{"a": 1}]).save(path)
    assert Result.load(path) == Result({"size": "smoke"}, [{"a": 1}])
    for text in ("[]", "{", "{}", '{"rows": []}', '{"machine": {}, "rows": [1]}', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(nt.NewtritonError, match=r"rows\.json (holds no rows|is damaged)"):
            Result.load(path)

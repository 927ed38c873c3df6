"""Columns of tables are as wide as their widest cells."""

import pytest

from newtriton.runtime.diagnostics.tables import table


def test_the_first_column_is_flush_left_and_the_others_right():
    lines = table([["layer", "x", "error"], ["longer name", "0.5", "1"]]).splitlines()
    assert lines == ["layer          x  error", "longer name  0.5      1"]


def test_all_lines_are_equally_long():
    shown = table([["a", "b"], ["ccc", "1234"], ["", "5"]])
    assert {len(line) for line in shown.splitlines()} == {9}


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(ValueError):
        table([["a", "b"], ["c"]])

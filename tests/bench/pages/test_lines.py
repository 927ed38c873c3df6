"""Tables in Markdown."""

from newtriton.bench.pages.lines import table, times


def test_a_table_has_its_rows() -> None:
    found = [*table(["", "a"], [["x", "1"], ["", "2"]])]
    assert found == ["| | a |", "|---|---|", "| x | 1 |", "| | 2 |"]


def test_what_is_slower_is_in_bold() -> None:
    assert times(2.0, 1.0) == "2.00×" and times(1.0, 2.0) == "**0.50×**"

"""Blocks of pages are made anew, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import newtriton as nt
from newtriton.bench.pages.blocks import filled
from newtriton.bench.pages.results import Results

from .made import results


def times(files: Results, net: str = "b") -> Iterator[str]:
    yield from (f"| {row['ms']} |" for row in files.rows("made", net=net))


def nothing(_: Results) -> Iterator[str]:
    yield "| – |"


TABLES = {"times": times, "nothing": nothing}
PAGE = """# Page

<!-- table times(a) -->
| what was here |
<!-- end -->

```markdown
<!-- table no-name -->
```

<!-- table nothing -->
<!-- end -->
Behind it.
"""


def test_blocks_are_filled_with_the_files_behind_them(tmp_path: Path) -> None:
    found = filled(PAGE, results(tmp_path), TABLES)
    origin = "*`made.json`: A chip, 1 thread, PyTorch 2.13.0, 2026-11-26.*"
    assert f"<!-- table times(a) -->\n| 6.0 |\n| 4.0 |\n\n{origin}\n<!-- end -->" in found
    assert "```markdown\n<!-- table no-name -->\n```" in found
    assert found.endswith("<!-- table nothing -->\n| – |\n<!-- end -->\nBehind it.\n")
    assert filled(found, results_again(tmp_path), TABLES) == found


def results_again(folder: Path) -> Results:
    return Results(folder)


@pytest.mark.parametrize(
    ("page", "what"),
    [
        ("<!-- table times -->\n", "has no <!-- end -->"),
        ("<!-- table times -->\n<!-- table times -->\n<!-- end -->\n", "has no <!-- end -->"),
        ("<!-- table other -->\n<!-- end -->\n", "no table 'other': there are times, nothing"),
        ("<!-- table times(a, b) -->\n<!-- end -->\n", "positional argument"),
    ],
)
def test_what_is_wrong_is_said(page: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(nt.NewtritonError, match=what):
        filled(page, results(tmp_path), TABLES)

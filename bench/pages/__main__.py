"""Numbers on pages: makes tables of files of results, and compares figures with them.

A page has a table between two comments, on lines of their own:

    <!-- table beside(cpu-second-order) -->
    <!-- end -->

`--write` makes all tables anew; their names are listed by `--tables`. A figure in a sentence has a
comment right behind it, which says where it comes from:

    it takes 296 ms<!-- cpu-second-order call="newtriton: gradient + quadratic form" .median_ms -->

The modules `queries` and `prose` beside this one say what else such a comment can be. Without
`--write` nothing is changed: what is not as it should be is printed, and the status is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from ...compiler.graph.errors import NewtritonError
from ...runtime.arguments import Parser
from .blocks import filled
from .prose import faults
from .results import FOLDER, Results
from .tables import TABLES


def pages(root: Path) -> list[Path]:
    """Returns the pages of a clone: README.md and what docs/ has.

    Raises:
        NewtritonError: the folder is no clone.
    """
    found = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    if not found[0].is_file() or not (root / FOLDER).is_dir():
        raise NewtritonError(f"{root} has no README.md and {FOLDER}: give --root, a clone")
    return found


def check(page: Path, results: Results, root: Path) -> Iterator[str]:
    """Yields what is wrong on a page: a table that its files do not make, a figure that they deny.

    Args:
        page: the page.
        results: the files.
        root: the clone.
    """
    text, name = page.read_text(encoding="utf-8"), page.relative_to(root).as_posix()
    try:
        anew = filled(text, results, TABLES)
    except NewtritonError as error:
        yield f"{name}: {error}"
    else:
        for number, (line, made) in enumerate(
            zip_longest(text.splitlines(), anew.splitlines(), fillvalue=""), 1
        ):
            if line != made:
                yield f"{name}:{number}: {line!r} is {made!r} in what its table is made of"
                break
    yield from (f"{name}:{fault}" for fault in faults(text, results, root))


def main() -> None:
    """Compares all pages with the files, or makes their tables anew."""
    parser = Parser(
        prog="newtriton bench pages",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--write", action="store_true", help="make all tables anew")
    parser.add_argument("--tables", action="store_true", help="list the tables that there are")
    parser.add_argument("--root", type=Path, default=Path(), help="the clone (default: here)")
    options = parser.parse_args()
    if options.tables:
        for name, table in TABLES.items():
            print(f"{name:16} {(table.__doc__ or '').splitlines()[0]}")
        return
    root, results = options.root, Results(options.root / FOLDER)
    found = list[str]()
    for page in pages(root):
        if options.write:
            text = page.read_text(encoding="utf-8")
            page.write_text(filled(text, results, TABLES), encoding="utf-8")
        found += check(page, results, root)
    print("\n".join(found) or "all tables and figures are those of the files")
    if found:
        sys.exit(1)


if __name__ == "__main__":
    main()

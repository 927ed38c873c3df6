"""Verdicts are counted as the pages of the papers have them."""

from newtriton.bench.pages.claims import claims
from newtriton.bench.pages.results import FOLDER, Results

from ...sources import ROOT


def test_verdicts_are_those_of_the_papers_pages() -> None:
    *_, last = claims(Results(ROOT / FOLDER))
    text = "".join(page.read_text() for page in (ROOT / "docs/papers").glob("*.md"))
    found = [
        text.count(f"**{verdict}**") for verdict in ("Agrees", "Contradicts", "Cannot be told")
    ]
    assert last == f"| **all** | {sum(found)} | {' | '.join(map(str, found))} |"

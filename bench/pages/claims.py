"""Tables of the papers: how many of their claims agree with what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from ..paper.papers import PAPERS
from ..protocol.results import VERDICTS
from .lines import table
from .results import Results


def claims(results: Results) -> Iterator[str]:
    """Yields the verdicts on the claims of each paper, from the rows of its experiments."""
    total, lines = Counter[str](), list[list[str]]()
    for name, paper in PAPERS.items():
        found = Counter[str]()
        for experiment, what in paper.experiments.items():
            if f"papers/{experiment}" in results.names:
                rows = results.rows(f"papers/{experiment}")
                found.update(finding.verdict for finding in what.findings(rows))
        total += found
        lines.append([f"[{paper.citation}](papers/{name}.md)", *_counts(found)])
    lines.append(["**all**", *_counts(total)])
    yield from table(["", "claims", *VERDICTS.values()], lines)


def _counts(found: Counter[str]) -> list[str]:
    """Returns how many claims there are, and how many with each verdict."""
    return [str(found.total()), *(str(found[verdict]) for verdict in VERDICTS)]


TABLES: dict[str, Callable[..., Iterator[str]]] = {"claims": claims}

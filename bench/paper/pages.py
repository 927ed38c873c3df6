"""The page of a paper: every experiment with its picture and findings, made of files of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...compiler.graph.errors import NewtritonError
from ..protocol.experiment import Experiment, Paper
from ..protocol.results import Result, paragraphs
from .papers import PAPERS


def write(results: Path, pages: Path) -> None:
    """Writes the pages of all papers.

    Args:
        results: the folder with the experiments' files.
        pages: the folder for the pages, where the pictures are.
    """
    pages.mkdir(parents=True, exist_ok=True)
    for name, paper in PAPERS.items():
        text = "\n\n".join(blocks(paper, results)) + "\n"
        (pages / f"{name}.md").write_text(text, encoding="utf-8")


def blocks(paper: Paper, results: Path) -> Iterator[str]:
    """Yields the blocks of a paper's page."""
    yield f"# {paper.citation}"
    yield (
        "Each experiment is run by `newtriton bench paper NAME`. Its claims stand beside what was "
        "found, from the rows in `bench/results/papers/`; this page is made of them by "
        "`newtriton bench paper --pages`."
    )
    for name, experiment in paper.experiments.items():
        yield f"## `{name}`"
        yield f"{experiment.question} ({experiment.place})"
        path = results / f"{name}.json"
        if not path.exists():
            yield "Not run yet."
            continue
        yield f"![{name}]({name}.png)"
        yield from _found(experiment, path)


def _found(experiment: Experiment, path: Path) -> list[str]:
    """Returns what an experiment found, as paragraphs.

    Raises:
        NewtritonError: the file does not hold its rows.
    """
    result = Result.load(path)
    try:
        return list(paragraphs(experiment, result))
    except Exception as error:  # whatever a finding stumbles over that has other rows
        what = f"{type(error).__name__}: {error}"
        raise NewtritonError(f"{path} holds other rows than the experiment's ({what})") from error

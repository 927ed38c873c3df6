"""What an experiment of a paper is: its rows, its picture, and what the rows say of its claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Size = Literal["smoke", "default", "full"]
Verdict = Literal["agrees", "contradicts", "open"]
Row = dict[str, Any]  # numbers, words, and lists of them, as JSON has them
T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """How much of an experiment is run, and on what.

    Attributes:
        size: "full" is the paper's own, "default" some minutes on two cores, "smoke" seconds.
        seeds: the seeds of weights and order; each gives rows of its own.
        data_dir: the folder with the published files of data sets; None if there is none.
    """

    size: Size = "default"
    seeds: tuple[int, ...] = (0, 1, 2)
    data_dir: Path | None = None

    def of(self, *, smoke: T, default: T, full: T) -> T:
        """Returns the value for this size."""
        return {"smoke": smoke, "default": default, "full": full}[self.size]


@dataclass(frozen=True)
class Finding:
    """A claim of a paper beside what was measured.

    Attributes:
        paper: what the paper found, with its numbers and where they stand.
        ours: what was found here, with its numbers.
        verdict: "agrees", "contradicts", or "open" where the rows cannot tell.
        why: the reason for the verdict: what was compared, and what explains a difference.
    """

    paper: str
    ours: str
    verdict: Verdict
    why: str


@dataclass(frozen=True)
class Experiment:
    """An experiment of a paper.

    Attributes:
        question: what it asks, in a line.
        place: the tables and figures of the paper, such as "Tables 4–9".
        measure: makes the rows; a run that fails is a row with a `fault`.
        figure: draws rows, those of a file as well.
        findings: what the rows say of the paper's claims.
    """

    question: str
    place: str
    measure: Callable[[Setting], list[Row]]
    figure: Callable[[list[Row]], Figure]
    findings: Callable[[list[Row]], list[Finding]]


@dataclass(frozen=True)
class Paper:
    """A paper and its experiments.

    Attributes:
        citation: authors, year and title.
        experiments: its experiments by name.
    """

    citation: str
    experiments: Mapping[str, Experiment]

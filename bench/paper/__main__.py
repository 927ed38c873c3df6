"""The experiments of four papers by name: rows, a picture, and the claims beside what was found.

The default size takes some minutes on two cores; data sets whose files are not in `--data-dir` are
replaced by ones that need no files, and the rows say so. `--full` is the paper's own size.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

from ...compiler.graph.errors import NewtritonError, meant
from ...compiler.graph.options import check_count
from ...runtime.arguments import Parser
from ...runtime.reporting.facts import counted
from ..protocol.experiment import Setting, Size
from ..protocol.results import Result, paragraphs, run
from . import pages
from .papers import EXPERIMENTS, PAPERS

RESULTS = Path("bench/results/papers")


def parser() -> Parser:
    """Returns the parser of the options."""
    result = Parser(prog="newtriton bench paper", description=__doc__)
    add = result.add_argument
    add("names", nargs="*", metavar="NAME", help="experiments; without one they are listed")
    add("--list", action="store_true", help="list the experiments")
    size = result.add_mutually_exclusive_group()
    for name, what in (("full", "the paper's own size"), ("smoke", "seconds, to try it out")):
        size.add_argument(
            f"--{name}", dest="size", action="store_const", const=name, default="default", help=what
        )
    add("--seeds", type=int, default=3, metavar="K", help="seeds 0 … K − 1 (default: 3)")
    add("--data-dir", type=Path, metavar="DIR", help="the folder with published files of data")
    add(
        "--output", type=Path, default=Path("runs/papers"), metavar="DIR",
        help="the folder for rows and pictures (default: %(default)s)",
    )  # fmt: skip
    add(
        "--pages", type=Path, metavar="DIR",
        help=f"write the papers' pages into DIR, of the rows in {RESULTS}",
    )  # fmt: skip
    return result


def listing(results: Path) -> str:
    """Returns the experiments with what they ask, and with what they took where files say so.

    Args:
        results: the folder with the experiments' files.
    """
    width = max(map(len, EXPERIMENTS), default=0)
    lines, sources = list[str](), dict[str, None]()
    for paper in PAPERS.values():
        lines.append(paper.citation)
        for name, experiment in paper.experiments.items():
            taken = [each.origin for each in _results(results, name)]
            sources |= {_source(origin): None for origin in taken}
            costs = ", ".join(f"{_time(o['seconds'])} at {o['size']} size" for o in taken)
            asks = f"{experiment.question} ({experiment.place})"
            lines.append(f"  {name:{width}}  {asks}{f': {costs}' * bool(costs)}")
    if sources:
        lines.append(f"Times are those of {results}: {'; '.join(sources)}.")
    else:
        lines.append(f"What they took stands in {results} of newtriton's sources: list them there.")
    return "\n".join(lines)


def _results(folder: Path, name: str) -> list[Result]:
    """Returns what the files of an experiment have: NAME.json, and others as NAME-full.json."""
    paths = [folder / f"{name}{end}.json" for end in ("", *(f"-{size}" for size in get_args(Size)))]
    return [Result.load(path) for path in paths if path.exists()]


def _source(origin: dict[str, Any]) -> str:
    """Returns the machine that times are of, and for how many seeds."""
    return f"{origin['device']}, {counted(len(origin['seeds']), 'seed')}"


def _time(seconds: float) -> str:
    """Returns about how long something takes."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def main() -> None:
    """Runs the experiments that are named."""
    options = parser().parse_args()
    if options.pages is not None:
        pages.write(RESULTS, options.pages)
        return
    if options.list or not options.names:
        print(listing(RESULTS))
        return
    check_count("--seeds", options.seeds)
    if unknown := [name for name in options.names if name not in EXPERIMENTS]:
        known = f"{', '.join(EXPERIMENTS)}{meant(unknown[0], EXPERIMENTS)}"
        raise NewtritonError(f"there is no experiment {unknown[0]!r}: there are {known}")
    setting = Setting(options.size, tuple(range(options.seeds)), options.data_dir)
    for name in options.names:
        print(f"{name}: {EXPERIMENTS[name].question}", file=sys.stderr, flush=True)
        result = run(EXPERIMENTS[name], setting)
        result.save(options.output / f"{name}.json")
        EXPERIMENTS[name].figure(result.rows).savefig(options.output / f"{name}.png")
        text = "\n\n".join(paragraphs(EXPERIMENTS[name], result))
        (options.output / f"{name}.md").write_text(f"{text}\n", encoding="utf-8")
        print(f"{text}\n\nrows, picture and text are in {options.output / name}.*")


if __name__ == "__main__":
    main()

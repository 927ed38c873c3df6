"""`newtriton plot`: draws what runs have recorded into a picture."""

import argparse
from pathlib import Path

from ..compiler.graph.errors import one_line
from ..runtime.charting.saving import save
from ..runtime.reporting.figures import figure_of
from ..runtime.reporting.quantities import ACCURACY, AXES, KNOWN, LOSS, recorded
from ..runtime.reporting.reading import runs_of
from .catalogue import DEFAULT


def add_to(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.set_defaults(run=run)
    add = command.add_argument
    add("runs", nargs="+", metavar="RUN", help="the folder of a run, or a file of History.save")
    add(
        "--output", type=Path, required=True, metavar="FILE",
        help="the picture, whose ending says in which format: .png, .svg, .pdf",
    )  # fmt: skip
    add(
        "--against", nargs="+", choices=AXES, default=["epochs"],
        help=f"what it is drawn against, a row each: {', '.join(AXES)} {DEFAULT}",
    )  # fmt: skip
    add(
        "--what", nargs="+", metavar="NAME",
        help=f"what is drawn, a column each: {', '.join(KNOWN)}, or another number that steps "
        "recorded (default: loss, and accuracy where there is one)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Draws the picture."""
    runs = runs_of(options.runs)
    known = recorded(runs)
    what = options.what or [q.name for q in (LOSS, ACCURACY) if q.name in known]
    save(figure_of(runs, what, options.against), options.output)
    print(f"the picture is in {one_line(str(options.output))}")

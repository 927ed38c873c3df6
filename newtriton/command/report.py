"""`newtriton report`: writes what runs have recorded as one page."""

import argparse
from pathlib import Path

from ..compiler.graph.errors import one_line
from ..runtime.reporting.report import report
from .catalogue import DEFAULT


def add_to(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.set_defaults(run=run)
    command.add_argument(
        "runs", nargs="+", metavar="RUN", help="the folder of a run, or a file of History.save"
    )
    command.add_argument(
        "--output", type=Path, default=Path("report.html"), metavar="FILE",
        help=f"the page, which loads nothing from anywhere {DEFAULT}",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Writes the page."""
    report(options.runs, options.output)
    print(f"the report is in {one_line(str(options.output))}")

"""The command line: `newtriton train | report | plot | inspect | check | bench`.

What cannot be done is said in one line on stderr, with exit status 2. Where nobody reads the output
to its end, as under `| head -1`, the program ends like others: quietly, with status 141.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import __version__
from ..compiler.graph.errors import NewtritonError, one_line
from ..runtime.arguments import CANNOT, Parser
from ..runtime.model.compile import PRECISIONS
from . import bench, inspect, plot, report, train

CLOSED = 141  # the exit status that is a shell's for SIGPIPE
DESCRIPTION = "A compiler for second-order neural-network training."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["train"]:
            given[1:] = train.arguments_with_file(given[1:])
        options = parser(given).parse_args(given)
        status = options.run(options) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - flushed at the end
        return CLOSED
    except (NewtritonError, OSError) as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return CANNOT


def parser(arguments: Sequence[str] = ()) -> Parser:
    """Returns the parser of the commands and their options.

    Args:
        arguments: what is going to be parsed, which decides what help texts list.
    """
    top = Parser(prog="newtriton", description=DESCRIPTION)
    top.add_argument("--version", action="version", version=f"newtriton {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    about = "train a network, and keep the run in a folder"
    training = commands.add_parser("train", help=about, allow_abbrev=False)
    train.add_to(training, arguments)
    report.add_to(commands.add_parser("report", help="write what runs recorded as one page"))
    plot.add_to(commands.add_parser("plot", help="draw what runs recorded into a picture"))
    inspect.add_to(commands.add_parser("inspect", help="show what a network compiles to"))
    _add_check(commands.add_parser("check", help="hold the kernels to account"))
    bench.add_to(commands.add_parser("bench", help="run a measurement, or list them"))
    return top


def _add_check(command: argparse.ArgumentParser) -> None:
    """Adds the options of `newtriton check`."""
    command.set_defaults(run=_check)
    add = command.add_argument
    add("--gpu", action="store_true", help="run the kernels on a GPU, and compile none ahead")
    add("--only", choices=("numbers", "code"), help="one half, without --gpu (default: both)")
    add("--nets", nargs="+", default=["vgg11"], help="for code and --gpu (default: vgg11)")
    add(
        "--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS),
        help="precisions of contractions, for numbers, code and --gpu (default: all)",
    )  # fmt: skip
    add(
        "--targets", nargs="+", default=["sm_90"],
        help="chips among sm_90, sm_100, sm_80, gfx942, for code (default: sm_90)",
    )  # fmt: skip
    add(
        "--workers", type=int, default=os.cpu_count(),
        help="processes that compile, for code (default: the cores, %(default)s here)",
    )  # fmt: skip
    add(
        "--seconds", type=float, default=420.0,
        help="with --gpu, nothing is begun later (default: %(default)s)",
    )  # fmt: skip
    add("--json", type=Path, help="a file for the lines as data (default: none)")


def _check(options: argparse.Namespace) -> int:
    """Checks numbers and code in processes of their own: one interprets, the other compiles."""
    halves = ("numbers", "code") if options.only is None else (options.only,)
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not options.gpu and (len(halves) > 1 or (halves == ("numbers",) and not interpreted)):
        worst = 0
        for half in halves:
            if worst != CANNOT:  # the second half would say the same again
                worst = max(worst, _half(options, half))
        return worst
    from . import check  # noqa: PLC0415 - Triton only where it is used

    return check.run(options)


def _half(options: argparse.Namespace, half: str) -> int:
    """Runs one half of a check and returns its status."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    if half == "numbers":
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "newtriton.command.main", "check", "--only", half]
    for name in ("nets", "precisions", "targets"):
        command += [f"--{name}", *getattr(options, name)]
    command += ["--workers", str(options.workers)]
    if options.json is not None:
        both = options.only is None
        path = options.json.with_stem(f"{options.json.stem}-{half}") if both else options.json
        command += ["--json", str(path)]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

"""`newtriton bench`: runs a measurement, or lists them."""

import argparse
import pkgutil
import runpy
import sys

from .. import bench
from ..compiler.graph.errors import NewtritonError, quoted


def add_to(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.set_defaults(run=run)
    command.add_argument("name", nargs="?", help="the measurement; without a name they are listed")
    command.add_argument(
        "rest", nargs=argparse.REMAINDER, help="options of the measurement, passed on to it"
    )


def run(options: argparse.Namespace) -> None:
    """Does what `python -m newtriton.bench.NAME` does."""
    modules = pkgutil.iter_modules(bench.__path__)
    names = [module.name for module in modules if not module.name.startswith("_")]
    if options.name is None:
        print("\n".join(names))
        return
    if options.name not in names:
        listed = ", ".join(names) or "there are none"
        raise NewtritonError(f"there is no measurement {quoted(options.name)}: {listed}")
    sys.argv[1:] = options.rest
    runpy.run_module(f"{bench.__name__}.{options.name}", run_name="__main__", alter_sys=True)

"""`newtriton bench`: runs a measurement, or lists them."""

import argparse
import pkgutil
import runpy
import sys

from .. import bench
from ..compiler.graph.errors import NewtritonError, meant, quoted

QUICK = "peers"  # the measurement whose reduced form is `newtriton bench --quick`


def add_to(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.set_defaults(run=run)
    command.add_argument(
        "--quick",
        action="store_true",
        help="two small networks beside the peers: what all compute must agree",
    )
    command.add_argument("name", nargs="?", help="the measurement; without a name they are listed")
    command.add_argument(
        "rest", nargs=argparse.REMAINDER, help="options of the measurement, passed on to it"
    )


def run(options: argparse.Namespace) -> None:
    """Does what `python -m newtriton.bench.NAME` does."""
    modules = pkgutil.iter_modules(bench.__path__)
    names = [module.name for module in modules if not module.name.startswith("_")]
    name, rest = options.name, list(options.rest)
    if options.quick:
        if name not in (None, QUICK):
            raise NewtritonError(f"--quick is for {QUICK!r} alone: leave it out for {quoted(name)}")
        name, rest = QUICK, ["--quick", *rest]
    if name is None:
        print("\n".join(names))
        return
    if name not in names:
        listed = ", ".join(names) or "there are none"
        raise NewtritonError(
            f"there is no measurement {quoted(name)}: {listed}{meant(name, names)}"
        )
    sys.argv[1:] = rest
    runpy.run_module(f"{bench.__name__}.{name}", run_name="__main__", alter_sys=True)

"""`newtriton bench peers`: ours beside PyTorch, torch.compile, BackPACK, curvlinops and kfac-jax.

Each side gets the same network, batch and directions. What it computes is compared before it is
timed; calls of an operation take turns. A row has the quantiles 20, 50 and 80, and how many
gradients of PyTorch's autograd the median is. Times of all networks come first, then peak memory.
Rows are kept in the file after each operation, and those that are there are not measured again.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...compiler.graph.errors import NewtritonError, meant
from ...compiler.graph.options import check_count
from ...runtime.disk import read_json
from .._measure import known_rows, machine, parser, report
from . import growth, memory, page
from .measuring import CYCLE, Effort, Place, Row, speed
from .networks import GROWING, NETS, SMALL, WITHOUT, network
from .problem import OPERATIONS, Problem
from .sides import SIDES, offered, versions
from .with_jax import PYTHON

GROWN = "gradient", "hvp", "ggnvp", "form", "kfac"  # operations whose growth is measured
GROWERS = "newtriton", "reverse", "curvlinops"  # and of whom
SLOW = ("compile",)  # sides that take minutes before the first call
QUICK = Effort(rounds=5, seconds=2.0, steps=5)


@dataclass(frozen=True)
class Asked:
    """What is measured.

    Attributes:
        sides: the sides' names.
        operations: the operations.
        effort: how long.
        device: where.
    """

    sides: Sequence[str]
    operations: Sequence[str]
    effort: Effort
    device: torch.device


def times(name: str, place: Place, asked: Asked, rows: list[Row], keep: Callable[[], None]) -> None:
    """Appends the times of a network that are not there yet.

    Args:
        name: the network's name, see `networks.network`.
        place: where its rows stand.
        asked: what is measured.
        rows: the rows so far.
        keep: is called after each operation.
    """
    left = missing(rows, place, asked.operations, "speed")
    if not left:
        return
    problem = Problem.of(name, device=asked.device)
    made, refused = offered(problem, asked.sides, left)
    (unit,) = SIDES["reverse"].calls(problem, ["gradient"])
    for operation in left:
        calls = [call for call in made if call.operation == operation]
        wrong = {row["provider"] for row in _here(rows, place, "hvp") if row.get("disagrees")}
        rows += speed(problem, place, calls, unit, asked.effort, wrong)
        rows += [
            place.refused(of, provider, why) for provider, of, why in refused if of == operation
        ]
        keep()


def peaks(name: str, place: Place, asked: Asked, rows: list[Row], keep: Callable[[], None]) -> None:
    """Appends the peak memory of what was timed, where it is not there yet; see `times`."""
    for operation in missing(rows, place, asked.operations, "memory"):
        rows += memory.rows(
            name, network(name).batch, asked.device.type, place, _tasks(rows, place, operation)
        )
        keep()


def missing(rows: Sequence[Row], place: Place, operations: Sequence[str], metric: str) -> list[str]:
    """Returns the operations of which no row of a metric stands at a place."""
    here = place.row("", "", metric, "")
    compared = "kernel_name", "metric_name", "x_name", "x_value"
    known = {
        row["kernel_operation"] for row in rows if all(row[name] == here[name] for name in compared)
    }
    return [operation for operation in operations if operation not in known]


def _here(rows: Sequence[Row], place: Place, operation: str) -> list[Row]:
    """Returns the rows of an operation's times at a place."""
    here = place.row(operation, "", "speed", "ms")
    same = "kernel_name", "kernel_operation", "metric_name", "x_name", "x_value"
    return [row for row in rows if all(row[name] == here[name] for name in same)]


def _tasks(rows: Sequence[Row], place: Place, operation: str) -> list[memory.Task]:
    """Returns the calls that were timed at a place, by side."""
    timed = {row["provider"] for row in _here(rows, place, operation) if "refused" not in row}
    return [
        (side, provider, operation)
        for side, peer in SIDES.items()
        for provider in peer.providers
        if provider in timed
    ]


def grow(kind: str, asked: Asked, rows: list[Row], keep: Callable[[], None]) -> None:
    """Appends the rows of networks that grow: times of some sides, and what ours count."""
    sides = [side for side in asked.sides if side in GROWERS]
    operations = [each for each in asked.operations if each in GROWN]
    some = replace(asked, sides=sides, operations=operations)
    for axis, along in GROWING[kind].items():
        for value in along.values:
            name, here = f"{kind}/{axis}/{value}", Place(kind, axis, value)
            times(name, here, some, rows, keep)
            if left := missing(rows, here, operations, "flops"):
                rows += growth.counted(Problem.of(name), here, left)
                keep()


def names_of(given: Collection[str], known: Collection[str], what: str) -> list[str]:
    """Returns names that are given, in the order of those that are known.

    Raises:
        NewtritonError: one of them is not known.
    """
    for name in given:
        if name not in known:
            listed = f"{', '.join(known)}{meant(name, known)}"
            raise NewtritonError(f"{what} {name!r} is not there: take some of {listed}")
    return [name for name in known if name in given]


def check_machine(path: Path) -> None:
    """Raises an error where a file has the rows of another machine, or of another PyTorch."""
    was, here = read_json(path).get("machine", {}), machine()
    for name in ("device", "gpu", "torch"):
        if was.get(name) != here.get(name):
            raise NewtritonError(
                f"{path} has rows of {was.get(name)}, here is {here.get(name)}: name another file"
            )


def options() -> argparse.ArgumentParser:
    """Returns the parser of the options."""
    result = parser(__doc__)
    result.prog = "newtriton bench peers"
    result.set_defaults(rounds=Effort.rounds)
    everything = [*NETS, *GROWING]
    add = result.add_argument
    add("--net", nargs="+", default=everything, help=f"of {', '.join([*everything, *SMALL])}")
    add("--what", nargs="+", default=list(OPERATIONS), help=f"of {', '.join(OPERATIONS)}")
    add("--providers", nargs="+", help=f"of {', '.join(SIDES)} (all; with --quick not {SLOW[0]})")
    add(
        "--seconds", type=float, default=Effort.seconds,
        help="what the rounds of an operation may take, though five are made (%(default)s)",
    )  # fmt: skip
    add("--no-memory", action="store_true", help="leave peak memory out")
    add("--quick", action="store_true", help="two small networks, a few rounds; all must agree")
    add("--jax", metavar="PYTHON", help="the interpreter that has kfac-jax (this one)")
    add(
        "--page", metavar="FILE", type=Path, nargs="?", const=page.PAGE,
        help=f"measure nothing, write the page of --json's rows ({page.PAGE})",
    )  # fmt: skip
    return result


def main() -> None:
    """Prints a table for each network, and keeps the rows."""
    given = options().parse_args()
    if given.jax:
        os.environ[PYTHON] = given.jax
    if given.page:
        page.write(given.json or page.RESULTS, given.page)
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    effort = Effort(check_count("rounds", given.rounds), given.seconds, CYCLE)
    nets = names_of(given.net, [*NETS, *GROWING, *SMALL], "the network")
    sides = names_of(given.providers or SIDES, SIDES, "the side")
    if given.quick:
        effort, nets = QUICK, list(SMALL)
        torch.set_num_threads(1)  # networks are small, and who shares the cores does not matter
        sides = [side for side in sides if given.providers or side not in SLOW]
    operations = names_of(given.what, OPERATIONS, "the operation")
    asked = Asked(sides, operations, effort, device)
    rows, about = known_rows(given.json, *page.KEYS), {"versions": versions(sides)}
    if rows:
        check_machine(given.json)
    start = time.perf_counter()

    def keep() -> None:
        report(rows, given.json, printed=False, about=about)

    for name in nets:
        before = len(rows)
        if name in GROWING:
            grow(name, asked, rows, keep)
        else:
            times(name, place(name), without(asked, name), rows, keep)
        print(f"\n{name} ({time.perf_counter() - start:.0f} s)")
        print_table(rows[before:])
    for name in nets if not (given.no_memory or given.quick) else ():
        if name not in GROWING:
            peaks(name, place(name), without(asked, name), rows, keep)
    wrong = [row for row in rows if row.get("disagrees")]
    if given.quick and wrong:
        named = ", ".join(f"{r['provider']} at {r['kernel_operation']}" for r in wrong)
        raise NewtritonError(f"sides compute different numbers: {named}")


def place(name: str) -> Place:
    """Returns where the rows of a network stand that does not grow."""
    return Place(name, "batch", network(name).batch)


def without(asked: Asked, name: str) -> Asked:
    """Returns what is asked of a network, without what is left out there."""
    left = WITHOUT.get(name, {})
    return replace(asked, operations=[each for each in asked.operations if each not in left])


COLUMNS = {
    "x_value": "size", "kernel_operation": "operation", "provider": "provider",
    "y_value_20": "20 %", "y_value_50": "ms", "y_value_80": "80 %", "per_gradient": "gradients",
    "error": "error", "differs": "note",
}  # fmt: skip


def print_table(rows: Sequence[Row]) -> None:
    """Prints times; a side that is not installed is named once."""
    timed = [row for row in rows if row["metric_name"] == "speed"]
    absent = {row["provider"]: row["refused"] for row in timed if page.is_absent(row)}
    report([shown(row) for row in timed if not page.is_absent(row)], None)
    for provider, why in absent.items():
        print(f"{provider} {why}")


def shown(row: Row) -> dict[str, Any]:
    """Returns what is printed of a row."""
    cells = {title: row.get(name, "") for name, title in COLUMNS.items()}
    return {**cells, "note": row.get("refused", cells["note"])}


if __name__ == "__main__":
    main()

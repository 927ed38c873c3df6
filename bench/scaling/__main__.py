"""`newtriton bench scaling`: what steps cost on 1 to 1,024 GPUs, and how the model stands to gloo.

Without options it prints the model's table. `--gloo` measures on this machine, a thread a rank, for
`--rounds` times 25 steps.
"""

from __future__ import annotations

from .._measure import parser, report
from . import measure, table


def main() -> None:
    """Prints tables, and writes their rows."""
    options = parser(__doc__)
    options.add_argument("--gloo", action="store_true", help="measure bytes and seconds with gloo")
    given = options.parse_args()
    if not given.gloo:
        counted = table.networks()
        rows = table.predicted(counted)
        print("\n".join(table.prediction(rows)))
        rows = [*counted, *rows]
    else:
        counted = measure.sent()
        print("\n".join(table.checked(counted)), flush=True)
        steps = [row for memory in measure.TIMED for row in measure.timed(memory, given.rounds)]
        print("\n".join(table.timed(steps)))
        rows = [*counted, *steps]
    report(rows, given.json, printed=False)


if __name__ == "__main__":
    main()

"""`newtriton bench sequences`: launches, bytes and memory of attention and large vocabularies.

They are counted, without a GPU. `--gpu` measures on one instead, and begins nothing later than
`--seconds`; rows of each step are written to a file of its own.
"""

from __future__ import annotations

from .. import gpu
from .._measure import parser, report
from . import on_gpu, table


def main() -> None:
    """Prints tables, and writes their rows."""
    options = parser(__doc__)
    gpu.add_to(options, on_gpu.STEPS)
    options.add_argument("--gpu", action="store_true", help="measure on a GPU")
    given = options.parse_args()
    if given.gpu:
        gpu.run(on_gpu.STEPS, given)
    else:
        report(table.growing() + table.counted("vit", table.base_vit()), given.json)


if __name__ == "__main__":
    main()

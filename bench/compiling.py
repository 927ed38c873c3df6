"""Seconds to compile every program of the VGGs, from tracing to the executor's steps."""

from __future__ import annotations

import time
from typing import Any

import newtriton as nt

from ._measure import arguments, report


def main() -> None:
    """Prints a row per network."""
    options = arguments(__doc__)
    rows: list[dict[str, Any]] = []
    for make in (nt.models.vgg11, nt.models.vgg16, nt.models.vgg19):
        for batch_norm in (False, True):
            start = time.perf_counter()
            model = nt.compile(
                make(batch_norm=batch_norm), (3, 32, 32), nt.CrossEntropyLoss(), backend="aten"
            )
            traced = time.perf_counter()
            programs = model.programs[True]
            model.executor(programs.linearize, tape=True)
            for graph in (
                programs.evaluate, programs.hvp, programs.ggnvp, programs.quadratic(1),
                programs.quadratic(2), programs.quadratic(1, "ggn"), programs.factors("kfac"),
                programs.factors("empirical"),
            ):  # fmt: skip
                model.executor(graph)
            rows.append(
                {
                    "network": make.__name__ + (" with batch norm" if batch_norm else ""),
                    "trace_and_initialise_s": round(traced - start, 2),
                    "nine_programs_s": round(time.perf_counter() - traced, 2),
                }
            )
    report(rows, options.json)


if __name__ == "__main__":
    main()

"""Tables of rows as they are, and of what is counted: launches, bytes, kernels, ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..scaling.table import checked, prediction, timed
from .lines import table
from .results import Results, Row

CALLS = {
    "gradient": "gradient",
    "gradient + quadratic form": "gradient and vᵀHv",
    "gradient + hvp": "gradient and Hv",
}
PROGRAMS = {
    "linearize": "loss and gradient",
    "quadratic(1, hessian)": "and vᵀHv",
    "hvp": "and Hv",
    "ggnvp": "and Gv",
    "factors(kfac, 1)": "and K-FAC factors",
    "factors(kfac, 2)": "and K-FAC factors of two draws",
}


def rows(results: Results, name: str, *arguments: str) -> Iterator[str]:
    """Yields a table of the rows of a file.

    Args:
        results: the files.
        name: the file.
        arguments: a column each, FIELD or FIELD as TITLE; or a condition FIELD=VALUE on the rows.
    """
    conditions = dict(part.split("=", 1) for part in arguments if "=" in part)
    columns = [part.partition(" as ")[::2] for part in arguments if "=" not in part]
    found = [
        row
        for row in results.rows(name)
        if all(str(row.get(field)) == value for field, value in conditions.items())
    ]
    yield from table(
        [title or field for field, title in columns],
        ([_shown(row.get(field, "")) for field, _ in columns] for row in found),
    )


def _shown(value: Any) -> str:
    """Returns a value of a row, whole numbers in groups of three digits."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def streams(results: Results) -> Iterator[str]:
    """Yields launches, bytes and memory of a GPT, of `bench sequences`."""
    known = results.rows("sequences-counted", net="gpt", positions=1024)
    found = {(row["by"], row["call"]): row for row in known}
    lines = []
    for call, title in (("gradient", "eager gradient"), ("hvp", "eager gradient and Hv")):
        row = found["eager", call]
        lines.append([title, "", _gb(row["MB_moved"], 0), _gb(row["peak_MB"], 1), ""])
    for precision in ("ieee", "tf32", "bf16"):
        for call, title in CALLS.items():
            row, operators = found[precision, call], found["aten", call]
            lines.append(
                [
                    f"{title}, {precision}",
                    str(row["launches"]),
                    f"{_gb(row['MB_moved'], 0)}, {row['MB_moved_of_eager']:.2f}",
                    f"{_gb(row['peak_MB'], 1)}, {row['peak_MB_of_eager']:.2f}",
                    f"{_gb(operators['peak_MB'], 1)}, {operators['peak_MB_of_eager']:.2f}"
                    if precision == "ieee"
                    else "",
                ]
            )
    head = ["launches", "GB moved, of eager's", "peak GB, of eager's", "… on PyTorch's operators"]
    yield from table(["", *head], lines)


def _gb(mb: float, digits: int) -> str:
    """Returns gigabytes."""
    return f"{mb / 1000:,.{digits}f}"


def launches(results: Results) -> Iterator[str]:
    """Yields the time of all launches of VGG11's programs on a GPU, added."""
    lines = []
    for program, title in PROGRAMS.items():
        mine = results.rows("gpu-launches", program=program)
        if not mine:
            continue
        total = sum(row["us"] for row in mine) / 1000
        more = "" if program == "linearize" else " more"
        lines.append([title, f"{total:.1f} ms{more}", str(len(mine))])
    yield from table(["", "on the GPU", "launches"], lines)


def stream_kernels(results: Results) -> Iterator[str]:
    """Yields the time of a stream's kernels on a GPU beside blocks of rows, added by program."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in results.rows("gpu-passes"):
        values = "logits" if "50257" in row["stream"] else "scores"
        groups.setdefault((PROGRAMS[row["program"]], values, row["precision"]), []).append(row)
    lines = []
    for (program, values, precision), mine in groups.items():
        if refused := next((row["refused"] for row in mine if "refused" in row), ""):
            lines.append([program, values, precision, f"none: {refused}", "", ""])
            continue
        kernels = sum(ms for row in mine for by, ms in row["ms"].items() if by != "blocks")
        blocks = sum(row["ms"]["blocks"] for row in mine)
        error = max(error for row in mine for error in row["errors"].values())
        lines.append(
            [program, values, precision, f"{kernels:.2f} ms", f"{blocks:.1f} ms", f"{error:.0e}"]
        )
    yield from table(["", "", "", "kernels", "blocks of rows", "largest error"], lines)


def checked_kernels(results: Results) -> Iterator[str]:
    """Yields how many launches were held to float64 on a GPU, by network."""
    found = results.rows("gpu-kernels")
    lines = []
    for net in dict.fromkeys(row["net"] for row in found):
        mine = [row for row in found if row["net"] == net]
        precisions = ", ".join(dict.fromkeys(row["precision"] for row in mine))
        lines.append([net, precisions, _total(mine, "kernels"), _total(mine, "wrong")])
    lines.append(["**all**", "", _total(found, "kernels"), _total(found, "wrong")])
    yield from table(["network", "precisions", "launches", "wrong"], lines)


def _total(found: list[Row], field: str) -> str:
    """Returns a sum of a column."""
    return f"{sum(row[field] for row in found):,}"


def static(results: Results) -> Iterator[str]:
    """Yields what compilation for each architecture came to."""
    lines = []
    for name in (name for name in results.names if name.startswith("static-")):
        for row in results.file(name)["summary"]:
            numbers = ("kernels", "faults", "spills_in_loops", "most_registers", "on_tensor_cores")
            lines.append([row["target"], row["precision"], *(str(row[n]) for n in numbers)])
    yield from table(
        ["", "precision", "kernels", "faults", "spill in loops", "most registers", "tensor cores"],
        lines,
    )


def ranks_predicted(results: Results) -> Iterator[str]:
    """Yields what steps cost on many ranks, by the model."""
    yield from prediction([row for row in results.rows("scaling") if "ms" in row])


def ranks_sent(results: Results) -> Iterator[str]:
    """Yields the bytes that ranks sent, beside the model's."""
    yield from checked([row for row in results.rows("cpu-scaling") if "counted" in row])


def ranks_timed(results: Results) -> Iterator[str]:
    """Yields the seconds of steps on one rank and two, beside the model's."""
    yield from timed(results.rows("cpu-scaling"))


TABLES: dict[str, Callable[..., Iterator[str]]] = {
    "rows": rows,
    "streams": streams,
    "launches": launches,
    "stream-kernels": stream_kernels,
    "checked-kernels": checked_kernels,
    "static": static,
    "ranks-predicted": ranks_predicted,
    "ranks-sent": ranks_sent,
    "ranks-timed": ranks_timed,
}

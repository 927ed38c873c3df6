"""Tables of calls beside PyTorch's and other libraries', of what `bench second_order` measures."""

from __future__ import annotations

from collections.abc import Iterator

from ...compiler.graph.errors import NewtritonError
from .lines import ms, table, times
from .results import Results, Row

CALLS = {  # ours → what it is called, and PyTorch's call for the same
    "gradient": ("gradient", "gradient"),
    "gradient + quadratic form": ("gradient and vᵀHv, to their gradient and Hv", "hvp"),
    "gradient + hvp": ("gradient and Hv", "hvp"),
    "gradient + factors": ("gradient and K-FAC factors", "gradient + factors"),
}
RIVALS = {  # whose call → the column
    "eager": "eager PyTorch",
    "compiled": "`torch.compile`",
    "curvlinops": "gradient, and factors of curvlinops",
}
NETWORKS = {
    "vgg11": "VGG11",
    "resnet20": "ResNet-20",
    "gpt": "GPT",
    "vit": "ViT",
    "gpt-256-256": "GPT, 256 positions",
    "gpt-256-1024": "GPT, 1,024 positions",
    "gpt-512-1024": "GPT, 1,024 positions",
    "gpt-512-2048": "GPT, 2,048 positions",
    "cross-entropy": "cross entropy",
    "head": "cross entropy and the product of its logits",
}


def beside(results: Results, *names: str) -> Iterator[str]:
    """Yields a table of our calls, each beside the fastest of the others that does the same.

    Args:
        results: the files.
        names: the files; behind a name may stand `@K`, the run of it that counts.
    """
    rows = [row for name in names for row in _of_run(results, name)]
    known = [who for who in RIVALS if any(row["call"].startswith(who) for row in rows)]
    peaks = any("peak_MB" in row for row in rows)
    head = ["network", "", "newtriton", *(RIVALS[who] for who in known)]
    yield from table(
        [*head, "peak memory, theirs and ours"] if peaks else head,
        (line for net in _networks(rows) for line in _lines(net, rows, known, peaks)),
    )


def _of_run(results: Results, name: str) -> list[Row]:
    """Returns the rows of a file that have a time, of one run where it has several."""
    name, _, run = name.partition("@")
    rows = [row for row in results.rows(name) if "median_ms" in row]
    return [row for row in rows if not run or str(row.get("run")) == run]


def _networks(rows: list[Row]) -> list[tuple[str | None, int | None]]:
    """Returns the networks of the rows, with their batches."""
    return list(dict.fromkeys((row.get("net"), row.get("batch")) for row in rows))


def _lines(
    net: tuple[str | None, int | None], rows: list[Row], known: list[str], peaks: bool
) -> Iterator[list[str]]:
    """Yields the lines of a network."""
    mine = [row for row in rows if (row.get("net"), row.get("batch")) == net]
    title = f"{NETWORKS.get(net[0] or '', net[0])}, batch {net[1]:,}" if net[0] else "VGG11"
    for call, (what, rival) in CALLS.items():
        ours = [row for row in mine if row["call"] == f"newtriton: {call}"]
        if not ours:
            continue
        if len(ours) > 1:
            raise NewtritonError(f"{title} has {call} {len(ours)} times: name a run as FILE@RUN")
        theirs = {who: _fastest(mine, who, rival) for who in known}
        line = [title, what, ms(ours[0]["median_ms"])]
        line += [_cell(row, ours[0]) for row in theirs.values()]
        eager = theirs.get("eager")
        held = [row["peak_MB"] for row in (eager, ours[0]) if row and "peak_MB" in row]
        yield [*line, " and ".join(f"{mb:,} MB" for mb in held)] if peaks else line
        title = ""


def _fastest(rows: list[Row], who: str, call: str) -> Row | None:
    """Returns the fastest row of a call, whichever way it was made."""
    found = [
        row
        for row in rows
        if row["call"].startswith(who) and row["call"].partition(": ")[2].split(",")[0] == call
    ]
    return min(found, key=lambda row: row["median_ms"], default=None)


def _cell(row: Row | None, ours: Row) -> str:
    """Returns a time of theirs, and how many times as fast ours is."""
    if row is None:
        return ""
    return f"{ms(row['median_ms'])}, {times(row['median_ms'], ours['median_ms'])}"

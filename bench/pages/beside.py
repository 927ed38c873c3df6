"""Tables of calls beside PyTorch's and other libraries', of what `bench second_order` measures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ...compiler.graph.errors import NewtritonError, quoted
from .lines import ms, table, times
from .results import Results, Row

NAMED = re.compile(r"([\w./-]+)(?:@(\w+))?(?::([\w-]+))?")
CALLS = {  # ours → what it is called, and PyTorch's call for the same
    "gradient": ("gradient", "gradient"),
    "gradient + quadratic form": ("gradient and vᵀHv (theirs: Hv)", "hvp"),
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
        names: the files. Behind a name may stand `@K`, the run of it that counts, and then `:NET`,
            the network.
    """
    rows = [row for name in names for row in _of_run(results, name)]
    known = [who for who in RIVALS if any(row["call"].startswith(who) for row in rows)]
    peaks = any("peak_MB" in row for row in rows)
    head = ["network", "", "newtriton", *(RIVALS[who] for who in known)]
    yield from table(
        [*head, "peak memory, theirs and ours"] if peaks else head,
        (line for net in _networks(rows) for line in _lines(net, rows, known, peaks)),
    )


def ratios(results: Results, *names: str) -> Iterator[str]:
    """Yields how many times as fast our calls are as the fastest of all others, a network a column.

    Args:
        results: the files.
        names: the files, as for `beside`.
    """
    columns: dict[str, list[Row]] = {}
    for name in names:
        rows = _of_run(results, name)
        device = results.file(re.split("[@:]", name)[0])["machine"].get("gpu", "a CPU")
        for net in _networks(rows):
            mine = [row for row in rows if (row.get("net"), row.get("batch")) == net]
            columns[f"{_title(net)}, on {device.replace('NVIDIA', 'an')}"] = mine
    lines = [
        [what, *(_best(rows, call, rival) for rows in columns.values())]
        for call, (what, rival) in CALLS.items()
    ]
    yield from table(["", *columns], (line for line in lines if any(line[1:])))


def _best(rows: list[Row], call: str, rival: str) -> str:
    """Returns how many times as fast our call is as the fastest of theirs, "" where one lacks."""
    ours = next((row for row in rows if row["call"] == f"newtriton: {call}"), None)
    theirs = [row for who in RIVALS if (row := _fastest(rows, who, rival))]
    if ours is None or not theirs:
        return ""
    return times(min(row["median_ms"] for row in theirs), ours["median_ms"])


def _title(net: tuple[str | None, int | None]) -> str:
    """Returns a network's name, and its batch."""
    return f"{NETWORKS.get(net[0] or '', net[0])}, batch {net[1]:,}" if net[0] else "VGG11"


def _of_run(results: Results, name: str) -> list[Row]:
    """Returns the rows of a file that have a time, of one run and network where they are named."""
    found = NAMED.fullmatch(name)
    if found is None:
        raise NewtritonError(f"{quoted(name)} is no FILE, FILE@RUN, FILE:NET or FILE@RUN:NET")
    file, run, net = found.groups()
    rows = [row for row in results.rows(file) if "median_ms" in row]
    rows = [row for row in rows if run is None or str(row.get("run")) == run]
    return [row for row in rows if net is None or row.get("net") == net]


def _networks(rows: list[Row]) -> list[tuple[str | None, int | None]]:
    """Returns the networks of the rows, with their batches."""
    return list(dict.fromkeys((row.get("net"), row.get("batch")) for row in rows))


def _lines(
    net: tuple[str | None, int | None], rows: list[Row], known: list[str], peaks: bool
) -> Iterator[list[str]]:
    """Yields the lines of a network."""
    mine = [row for row in rows if (row.get("net"), row.get("batch")) == net]
    title = _title(net)
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


TABLES: dict[str, Callable[..., Iterator[str]]] = {"beside": beside, "ratios": ratios}

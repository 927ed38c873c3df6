"""The page of the rows: tables by network, exponents, who is slower, who refuses, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ...compiler.graph.errors import NewtritonError
from ...runtime.disk import read_json
from .._measure import known_rows
from ..pages.lines import ms, table, times
from .growth import exponents
from .measuring import MOVED, OTHERS, Row
from .networks import GROWING, NETS, SMALL, WITHOUT
from .ours import NAME
from .problem import OPERATIONS
from .reasons import OTHERWISE, reason
from .sides import ABSENT
from .with_backpack import APART

RESULTS, PAGE = Path("bench/results/cpu-peers.json"), Path("docs/benchmarks/peers.md")
KEYS = "kernel_name", "kernel_operation", "provider", "metric_name"
TITLES: Mapping[str, str] = {
    "mlp": "A perceptron, 784-512-512-10, tanh",
    "lenet": "LeNet-5, ReLU",
    "vgg11": "VGG11 on images of CIFAR's size, SiLU",
    "vgg11-narrow": "VGG11 of a quarter of the channels",
    "resnet20": "ResNet-20 on images of CIFAR's size, batch statistics",
    "gpt": "A GPT of 4 layers, width 128, 64 positions, 1,000 words",
    "vit": "A ViT of 4 layers, width 128, 65 positions",
    "small-mlp": "A perceptron, 64-64-64-10, tanh",
    "small-cnn": "Two convolutions of 8 channels, SiLU",
    "growing-mlp": "A perceptron: batch 64, depth 4, width 256, 10 classes, one of them growing",
    "growing-cnn": "Convolutions: batch 16, depth 4, width 16, 10 classes, one of them growing",
}
SLOWER = 0.97  # of a peer's time: below, ours is called slower


def write(results: Path, page: Path) -> None:
    """Writes the page of a file of rows.

    Raises:
        NewtritonError: the file is not there, or holds other rows.
    """
    if not results.exists():
        raise NewtritonError(f"{results} is not there: measure with --json {results} first")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text(results), encoding="utf-8")


def text(results: Path) -> str:
    """Returns the page of a file of rows."""
    rows = known_rows(results, *KEYS)
    machine = read_json(results)["machine"]
    return "\n\n".join(["\n".join(block) for block in blocks(rows, machine, results.name)]) + "\n"


def blocks(rows: Sequence[Row], machine: Mapping[str, Any], name: str) -> Iterator[list[str]]:
    """Yields paragraphs and tables, each as lines."""
    yield ["# Beside the peers"]
    yield [
        "The same network, batch and directions for all sides. What a side computes is compared "
        "with ours before it is timed, in float32; a row that says nothing else agrees to 1e-4 of "
        "the norm (EKFAC's to 1e-3), and where labels are drawn the comparison takes the given "
        "ones. Calls of an operation take turns. Times are medians with the quantiles 20 and 80 in "
        "brackets; a *gradient* is that of PyTorch's autograd, timed in the same turns. Every call "
        "starts from parameters and a batch: ours linearizes, a forward and a backward pass, "
        "before anything else. JAX computes in a process apart, which is stopped between its "
        "calls. Peak memory is that of one call in a process of its own and in one thread, behind "
        "one of a sample fewer: what the resident set grows by."
    ]
    yield [
        f"This page is made of the rows in `bench/results/{name}` by "
        f"`newtriton bench peers --page`. {origin(machine)}"
    ]
    yield [*table(["operation", "what it is"], [[f"`{k}`", v] for k, v in OPERATIONS.items()])]
    names = dict.fromkeys([*NETS, *SMALL, *(row["kernel_name"] for row in rows)])
    for net in (name for name in names if name not in GROWING):
        of_net = [row for row in rows if row["kernel_name"] == net]
        if of_net:
            yield from _network(net, of_net, _unmeasured(of_net, rows))
    for kind in GROWING:
        of_kind = [row for row in rows if row["kernel_name"] == kind]
        if of_kind:
            yield from _growth(kind, of_kind)
    absent = {r["provider"]: r["refused"] for r in rows if is_absent(r)}
    if absent:
        yield [f"{provider} {why}." for provider, why in absent.items()]


def origin(machine: Mapping[str, Any]) -> str:
    """Returns what the rows come from: device, versions, date."""
    versions = {"PyTorch": machine["torch"], **machine.get("versions", {})}
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{machine.get('gpu', machine['device'])}; {told}; {machine['date']}."


def is_absent(row: Row) -> bool:
    """Whether a row says that a side is not installed."""
    return row.get("refused", "").startswith(ABSENT)


def _middle(row: Row) -> float:
    """Returns what a row is ranked by: the median, of steps the mean of a whole cycle."""
    return row.get("y_value_mean", row["y_value_50"])


def _is_ours(row: Row) -> bool:
    return row["provider"].startswith(NAME)


def _unmeasured(here: Sequence[Row], rows: Sequence[Row]) -> list[str]:
    """Returns the providers without a row here of an operation that they do elsewhere."""
    done = {row["kernel_operation"] for row in here}
    elsewhere = {
        row["provider"]
        for row in rows
        if row["kernel_operation"] in done and row["kernel_name"] not in GROWING
    }
    return sorted(elsewhere - {row["provider"] for row in here})


def _network(net: str, rows: Sequence[Row], unmeasured: Sequence[str] = ()) -> Iterator[list[str]]:
    """Yields the blocks of a network.

    Args:
        net: its name.
        rows: its rows.
        unmeasured: providers that have none, though they do these operations elsewhere.
    """
    batch = rows[0]["x_value"]
    yield [f"## {TITLES.get(net, net)}, batch {batch:,}"]
    speed = [row for row in rows if row["metric_name"] == "speed"]
    timed = [row for row in speed if "y_value_50" in row]
    peaks = {
        (row["kernel_operation"], row["provider"]): row["y_value_50"]
        for row in rows
        if row["metric_name"] == "memory" and "y_value_50" in row
    }
    slower, lines = list[str](), list[list[str]]()
    for operation in OPERATIONS:
        here = [row for row in timed if row["kernel_operation"] == operation]
        ours = [row for row in here if _is_ours(row)]
        theirs = sorted((row for row in here if not _is_ours(row)), key=_middle)
        if operation == "step" or not ours:
            continue
        lines.append(_line(operation, ours[0], theirs, peaks))
        slower += _slower(net, operation, ours[0], theirs)
    if lines:
        head = ["", "newtriton", "gradients", "fastest peer", "ours is", "others", "peak memory"]
        yield [*table(head, lines)]
    if steps := [row for row in timed if row["kernel_operation"] == "step"]:
        head = ["a step", "mean", "median", "gradients", "peak memory"]
        yield [*table(head, [_step(row, peaks) for row in sorted(steps, key=_middle)])]
    for why, group in groupby(WITHOUT.get(net, {}).items(), key=lambda item: item[1]):
        named = ", ".join(f"`{operation}`" for operation, _ in group)
        yield [f"Without {named}: {why}."]
    if unmeasured:
        yield [f"Not measured here: {', '.join(unmeasured)}."]
    if slower:
        yield ["Where ours is slower:", "", *(f"- {line}" for line in slower)]
    if notes := [*_notes(timed)]:
        yield ["What sides do otherwise:", "", *(f"- {line}" for line in notes)]
    if refused := [*_refusals(speed)]:
        title = "What sides refuse, and what they compute otherwise and is not timed:"
        yield [title, "", *(f"- {line}" for line in refused)]


def _line(
    operation: str, ours: Row, theirs: Sequence[Row], peaks: Mapping[tuple[str, str], float]
) -> list[str]:
    """Returns the line of an operation: ours, the fastest peer, the others."""
    cells = [f"`{operation}`", _spread(ours), f"{ours['per_gradient']:.1f}"]
    held = [peaks.get((operation, row["provider"])) for row in (ours, *theirs[:1])]
    memory = [f"{mb:,.1f} MB" for mb in held if mb is not None]
    if not theirs:
        return [*cells, "", "", "", " ".join(memory)]
    best, *others = theirs
    return [
        *cells,
        f"{best['provider']}: {_spread(best)}",
        times(_middle(best), _middle(ours)),
        "; ".join(f"{row['provider']} {ms(row['y_value_50'])}" for row in others),
        ", theirs ".join(memory),
    ]


def _spread(row: Row) -> str:
    """Returns a median with its quantiles."""
    low, high = (ms(row[name]).removesuffix(" ms") for name in ("y_value_20", "y_value_80"))
    return f"{ms(row['y_value_50'])} [{low}–{high}]"


def _step(row: Row, peaks: Mapping[tuple[str, str], float]) -> list[str]:
    """Returns the line of an optimizer's step."""
    mb = peaks.get(("step", row["provider"]))
    held = "" if mb is None else f"{mb:,.1f} MB"
    return [row["provider"], ms(_middle(row)), _spread(row), f"{row['per_gradient']:.1f}", held]


def _slower(net: str, operation: str, ours: Row, theirs: Sequence[Row]) -> Iterator[str]:
    """Yields a line where a peer that computes the same is the faster one."""
    same = [row for row in theirs if row.get("differs", MOVED) in (MOVED, APART)]
    if same and _middle(same[0]) < SLOWER * _middle(ours):
        best = same[0]
        why = reason(net, operation, best["provider"]) or "Why is not known."
        ratio = _middle(ours) / _middle(best)
        yield f"`{operation}` takes {ratio:.2f} times as long as {best['provider']}. {why}"


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    """Yields what providers do otherwise, and how far their numbers are."""
    for row in rows:
        if "differs" in row:
            far = f" (relative error {row['error']:.0e})" if row.get("error", 0.0) > 1e-4 else ""
            yield f"{row['provider']}, `{row['kernel_operation']}`: {row['differs']}{far}."


def _refusals(rows: Sequence[Row]) -> Iterator[str]:
    """Yields what providers refuse, operations with one reason together."""
    refused = [row for row in rows if "refused" in row and not is_absent(row)]

    def key(row: Row) -> tuple[str, str]:
        return row["provider"], row["refused"]

    for (provider, why), group in groupby(sorted(refused, key=key), key):
        operations = dict.fromkeys(row["kernel_operation"] for row in group)
        named = ", ".join(f"`{operation}`" for operation in operations)
        cause = (
            f"; {OTHERWISE[provider]}" if why.startswith(OTHERS) and provider in OTHERWISE else ""
        )
        yield f"{provider}, {named}: {why.rstrip('.')}{cause}."


UNITS = {"speed": "time", "flops": "FLOPs, counted", "bytes": "bytes moved, counted"}


def _growth(kind: str, rows: Sequence[Row]) -> Iterator[list[str]]:
    """Yields the table of exponents of networks that grow."""
    yield [f"## {TITLES.get(kind, kind)}"]
    yield [
        "Exponents p of y ∝ xᵖ by least squares, with their standard errors. FLOPs and bytes of "
        "ours are counted in the graphs that an operation runs, one operator after another."
    ]
    found = exponents(rows)
    axes = {axis: "–".join(f"{v:,}" for v in (a.values[0], a.values[-1]))
            for axis, a in GROWING[kind].items()}  # fmt: skip
    lines = list[list[str]]()
    for operation, metric, provider in dict.fromkeys(
        (row["kernel_operation"], row["metric_name"], row["provider"]) for row in rows
    ):
        cells = list[str]()
        for axis in axes:
            fit = found.get((kind, axis, operation, provider, metric))
            cells.append("" if fit is None else f"{fit.power:.2f} ± {fit.error:.2f}")
        if any(cells):
            lines.append([f"`{operation}`", provider, UNITS[metric], *cells])
    head = ["", "who", "what", *(f"{axis} {values}" for axis, values in axes.items())]
    yield [*table(head, lines)]
    if refused := [*_refusals([row for row in rows if row["metric_name"] == "speed"])]:
        yield ["What sides refuse:", "", *(f"- {line}" for line in dict.fromkeys(refused))]

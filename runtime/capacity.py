"""The memory that is free, and the refusal of what would not fit into it before anything is taken.

On a CPU it is the least of what the machine has available, of what each control group that the
process is in leaves, file cache that would make room included, and of the process's own limits; on
a GPU what the device has free, and what PyTorch's allocator holds and does not use. A tenth of it
is left over. Where none of these can be told nothing is refused. `NEWTRITON_MEMORY`, in bytes,
stands for all of them.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

try:
    import resource
except ImportError:  # on Windows
    resource = None

from ..compiler.graph.errors import NewtritonError
from ..kernels.memory import keep_at_most

VARIABLE = "NEWTRITON_MEMORY"
SHARE = 0.9  # of what is free that is used: allocators leave gaps, libraries grow
SHOWN = 3  # items that a refusal names
# The files of a control group's limit and use, and the names of its file cache.
UNIFIED = "memory.max", "memory.current", "inactive_file", "active_file"
OLDER = (
    "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file",
)  # fmt: skip
MICRO = "take the batch in pieces: micro_batch=K"


class Item(NamedTuple):
    """A part of what is needed.

    Attributes:
        what: what takes it, as a refusal names it.
        size: its bytes.
        way_out: how to do without, where there is a way.
    """

    what: str
    size: int
    way_out: str = ""


Need = Callable[[int], Sequence[Item]]  # what is needed, by the batch size


def free(device: torch.device, root: Path = Path("/")) -> int | None:
    """Returns the bytes that are free to this process; None where that cannot be told.

    Args:
        device: whose memory it is.
        root: where /proc and /sys are.

    Raises:
        NewtritonError: `NEWTRITON_MEMORY` is no number of bytes.
    """
    if (stated := os.environ.get(VARIABLE)) is not None:
        return _stated(stated)
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(SHARE * (torch.cuda.mem_get_info(device)[0] + unused))
    known = [*_available(root), *_left_in_groups(root), *_left_of_limits(root)]
    return int(SHARE * min(known)) if known and device.type == "cpu" else None


def _stated(text: str) -> int | None:
    """Returns the bytes that the variable states; None for "inf", of which nothing is refused."""
    try:
        number = float(text)
        if number >= 0.0:
            return None if number == float("inf") else int(number)
    except ValueError:
        pass
    raise NewtritonError(f"{VARIABLE} is {text!r}: give the bytes that are free, e.g. 8e9, or inf")


def _table(path: Path) -> dict[str, int]:
    """Returns the numbers of a file of names and numbers, a pair a line; nothing without a file."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0].rstrip(":"): int(line[1]) for line in lines if line[1:] and line[1].isdecimal()}


def _number(path: Path) -> int | None:
    """Returns the number that a file holds; None for "max" and where there is no such file."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _available(root: Path) -> Iterator[int]:
    """Yields what the machine has available."""
    known = _table(root / "proc/meminfo")
    if "MemAvailable" in known:
        yield 1024 * known["MemAvailable"]


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yields what each control group leaves, from the process's own up to the root (cgroups(7))."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            mount, names = root / "sys/fs/cgroup", UNIFIED
        elif "memory" in controllers.split(","):
            mount, names = root / "sys/fs/cgroup/memory", OLDER
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            yield from _left(mount.joinpath(*parts[:depth]), *names)


def _left(group: Path, limit: str, used: str, *cache: str) -> Iterator[int]:
    """Yields what a control group leaves, if it has a limit: its file cache makes room."""
    most, now = _number(group / limit), _number(group / used)
    if most is None or now is None:
        return
    known = _table(group / "memory.stat")
    yield max(0, most - now + sum(known.get(name, 0) for name in cache))


def _left_of_limits(root: Path) -> Iterator[int]:
    """Yields what the process's own limits leave: of its addresses, and of its data."""
    if resource is None:
        return
    known = _table(root / "proc/self/status")
    for name, limit in (("VmSize", resource.RLIMIT_AS), ("VmData", resource.RLIMIT_DATA)):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY and name in known:
            yield max(0, most - 1024 * known[name])


def check(
    what: str, need: Need, batch: int | None, device: torch.device, in_pieces: bool = False
) -> None:
    """Checks that what is needed is free.

    Args:
        what: what needs it, for the error.
        need: what is needed, which grows with the batch size.
        batch: the batch size; None where none has a say in it.
        device: whose memory it is.
        in_pieces: whether a batch can be taken in pieces.

    Raises:
        NewtritonError: it does not fit; the error says what takes most, and how many samples fit.
    """
    items = need(batch or 0)  # what counting loads counts as taken
    available, needed = free(device), sum(item.size for item in items)
    if available is None:
        return
    if needed > available:
        keep_at_most(0)
        available = free(device) or 0
    if needed <= available:
        keep_at_most(available - needed)
        return

    def overflows(n: int) -> bool:
        return sum(item.size for item in need(n)) > available

    most = bisect_left(range(batch), True, lo=1, key=overflows) - 1 if batch else 0
    avoidable = most == 0 and any(item.way_out for item in items)
    named = [item for item in items if item.way_out or not avoidable]
    largest = sorted(named, key=lambda item: -item.size)[:SHOWN]
    listed = ", ".join(f"{item.what} {size(item.size)}" for item in largest if item.size)
    whole = f"{what} on {batch:,} samples" if batch else what
    ways = [] if batch is None else ["not even one sample fits"]
    ways = [f"give at most {most:,} samples at once"] if most else ways
    ways += [MICRO] if most and in_pieces else []
    ways += dict.fromkeys(item.way_out for item in largest if avoidable)
    raise NewtritonError(
        f"{whole} needs {size(needed)}, {size(available)} are free (the most "
        f"of it: {listed}): {', or '.join(ways)}"
    )


def size(count: int) -> str:
    """Returns a number of bytes in GB, or in MB where it is small."""
    return f"{count / 1e9:,.3g} GB" if count >= 1e8 else f"{count / 1e6:.3g} MB"

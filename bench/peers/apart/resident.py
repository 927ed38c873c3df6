"""What this process holds in memory, as Linux counts it; for processes without PyTorch too."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _held(field: str) -> int:
    """Returns a field of the process's status in bytes."""
    (line,) = (row for row in STATUS.read_text().splitlines() if row.startswith(field))
    return 1024 * int(line.split()[1])


def peak_of(call: Callable[[], object], held: int | None = None) -> int:
    """Returns the most that a call adds to the resident set, in bytes.

    Free memory goes back to the system first, and the peak so far is forgotten.

    Args:
        call: what is measured.
        held: the bytes from which is counted; what is held before the call unless given.
    """
    before = trimmed()
    CLEAR.write_text("5")
    call()
    return max(0, _held("VmHWM") - (before if held is None else held))


def trimmed() -> int:
    """Returns the bytes of the resident set after free memory has gone back to the system."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # the GNU library's
        trim(0)
    return _held("VmRSS")

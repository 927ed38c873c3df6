"""Arrays of numbers in MATLAB 5 files, read by SciPy.

Nothing but the arrays that are asked for is read: no objects, no functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np

from ....compiler.graph.errors import NewtritonError
from .contents import Contents, unzipped
from .extras import need

HEADER = 128  # bytes: a text, the version and a mark of the byte order
MARKS = {b"IM": "<", b"MI": ">"}
VERSION = 0x0100
MATRIX, COMPRESSED = 14, 15  # the types of the elements that follow the header
NUMBERS = ("uint8", "double")  # MATLAB's classes that labels and images are saved as


def read(path: Path, axes: Mapping[str, int]) -> tuple[Contents, dict[str, np.ndarray]]:
    """Returns the contents of a file, and arrays in it by their names.

    Args:
        path: the file.
        axes: how many axes each array has.

    Raises:
        NewtritonError: SciPy is missing, or the file is truncated, damaged or another one.
    """
    io = need("scipy.io", "SciPy", str(path))
    contents = Contents.of(path)
    file = BytesIO(_whole(contents))
    try:
        kinds = {name: (kind, len(shape)) for name, shape, kind in io.whosmat(file)}
        for name, number in axes.items():
            kind, found = kinds.get(name, ("nothing", 0))
            if kind not in NUMBERS or found != number:
                raise contents.damaged(
                    HEADER, f"{name} is {kind} with {found} axes where {number} of numbers are"
                )
        values = io.loadmat(file, variable_names=tuple(axes))
    except NewtritonError:
        raise
    except Exception as error:  # SciPy raises whatever its reader stumbles over
        what = f"SciPy cannot read it ({type(error).__name__}: {error}): get the file again"
        raise contents.damaged(file.tell(), what) from error
    return contents, {name: values[name] for name in axes}


def _whole(contents: Contents) -> bytes:
    """Returns a file of whole arrays, those that are zipped unzipped, whose checksums hold."""
    data = contents.data
    order = MARKS.get(data[HEADER - 2 : HEADER].tobytes())
    if data[:10].tobytes() != b"MATLAB 5.0" or order is None:
        raise contents.damaged(0, "no MATLAB 5 file, and no other version is read: get it again")
    (version,) = contents.integers(HEADER - 4, 1, f"{order}u2")
    if version != VERSION:
        raise contents.damaged(HEADER - 4, f"version {version:#06x} where {VERSION:#06x} is read")
    parts, start = [data[:HEADER]], HEADER
    while start < len(data):
        kind, length = contents.integers(start, 2, f"{order}u4")
        end = start + 8 + length
        if kind not in (MATRIX, COMPRESSED):
            raise contents.damaged(start, f"an element of type {kind}, which is no array")
        if end > len(data):
            raise contents.damaged(len(data), f"the file ends where {end} bytes are expected")
        part = data[start:end]
        if kind == COMPRESSED:
            part = unzipped(contents.path, data[:end], start + 8)
            inner = Contents(contents.path, part)
            if [MATRIX, len(part) - 8] != inner.integers(0, 2, f"{order}u4"):
                raise contents.damaged(start, "what is zipped there is no whole array")
        parts.append(part)
        start = end
    return np.concatenate(parts).tobytes()

"""Arrays of numbers in MATLAB 5 files, read by SciPy.

Nothing but the arrays that are asked for is read: no objects, no functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np

from ....compiler.graph.errors import NewtritonError
from .contents import Contents
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
    _check_elements(contents)
    file = BytesIO(contents.data.tobytes())
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


def _check_elements(contents: Contents) -> None:
    """Raises an error unless a header and whole elements make up the file."""
    data = contents.data
    order = MARKS.get(data[HEADER - 2 : HEADER].tobytes())
    if data[:10].tobytes() != b"MATLAB 5.0" or order is None:
        raise contents.damaged(0, "no MATLAB 5 file, and no other version is read: get it again")
    (version,) = contents.integers(HEADER - 4, 1, f"{order}u2")
    if version != VERSION:
        raise contents.damaged(HEADER - 4, f"version {version:#06x} where {VERSION:#06x} is read")
    start = HEADER
    while start < len(data):
        kind, length = contents.integers(start, 2, f"{order}u4")
        if kind not in (MATRIX, COMPRESSED):
            raise contents.damaged(start, f"an element of type {kind}, which is no array")
        start += 8 + length
    if start > len(data):
        raise contents.damaged(len(data), f"the file ends where {start} bytes are expected")

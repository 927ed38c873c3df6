"""Pictures as files, and as figures that belong to no window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...compiler.graph.errors import NewtritonError
from ..disk import unwritable
from . import colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = (5.2, 3.3)  # inches of a chart in a picture


def charts(rows: int, columns: int) -> tuple[Figure, Any]:
    """Returns a picture and its axes, an array of rows × columns; no backend is chosen."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (slow to import)

    size = CELL[0] * columns, CELL[1] * rows
    figure = Figure(figsize=size, layout="constrained", facecolor=colours.PAPER)
    return figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: Figure, path: Path, dpi: float = 150.0) -> None:
    """Writes a picture into a file, whose ending says in which format.

    Args:
        figure: the picture.
        path: the file, whose folder is made where there is none.
        dpi: pixels in an inch.

    Raises:
        NewtritonError: Matplotlib knows no such format, or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi)
    except OSError as error:
        raise unwritable(path, error) from error
    except ValueError as error:  # of an ending that Matplotlib does not know
        raise NewtritonError(f"{path} cannot be drawn: {error}") from error

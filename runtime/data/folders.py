"""Where the files of a data set are, and what is said when they are not there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...compiler.graph.errors import NewtritonError, quoted
from ..paths import path_of

VARIABLE = "NEWTRITON_DATA"


@dataclass(frozen=True)
class Files:
    """The published files of a data set.

    Attributes:
        names: the files or folders; what one may be called besides is listed after its name.
        folders: the folders in which they may be, besides the one that is given.
        source: where they come from.
        instead: other files that are found by mistake, and what to say then.
    """

    names: tuple[tuple[str, ...], ...]
    folders: tuple[str, ...]
    source: str
    instead: tuple[tuple[str, str], ...] = ()

    def at(self, root: Path) -> list[Path] | None:
        """Returns the files below a folder in the order of their names, None if one is missing."""
        for folder in self._folders(root):
            found = [self._found(folder, names) for names in self.names]
            whole = [path for path in found if path is not None]
            if len(whole) == len(found):
                return whole
        return None

    def need(self, name: str, root: Path) -> list[Path]:
        """Returns the files in the order of their names.

        Raises:
            NewtritonError: one is missing; the message says which files are expected, and where.
        """
        found = self.at(root)
        if found is not None:
            return found
        hints = [hint for folder in self._folders(root) for hint in self._hints(folder)]
        expected = ", ".join(names[0] for names in self.names)
        folders = " or ".join(self.folders)
        state = "has not all files of" if os.path.isdir(root) else "is no folder with"
        if os.path.isdir(root) and not os.access(root, os.R_OK | os.X_OK):
            state = "may not be looked into for"
        raise NewtritonError(
            f"{root} {state} {name}: it expects {expected} in that folder or in {folders} there; "
            f"they come from {self.source}{hints[0] if hints else ''}"
        )

    def _hints(self, folder: Path) -> Iterator[str]:
        """Yields what a folder holds that may explain why files are missing."""
        for other, hint in self.instead:
            if os.path.exists(folder / other):
                yield f"; {folder / other} is there: {hint}"
        missing = [names[0] for names in self.names if self._found(folder, names) is None]
        if len(missing) < len(self.names):
            yield f"; {folder} has all but {', '.join(missing)}"

    def _folders(self, root: Path) -> Iterator[Path]:
        """Yields the folders in which the files may be."""
        yield from (root / folder for folder in self.folders)
        yield root

    @staticmethod
    def _found(folder: Path, names: Sequence[str]) -> Path | None:
        """Returns the path of a file under one of its names."""
        return next((folder / name for name in names if os.path.exists(folder / name)), None)


def root_of(root: str | os.PathLike[str] | None) -> Path | None:
    """Returns the folder of the data sets: the given one, or that of the environment."""
    given = root if root is not None else os.environ.get(VARIABLE) or None
    try:
        return None if given is None else path_of("root", given).expanduser()
    except RuntimeError as error:
        raise NewtritonError(f"root is {quoted(given)}: give the path of a folder") from error

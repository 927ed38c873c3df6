"""Generations of a run on disk: each a folder of its own, made current by one rename of a link.

    DIR/generations/000007/   what a run is at a moment, and the checksums of it
    DIR/last, DIR/best        links to a generation each
    DIR/weights.safetensors   a link through `last`, as `history.json` is

A generation is complete and on the disk before a link names it, and is read against its checksums.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ...compiler.graph.errors import NewtritonError
from . import files

FOLDER, CHECKSUMS = "generations", "checksums.json"
LAST, BEST, PREVIOUS = WHICH = ("last", "best", "previous")
SHOWN = ("weights.safetensors", "history.json")  # what the run's own folder has links to


class Generation(NamedTuple):
    """What has been read of a generation.

    Attributes:
        name: the name of its folder.
        parts: the bytes of its files, by name.
    """

    name: str
    parts: dict[str, bytes]


class Generations:
    """The generations of a run.

    Args:
        path: the folder of the run.
        keep: how many of them are kept, the newest ones; the best is kept beside them.
    """

    def __init__(self, path: Path, keep: int = 2) -> None:
        self.path, self.keep = path, keep

    @property
    def exist(self) -> bool:
        """Whether there has been a complete one.

        Raises:
            NewtritonError: there are other files where its links would be.
        """
        self._check_links()
        return bool(self._target(LAST))

    def _check_links(self) -> None:
        """Raises an error where there is something else in the place of a link."""
        for name in (LAST, BEST, *SHOWN):
            self._target(name)

    def write(self, parts: Mapping[str, bytes], shared: tuple[str, ...], measure: float) -> None:
        """Writes a generation, and makes it the last one.

        Args:
            parts: the bytes of its files, by name.
            shared: the files that it has in common with the last one, where that has them.
            measure: the lower, the better it is; infinite for one that is not compared.

        Raises:
            NewtritonError: it cannot be written; the last one is what it was.
        """
        self._check_links()
        number = max([0, *map(int, self._names())]) + 1
        folder = self.path / FOLDER / f"{number:06d}"
        try:
            self._write(folder, parts, shared, measure)
        except (OSError, ValueError) as error:
            if folder.name not in (self._target(LAST), self._target(BEST)):
                with suppress(OSError):
                    files.remove_folder(folder)
            raise NewtritonError(
                f"{folder} cannot be written ({error}): what was saved before is "
                "intact; make room, or make the folder writable, and resume the run"
            ) from error

    def _write(
        self, folder: Path, parts: Mapping[str, bytes], shared: tuple[str, ...], measure: float
    ) -> None:
        """Writes a generation into a folder; see `write`."""
        last = self._target(LAST)
        files.make_folder(folder.parent)
        for name in self._names():  # what was begun after the last one, and never became it
            if name > last and name != self._target(BEST):
                files.remove_folder(folder.parent / name)
        checksums = {name: _checksum(data) for name, data in parts.items()}
        known = self._checksums(last) if shared and last else {}
        common = {name: known["files"][name] for name in shared if name in known.get("files", {})}
        described = {"files": {**checksums, **common}, "measure": measure}
        held = {name: folder.parent / last / name for name in common}
        described_as = {CHECKSUMS: json.dumps(described, indent=1).encode()}
        files.write_folder(folder, {**parts, **held, **described_as})
        if measure < self._measure(self._target(BEST)):
            files.point(self.path / BEST, f"{FOLDER}/{folder.name}")
        self.make_last(folder.name)
        for name in SHOWN:
            if name in described["files"]:
                files.point(self.path / name, f"{LAST}/{name}")
        kept = {*self._names()[-self.keep :], self._target(BEST)}
        for name in self._names():
            if name not in kept:
                files.remove_folder(folder.parent / name)

    def make_last(self, name: str) -> None:
        """Makes a generation the last one, from which the run goes on."""
        files.point(self.path / LAST, f"{FOLDER}/{name}")

    def read(self, which: str = LAST) -> Generation:
        """Returns a generation whose files are what was written.

        Args:
            which: the last one, the best one, or the newest before the last that is undamaged.

        Raises:
            NewtritonError: there is none, or it is damaged.
        """
        if which != PREVIOUS:
            return self._read(self._target(which), which)
        before = [name for name in self._names() if name < self._target(LAST)]
        for name in reversed(before):
            with suppress(NewtritonError):
                return self._read(name, which)
        raise NewtritonError(f"{self.path} holds no undamaged generation before the last one")

    def _read(self, name: str, which: str) -> Generation:
        """Returns a generation by name."""
        try:
            return Generation(name, dict(self._verified(name)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            others = " or ".join(f"'{other}'" for other in (PREVIOUS, BEST) if other != which)
            raise NewtritonError(
                f"{self.path} holds a damaged run, of which {which!r} cannot be read ({error}): "
                f"resume {others}, or begin again in another folder"
            ) from error

    def _verified(self, name: str) -> Iterator[tuple[str, bytes]]:
        """Yields the files of a generation with their bytes."""
        folder = self.path / FOLDER / name
        for part, checksum in self._checksums(name)["files"].items():
            if Path(part).name != part:
                raise ValueError(f"{part!r} is no name of a file")
            data = (folder / part).read_bytes()
            if _checksum(data) != checksum:
                raise ValueError(f"{folder / part} is not what was written")
            yield part, data

    def _checksums(self, name: str) -> dict[str, Any]:
        """Returns what is written about a generation."""
        return json.loads((self.path / FOLDER / name / CHECKSUMS).read_bytes())

    def _measure(self, name: str) -> float:
        """Returns how good a generation is, infinite where there is none that can be read."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            return float(self._checksums(name)["measure"]) if name else math.inf
        return math.inf

    def _target(self, link: str) -> str:
        """Returns the name of the generation that a link is to, "" where there is none.

        Raises:
            NewtritonError: there is something else in its place.
        """
        path = self.path / link
        if path.exists() and not path.is_symlink():
            raise NewtritonError(
                f"{path} is no link of a run: choose another folder, or copy a run with its links, "
                "as cp -a does"
            )
        return path.readlink().name if path.is_symlink() else ""

    def _names(self) -> list[str]:
        """Returns the names of all generations, the oldest one first."""
        folder = self.path / FOLDER
        found = folder.iterdir() if folder.is_dir() else ()
        return sorted(path.name for path in found if path.name.isdecimal())


def _checksum(data: bytes) -> str:
    """Returns the SHA-256 of data, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()

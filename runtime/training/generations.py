"""Generations of a run on disk: each a folder of its own, made current by one rename of a link.

    DIR/generations/000007/   what a run is at a moment, and the checksums of it
    DIR/last, DIR/best        links to a generation each
    DIR/weights.safetensors   a link through `last`, as `history.json` is

A generation is complete and on the disk before a link names it, and is read against its checksums.
On file systems without links, `last` and `best` are files that name a generation, and copies of its
files stand in the run's own folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ...compiler.graph.errors import NewtritonError
from .. import disk
from . import files

FOLDER, CHECKSUMS = "generations", "checksums.json"
LAST, BEST, PREVIOUS = WHICH = ("last", "best", "previous")
SHOWN = ("weights.safetensors", "history.json")  # what the run's own folder has links to
NAME = re.compile(r"[0-9]{6,}")
PLACE = re.compile(rf"{FOLDER}/({NAME.pattern})\n?")  # what a link or a file in its place says
LOST = "~"  # what stands for the name where that says something else; it comes after all others
NAMED = 300  # bytes: a file that names a generation has fewer
DESCRIPTION = 1 << 20  # bytes that are written about a generation, at most
OLDER = {"files", "measure"}  # what earlier versions wrote, which had no checksum of its own
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError)


class Generation(NamedTuple):
    """What has been read of a generation.

    Attributes:
        name: the name of its folder.
        parts: the bytes of its files, by name.
        is_finite: whether its weights are finite; None where that has not been written down.
    """

    name: str
    parts: dict[str, bytes]
    is_finite: bool | None


class Generations:
    """The generations of a run.

    Args:
        path: the folder of the run.
        keep: how many of them are kept, the newest ones; the best is kept beside them, and so is
            the newest whose weights are finite.
    """

    def __init__(self, path: Path, keep: int = 2) -> None:
        self.path, self.keep = path, keep

    @property
    def exist(self) -> bool:
        """Whether there has been a complete one.

        Raises:
            NewtritonError: there are other files where its links would be.
        """
        self._check_copies()
        return bool(self._last())

    def write(
        self,
        parts: Mapping[str, bytes],
        shared: tuple[str, ...],
        measure: float,
        is_finite: bool = True,
    ) -> None:
        """Writes a generation, and makes it the last one.

        Args:
            parts: the bytes of its files, by name.
            shared: the files that it has in common with the last one, where that has them. They are
                copied: what damages one generation leaves the others intact.
            measure: the lower, the better it is; infinite for one that is not compared.
            is_finite: whether its weights are finite; one whose are not is never the best.

        Raises:
            NewtritonError: it cannot be written; the last one is what it was.
        """
        self._check_copies()
        number = max([0, *map(int, self._names())]) + 1
        folder = self.path / FOLDER / f"{number:06d}"
        measure = measure if is_finite else math.inf
        try:
            self._write(folder, parts, shared, {"measure": measure, "finite": is_finite})
        except (OSError, ValueError) as error:
            if folder.name not in (self._target(LAST), self._target(BEST)):
                with suppress(OSError):
                    files.remove(folder)
            raise NewtritonError(
                f"{folder} cannot be written ({error}): what was saved before is "
                "intact; make room, or make the folder writable, and resume the run"
            ) from error

    def _write(
        self,
        folder: Path,
        parts: Mapping[str, bytes],
        shared: tuple[str, ...],
        about: Mapping[str, Any],
    ) -> None:
        """Writes a generation into a folder, and what is said about it; see `write`."""
        last = self._target(LAST)
        files.make_folder(folder.parent)
        for name in self._names():  # what was begun after the last one, and never became it
            if _order(name) > _order(last) and name != self._target(BEST):
                files.remove(folder.parent / name)
        parts = {**self._in_common(last, shared), **parts}
        checksums = {name: _checksum(data) for name, data in parts.items()}
        sizes = {name: len(data) for name, data in parts.items()}
        described = {"files": checksums, "sizes": sizes, **about}
        text = json.dumps(described | {"checksum": _checksum_of(described)}, indent=1)
        files.write_folder(folder, {**parts, CHECKSUMS: text.encode()})
        if about["measure"] < self._measure(self._target(BEST)):
            files.point(self.path / BEST, f"{FOLDER}/{folder.name}")
        self.make_last(folder.name)
        for name in {*self._names()} - self._kept():
            files.remove(folder.parent / name)

    def make_last(self, name: str) -> None:
        """Makes a generation the last one, from which the run goes on.

        Raises:
            OSError: the folder cannot be written.
        """
        files.point(self.path / LAST, f"{FOLDER}/{name}")
        for shown in SHOWN:
            source = self.path / FOLDER / name / shown
            if not source.exists():
                continue
            if (self.path / LAST).is_symlink():
                files.point(self.path / shown, f"{LAST}/{shown}")
            else:
                files.replace(self.path / shown, source.read_bytes())

    def read(self, which: str = LAST, wanted: tuple[str, ...] | None = None) -> Generation:
        """Returns a generation whose files are what was written.

        Args:
            which: the last one, the best one, or the newest before the last that is undamaged and
                has finite weights.
            wanted: the names of the files to be read; None for all.

        Raises:
            NewtritonError: there is none, or it is damaged.
        """
        if which != PREVIOUS:
            return self._read(self._last() if which == LAST else self._target(which), which, wanted)
        last = _order(self._target(LAST) or LOST)
        for name in reversed(self._names()):
            with suppress(NewtritonError):
                found = self._read(name, which, wanted) if _order(name) < last else None
                if found is not None and found.is_finite is not False:
                    return found
        raise NewtritonError(f"{self.path} holds no undamaged generation before the last one")

    def _read(self, name: str, which: str, wanted: tuple[str, ...] | None = None) -> Generation:
        """Returns a generation by name."""
        try:
            if not NAME.fullmatch(name):
                raise ValueError(f"{self.path / which} names none")
            described = self._described(name)
            parts = dict(self._verified(name, described, wanted or described["files"]))
            return Generation(name, parts, described.get("finite"))
        except DAMAGE as error:
            others = " or ".join(f"'{other}'" for other in (PREVIOUS, BEST) if other != which)
            raise NewtritonError(
                f"{self.path} holds a damaged run, of which {which!r} cannot be read ({error}): "
                f"resume {others}, or begin again in another folder"
            ) from error

    def _in_common(self, last: str, shared: tuple[str, ...]) -> dict[str, bytes]:
        """Returns files of the last generation, none where it has none or they are damaged."""
        with suppress(*DAMAGE):
            known = self._described(last)
            found = [name for name in shared if name in known["files"]]
            return dict(self._verified(last, known, found))
        return {}

    def _verified(
        self, name: str, described: Mapping[str, Any], parts: Iterable[str]
    ) -> Iterator[tuple[str, bytes]]:
        """Yields files of a generation with their bytes, which are what is written about it."""
        folder = self.path / FOLDER / name
        for part in parts:
            if Path(part).name != part:
                raise ValueError(f"{part!r} is no name of a file")
            data = disk.read(folder / part, described["sizes"].get(part))
            if _checksum(data) != described["files"][part]:
                raise ValueError(f"{folder / part} is not what was written")
            yield part, data

    def _described(self, name: str) -> dict[str, Any]:
        """Returns what is written about a generation, if that is what was written."""
        path = self.path / FOLDER / name / CHECKSUMS
        described = disk.read_json(path, DESCRIPTION)
        if described.keys() == OLDER:
            return {**described, "sizes": {}}
        checksum = described.pop("checksum")
        if checksum != _checksum_of(described):
            raise ValueError(f"{path} is not what was written")
        return described

    def _measure(self, name: str) -> float:
        """Returns how good a generation is, infinite where there is none that can be read."""
        with suppress(*DAMAGE):
            return float(self._described(name)["measure"]) if name else math.inf
        return math.inf

    def _kept(self) -> set[str]:
        """Returns the names of the generations that are kept."""
        names = self._names()
        finite = next((name for name in reversed(names) if self._is_finite(name)), "")
        return {*names[-self.keep :], self._target(BEST), finite}

    def _is_finite(self, name: str) -> bool:
        """Whether it is known that the weights of a generation are finite."""
        with suppress(*DAMAGE):
            return self._described(name).get("finite") is True
        return False

    def _last(self) -> str:
        """Returns the name of the last generation, "" where there is none.

        Where its link is lost, it is the newest that is undamaged.
        """
        target = self._target(LAST)
        if target:
            return target
        for name in reversed(self._names()):
            with suppress(NewtritonError):
                return self._read(name, LAST).name
        return ""

    def _target(self, link: str) -> str:
        """Returns the name of the generation that a link is to, "" where there is none.

        Raises:
            NewtritonError: there is something else in its place.
        """
        path = self.path / link
        if not os.path.lexists(path):
            return ""
        text = ""
        if path.is_symlink():
            text = os.readlink(path)
        elif not (path.is_file() and self._names()):
            raise self._is_no_link(path)
        elif path.stat().st_size < NAMED:
            text = disk.read(path).decode("utf-8", "replace")
        found = PLACE.fullmatch(text)
        return found[1] if found else LOST

    def _check_copies(self) -> None:
        """Raises an error where a file that is not the run's is in the way of its own."""
        for link in (LAST, BEST):
            self._target(link)
        if os.path.lexists(self.path / LAST) and not (self.path / LAST).is_symlink():
            return  # there are no links here, but copies
        for name in SHOWN:
            path = self.path / name
            if os.path.lexists(path) and not path.is_symlink():
                raise self._is_no_link(path)

    @staticmethod
    def _is_no_link(path: Path) -> NewtritonError:
        """Returns the error that something else is in the place of a link."""
        return NewtritonError(
            f"{path} is no link of a run: choose another folder, move it away, or copy a run with "
            "its links, as cp -a does"
        )

    def _names(self) -> list[str]:
        """Returns the names of all generations, the oldest one first."""
        folder = self.path / FOLDER
        try:
            found = os.listdir(folder) if os.path.isdir(folder) else ()
        except OSError as error:
            raise disk.unreadable(folder, error) from error
        return sorted(filter(NAME.fullmatch, found), key=_order)


def _order(name: str) -> tuple[int, str]:
    """Returns what generations are sorted by, their number; one that is lost comes last."""
    return (256 if name == LOST else len(name)), name


def _checksum_of(described: Mapping[str, Any]) -> str:
    """Returns the checksum of what is written about a generation."""
    return _checksum(json.dumps(described, sort_keys=True).encode())


def _checksum(data: bytes) -> str:
    """Returns the SHA-256 of data, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()

"""Files of results by name, and what a page says of where they come from."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from ...compiler.graph.errors import NewtritonError, quoted
from ...runtime.disk import read_json

Row = dict[str, Any]
FOLDER = "bench/results"


class Results:
    """The files of a folder, read when they are asked for.

    Args:
        folder: the folder, `bench/results` of a clone.

    Attributes:
        asked: the names of the files that were asked for, in their order.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked = dict[str, None]()
        self._read = dict[str, dict[str, Any]]()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all files: "scaling", "papers/kfra-rank", …."""
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*.json"))
        return tuple(sorted(path.with_suffix("").as_posix() for path in found))

    def file(self, name: str) -> dict[str, Any]:
        """Returns what a file holds.

        Raises:
            NewtritonError: there is none of this name, or it holds something else.
        """
        if name not in self.names:
            listed = ", ".join(self.names) or "none"
            raise NewtritonError(f"{FOLDER} has no {quoted(name)}: it has {listed}")
        if name not in self._read:
            found = read_json(self.folder / f"{name}.json")
            if not isinstance(found, dict):
                raise NewtritonError(f"{name}.json holds no object with rows")
            self._read[name] = found
        self.asked[name] = None
        return self._read[name]

    def rows(self, name: str, **known: object) -> list[Row]:
        """Returns the rows of a file whose fields have the values that are given."""
        rows = self.file(name)["rows"]
        return [row for row in rows if all(row.get(k) == v for k, v in known.items())]

    def row(self, name: str, **known: object) -> Row:
        """Returns the one row of a file whose fields have the values that are given.

        Raises:
            NewtritonError: there is none, or more than one.
        """
        found = self.rows(name, **known)
        if len(found) != 1:
            raise NewtritonError(f"{name}.json has {len(found)} rows with {known}: one is needed")
        return found[0]

    def origin(self) -> str:
        """Returns where the files that were asked for come from: names, device, versions, dates."""
        groups: dict[str, list[str]] = {}
        for name in self.asked:
            groups.setdefault(_told(self.file(name).get("machine", {})), []).append(
                f"`{name}.json`"
            )
        return "; ".join(
            ", ".join(names) + (f": {told}" if told else "") for told, names in groups.items()
        )


def _told(machine: dict[str, Any]) -> str:
    """Returns what a file says of the machine and the date."""
    told = [machine[key] for key in ("gpu", "device") if key in machine][:1]
    titles = {"driver": "driver", "torch": "PyTorch", "triton": "Triton"}
    told += [f"{title} {machine[key]}" for key, title in titles.items() if key in machine]
    told += [machine["date"]] if "date" in machine else []
    text = ", ".join(told).replace("+cpu", "").replace(" 1 threads", " 1 thread")
    return text.replace("none: ", "no device, ")

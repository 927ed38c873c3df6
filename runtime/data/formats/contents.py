"""The bytes of a file, and complaints about it: each names the file and the offset."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....compiler.graph.errors import NewtritonError
from ...disk import opened

GZIP = b"\x1f\x8b"
AUTOMATIC = 47  # zlib's word for data of gzip or of zlib
CHUNK = 1 << 16  # bytes that are unzipped at once, to a thousand times as many at most
MEMBERS = 1 << 16  # of a gzipped file that was zipped in parts, at most
MOST = 1 << 30  # bytes: none of the published files is larger when it is unzipped
SMALL, RATIO = 1 << 26, 100  # beyond so many bytes, so many times what is zipped are the most


def damaged(path: Path, offset: int, what: str) -> NewtritonError:
    """Returns the error that a file is not what it should be, from an offset on."""
    return NewtritonError(f"{path}, byte {offset}: {what}")


@dataclass(frozen=True)
class Contents:
    """The bytes of a file, of its unzipped contents where it is gzipped.

    Attributes:
        path: the file.
        data: its bytes, uint8.
    """

    path: Path
    data: np.ndarray

    @classmethod
    def of(cls, path: Path, *, zipped: bool = False) -> Contents:
        """Reads a file, whose first bytes, not its name, say whether it is gzipped.

        Args:
            path: the file.
            zipped: whether it is zipped in any case, if not by gzip then by zlib.

        Raises:
            NewtritonError: it cannot be read or unzipped.
        """
        with opened(path, MOST) as file:
            data = np.fromfile(file, np.uint8)
        if zipped or data[:2].tobytes() == GZIP:
            data = unzipped(path, data, 0)
        return cls(path, data)

    def damaged(self, offset: int, what: str) -> NewtritonError:
        """Returns the error that the contents are not what they should be, from an offset on."""
        return damaged(self.path, offset, what)

    def integers(self, offset: int, number: int, dtype: str) -> list[int]:
        """Returns the integers of a NumPy dtype that begin at an offset.

        Raises:
            NewtritonError: the file ends before them.
        """
        end = offset + number * np.dtype(dtype).itemsize
        if end > len(self.data):
            raise self.damaged(len(self.data), f"the file ends in its header of {end} bytes")
        return self.data[offset:end].view(dtype).tolist()

    def array(self, offset: int, shape: tuple[int, ...], dtype: str = "u1") -> np.ndarray:
        """Returns the values from an offset to the end, whose number the shape has to give.

        Raises:
            NewtritonError: there are fewer or more bytes.
        """
        end = offset + np.dtype(dtype).itemsize * math.prod(shape)
        if len(self.data) < end:
            raise self.damaged(
                len(self.data), f"the file ends where {end} bytes are expected: get it again"
            )
        if len(self.data) > end:
            more = len(self.data) - end
            raise self.damaged(end, f"{more} bytes follow the last value: get the file again")
        return self.data[offset:end].view(dtype).reshape(shape)


def unzipped(path: Path, data: np.ndarray, start: int) -> np.ndarray:
    """Returns what is zipped in the bytes of a file from an offset on.

    Raises:
        NewtritonError: it is damaged, or far more than so few bytes hold.
    """
    most = min(MOST, max(SMALL, RATIO * len(data)))
    found = bytearray()
    for part in _parts(path, data.data, start):
        found += part
        if len(found) > most:
            what = f"more than {most} bytes when unzipped: get the file again"
            raise damaged(path, start, what)
    return np.frombuffer(found, np.uint8)


def _parts(path: Path, data: memoryview, start: int) -> Iterator[bytes]:
    """Yields what is zipped from an offset on; members of a gzipped file follow each other.

    Offsets in complaints are those of the zipped file.
    """
    offset = start
    for _ in range(MEMBERS):
        if offset == len(data):
            return
        if offset > start and data[offset : offset + 2] != GZIP:
            more = len(data) - offset
            raise damaged(path, offset, f"{more} bytes follow the zipped data: get the file again")
        member, begun = zlib.decompressobj(wbits=AUTOMATIC), offset
        while not member.eof:
            if offset >= len(data):
                raise damaged(path, len(data), "the zipped data end too early: get the file again")
            chunk = data[offset : offset + CHUNK]
            try:
                part = member.decompress(chunk)
            except zlib.error as error:
                at = offset + _first_bad(data[begun:offset], chunk)
                raise damaged(path, at, f"damaged zipped data ({error}): get it again") from error
            offset += len(chunk) - len(member.unused_data)
            yield part
    raise damaged(path, offset, f"more than {MEMBERS} zipped parts follow each other")


def _first_bad(before: memoryview, chunk: memoryview) -> int:
    """Returns the place of the first byte of a chunk that cannot be unzipped after others."""
    member = zlib.decompressobj(wbits=AUTOMATIC)
    for start in range(0, len(before), CHUNK):
        member.decompress(before[start : start + CHUNK])
    for place in range(len(chunk)):
        try:
            member.decompress(chunk[place : place + 1])
        except zlib.error:
            return place
    return len(chunk)

"""Damage that files meet: of their bytes, and of what stands in their place.

Everything is drawn from a generator, so that a seed says what was done.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import signal
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import numpy as np

Draw = np.random.Generator
SECONDS = 60  # after which something hangs
MEMORY = 600 << 20  # bytes that reading a small file may take, libraries that it loads included
WORDS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000, 1 << 28)
LONG_WORDS = (*WORDS, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
HEADER = 160  # bytes at the front in which counts and lengths stand


class Hostile:
    """Makes a file of that name where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def bomb(size: int) -> bytes:
    """Bytes that are gzipped to a thousandth of their size."""
    return gzip.compress(bytes(size), 1)


def place(draw: Draw, data: bytes) -> int:
    """A place in data, in half of the cases near the front, where headers are."""
    most = min(len(data), HEADER) if draw.random() < 0.5 else len(data)
    return int(draw.integers(0, max(1, most)))


def cut(draw: Draw, data: bytes) -> bytes:
    return data[: place(draw, data)]


def flipped(draw: Draw, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(int(draw.integers(1, 4)) if data else 0):
        changed[place(draw, data)] ^= 1 << int(draw.integers(8))
    return bytes(changed)


def overwritten(draw: Draw, data: bytes) -> bytes:
    start, length = place(draw, data), int(draw.integers(1, 64))
    filling = (bytes(length), b"\xff" * length, draw.bytes(length))[draw.integers(3)]
    return data[:start] + filling + data[start + length :]


def dropped(draw: Draw, data: bytes) -> bytes:
    start = place(draw, data)
    return data[:start] + data[start + int(draw.integers(1, 64)) :]


def doubled(draw: Draw, data: bytes) -> bytes:
    start = place(draw, data)
    end = start + int(draw.integers(1, 2 + len(data)))
    return data[:end] + data[start:]


def spliced(draw: Draw, data: bytes) -> bytes:
    """The front of a file, then what comes elsewhere in it."""
    return data[: place(draw, data)] + data[place(draw, data) :]


def longer(draw: Draw, data: bytes) -> bytes:
    return data + draw.bytes(int(draw.integers(1, 100)))


def recounted(draw: Draw, data: bytes) -> bytes:
    """A number in the header that is huge, negative, or overflows where it is multiplied."""
    start = place(draw, data[:HEADER])
    kinds = ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q")
    kind = kinds[draw.integers(len(kinds))]
    words = [word for word in LONG_WORDS if word < 1 << 8 * struct.calcsize(kind)]
    packed = struct.pack(kind, words[draw.integers(len(words))])
    return data[:start] + packed + data[start + len(packed) :]


def digits(draw: Draw, data: bytes) -> bytes:
    """A digit that becomes another number, or none."""
    places = [i for i, byte in enumerate(data[:4000]) if 48 <= byte < 58]
    if not places:
        return flipped(draw, data)
    at = places[draw.integers(len(places))]
    texts = (b"-1", b"9" * 30, b"9" * 5000, b"1e999", b"NaN", b"null", b'"0"', b"0.5", b"[]", b"{}")
    return data[:at] + texts[draw.integers(len(texts))] + data[at + 1 :]


def recoded(draw: Draw, data: bytes) -> bytes:
    """Text in another encoding, or with a mark of one."""
    text = data.decode("latin-1")
    codes = ("utf-16", "utf-32", "utf-7", "utf-8-sig", "utf-8")
    return text.encode(codes[draw.integers(len(codes))])


def nested(draw: Draw, data: bytes) -> bytes:
    opening = (b"[", b'{"a":')[draw.integers(2)]
    return opening * 100_000 + data[: place(draw, data)]


def foreign(draw: Draw, data: bytes) -> bytes:
    """A file of another format."""
    length = struct.pack("<Q", 1 << 62)
    kinds = (
        b"", b"\n", b"null", b"[]", b"{}", b"0", b"NaN", b'"\\ud800"', b'{"a": 1, "a": 2}', b"\x00",
        gzip.compress(data), zlib.compress(data), pickle.dumps([1, 2]), length + b"{}" + data,
        b"\x89PNG\r\n\x1a\n" + data, b"\xff\xd8\xff\xe0" + data, b"PK\x03\x04" + data,
        b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + data, b"\x1f\x8b\x08" + data,
        json.dumps({"files": {}, "measure": 0}).encode(), draw.bytes(500),
        b"\x00\x00\x08\x03" + b"\xff" * 12, struct.pack("<Q", 2) + b"{}", bomb(1 << 20),
    )  # fmt: skip
    return kinds[draw.integers(len(kinds))]


CHANGES = (
    cut, flipped, flipped, overwritten, dropped, doubled, spliced, longer, recounted, recounted,
    digits, recoded, nested, foreign,
)  # fmt: skip


def folder(path: Path) -> None:
    path.mkdir()


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def circular(path: Path) -> None:
    path.symlink_to(path.name)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def nothing(path: Path) -> None:
    """Leaves the place empty."""


def hole(path: Path) -> None:
    """A file that takes no room, and a terabyte where it is read."""
    with path.open("wb") as file:
        file.truncate(1 << 40)


INSTEAD = (folder, dangling, circular, pipe, endless, nothing, hole)


def damage(draw: Draw, path: Path) -> str:
    """Damages a file in one way or two; returns what was done."""
    if draw.random() < 0.1:
        instead = INSTEAD[draw.integers(len(INSTEAD))]
        path.unlink()
        instead(path)
        return f"{path.name}: {instead.__name__}"
    data, done = path.read_bytes(), list[str]()
    for _ in range(1 + int(draw.random() < 0.2)):
        change = CHANGES[draw.integers(len(CHANGES))]
        data = change(draw, data)
        done.append(change.__name__)
    path.write_bytes(data)
    return f"{path.name}: {', '.join(done)}"


def _peak() -> int:
    """The most memory that this process has had, in bytes, 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


@contextmanager
def bounded(what: str) -> Iterator[None]:
    """Raises an error where what happens inside hangs, or takes more memory than small files do."""

    def hangs(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"{what}: it hangs")

    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, handler = _peak(), signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
    assert _peak() - before < MEMORY, f"{what}: it takes {(_peak() - before) >> 20} MiB"

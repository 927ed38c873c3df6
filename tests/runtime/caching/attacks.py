"""Attacks on what is kept between runs: damage, faults of the file system, ends of processes."""

from __future__ import annotations

import errno
import linecache
import os
import random
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import torch
import triton
from torch import Tensor

import newtriton as nt
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Graph, N
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context
from newtriton.runtime.caching import entries, folders
from newtriton.runtime.caching.kernels import GROUP, SEAL, VerifiedKernels
from newtriton.runtime.fused import codecache
from newtriton.runtime.fused.executor import FusedExecutor
from newtriton.runtime.fused.selection import Selection
from newtriton.runtime.fused.settings import Settings

CALLS = "open", "fstat", "read", "write", "replace", "close", "unlink"
ERRORS = errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT, errno.EMFILE


class Killed(BaseException):
    """The end of a process."""


class Attacked:
    """Stands in for the module `os`, where something happens at one of the calls for files.

    Args:
        at: the number of that call, from 1.
        happens: what happens before it.
        lasting: whether it happens at all calls from then on.
    """

    def __init__(self, at: int, happens: Callable[[], object], lasting: bool = False) -> None:
        self.at, self.happens, self.lasting, self.calls = at, happens, lasting, 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(os, name)
        if name not in CALLS:
            return call

        def made(*arguments: Any) -> Any:
            self.calls += 1
            if self.calls == self.at or (self.lasting and self.calls > self.at):
                if name == "close":  # the descriptor is gone in any case
                    call(*arguments)
                self.happens()
            return call(*arguments)

        return made


def fails(number: int) -> Callable[[], None]:
    """What makes calls fail."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


def kill() -> None:
    """Ends the process."""
    raise Killed


class Kept(Protocol):
    """Something that is kept in a folder."""

    folder: Path
    right: Any

    def used(self) -> Any:
        """What a process that starts now makes of it."""
        ...

    def wrong(self, path: Path) -> bytes:
        """What would be wrong in the place of a file, though nothing in it is broken."""
        ...


class Code:
    """A small program, whose generated module is kept."""

    def __init__(self, folder: Path, factor: float) -> None:
        self.folder = folder / "code"
        x = ops.input_("x", (N, 5))
        curved = ops.map_(nt.scalar.sigmoid(nt.scalar.var(0)) * factor, x)
        self.graph = Graph("attacked", {"out": ops.reduce_sum(curved, (1,))})
        self.context = Context(3, torch.float32, torch.device("cpu"))
        self.feed = {x: torch.linspace(-2.0, 2.0, 15).view(3, 5)}
        out = self.graph.outputs["out"]
        expected = AtenExecutor(self.graph)(self.context, self.feed)[out]
        self.right = self.used()
        torch.testing.assert_close(self.right, expected)

    def used(self) -> Tensor:
        for name in [n for n in sys.modules if n.startswith("nt_")]:
            del sys.modules[name]
        linecache.clearcache()
        executor = FusedExecutor(self.graph, (), Selection(Settings(contractions="fused")))
        return executor(self.context, self.feed)[self.graph.outputs["out"]].clone()

    def wrong(self, path: Path) -> bytes:
        body = path.read_bytes().rpartition(b"# sha256")[0].replace(b"return", b"return 2.0 *")
        return body + f"# sha256 {entries.checksum(path.name, body)}\n".encode()


class Measured:
    """Text that is read again."""

    def __init__(self, folder: Path, factor: float) -> None:
        self.name = f"measured-{factor}"
        self.folder, self.right = folder / "code", f'{{"fastest": {factor}}}\n'

    def used(self) -> str:
        found = codecache.stored(self.name)
        if found is None:
            codecache.store(self.name, self.right)
        return self.right if found is None else found

    def wrong(self, path: Path) -> bytes:
        codecache.store("another", "{}\n")
        return (self.folder / "another").read_bytes()


class Compiled:
    """A kernel's files, as Triton keeps them and finds them."""

    def __init__(self, folder: Path, factor: float) -> None:
        self.key = f"KEY{factor}"
        self.folder = folder / "triton" / self.key
        self.right = {"k.json": b'{"name": "k"}', "k.cubin": f"binary {factor}".encode()}

    def used(self) -> dict[str, bytes]:
        cache = VerifiedKernels(self.key)
        group = cache.get_group("k.json")
        if group is None:
            group = {name: cache.put(data, name) for name, data in self.right.items()}
            cache.put_group("k.json", group)
        return {name: Path(path).read_bytes() for name, path in group.items()}

    def wrong(self, path: Path) -> bytes:
        other = VerifiedKernels("OTHER")
        other.put(b'{"child_paths": {}}', path.name.removesuffix(SEAL))
        return (other.folder / path.name).read_bytes()


def truncated(path: Path, kept: Kept, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size + 1) // 2)


def flipped(path: Path, kept: Kept, draw: random.Random) -> None:
    data = bytearray(path.read_bytes() or b"empty")
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def longer(path: Path, kept: Kept, draw: random.Random) -> None:
    with path.open("ab") as file:
        file.write(draw.randbytes(draw.randrange(1, 100)))


def another(path: Path, kept: Kept, draw: random.Random) -> None:
    path.write_bytes(kept.wrong(path))


def gone(path: Path, kept: Kept, draw: random.Random) -> None:
    path.unlink()


def linked(path: Path, kept: Kept, draw: random.Random) -> None:
    target = path.with_name("target")
    target.write_bytes(path.read_bytes() if draw.random() < 0.5 else b"")
    path.unlink()
    path.symlink_to(draw.choice([target, path.name, "nowhere", "/dev/zero"]))


def pipe(path: Path, kept: Kept, draw: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def folder_instead(path: Path, kept: Kept, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def unreadable(path: Path, kept: Kept, draw: random.Random) -> None:
    path.chmod(0)


def of_another(path: Path, kept: Kept, draw: random.Random) -> None:
    another(path, kept, draw)
    if os.geteuid() == 0:
        os.chown(path, 1234, 1234)


DAMAGE = (
    truncated, flipped, longer, another, gone, linked, pipe, folder_instead, unreadable, of_another,
)  # fmt: skip


def shared(folder: Path) -> None:
    folder.chmod(0o777)


def handed(folder: Path) -> None:
    if os.geteuid() == 0:
        os.chown(folder, 1234, 1234)
    else:
        shared(folder)


def above_shared(folder: Path) -> None:
    folder.parent.chmod(0o777)


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


def a_circle(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder.name)


PLACES = shared, handed, above_shared, a_file, a_circle


def contents(folder: Path) -> dict[str, bytes]:
    """The files that are kept, by name."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and path.name.startswith(("nt_", "measured", "k.", GROUP))
    }


@contextmanager
def surroundings(folder: Path) -> Iterator[list[warnings.WarningMessage]]:
    """Everything is kept in a folder, and warnings are made anew."""
    folders.warn.cache_clear()
    with (
        patch.dict(os.environ, {codecache.FOLDER: str(folder / "code")}),
        patch.object(triton.knobs.cache, "dir", str(folder / "triton")),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always", UserWarning)
        yield caught


def trial(seed: int, folder: Path) -> str:
    """Keeps something, attacks it, and uses it as a new process would.

    Returns:
        what became of it: "replaced", "unharmed", "without cache", or "killed" where the process
        ended and the next one was right.
    """
    draw = random.Random(seed)
    folder = folder / "kept"
    folder.mkdir(mode=0o700)
    with surroundings(folder) as caught:
        kept = draw.choice([Code, Measured, Compiled])(folder, 1.0 + seed % 1000)
        check(kept.used(), kept.right, f"seed {seed}")
        before = contents(kept.folder)
        assert before and not caught, f"seed {seed}: {type(kept).__name__} is not kept: {caught}"
        attack = draw.choice([_damaged, _damaged, _faulty, _ended, _between, _misplaced])
        done, killed = attack(kept, draw)
        what = f"seed {seed}: {type(kept).__name__}, {done}"
        check(kept.used(), kept.right, what)
        return _outcome(kept, before, caught, killed, what)


def check(found: Any, expected: Any, what: str) -> None:
    """Asserts that what is found is right, bit for bit."""
    same = torch.equal(found, expected) if isinstance(found, Tensor) else found == expected
    assert same, f"{what}: {found!s:.200} instead of {expected!s:.200}"


def _outcome(
    kept: Kept, before: dict[str, bytes], caught: list[Any], killed: bool, what: str
) -> str:
    """What became of what is kept, after it has been used again."""
    texts = {str(warning.message) for warning in caught}
    assert len(caught) == len(texts) <= 1, f"{what}: {len(caught)} warnings: {texts}"
    if caught:
        return "without cache"
    after = contents(kept.folder)
    assert after == before, f"{what}: {[n for n in before if after.get(n) != before[n]]} differ"
    left = [p.name for p in kept.folder.iterdir() if entries.NEW in p.name]
    assert killed or not left, f"{what}: {left} is left"
    return "killed" if killed else "replaced" if "damaged" in what else "unharmed"


def _damage(kept: Kept, draw: random.Random) -> str:
    """Damages a file, and says how."""
    names = sorted(contents(kept.folder))
    if not names:
        return "no file"
    damage, name = draw.choice(DAMAGE), draw.choice(names)
    damage(kept.folder / name, kept, draw)
    return f"{name} damaged: {damage.__name__}"


def _damaged(kept: Kept, draw: random.Random) -> tuple[str, bool]:
    return " and ".join(_damage(kept, draw) for _ in range(draw.choice([1, 1, 2]))), False


def _emptied(kept: Kept, draw: random.Random) -> None:
    """Leaves something to be written."""
    if draw.random() < 0.7:
        gone(kept.folder / draw.choice(sorted(contents(kept.folder))), kept, draw)


def _faulty(kept: Kept, draw: random.Random) -> tuple[str, bool]:
    """Lets calls fail while it is used."""
    number, at = draw.choice(ERRORS), draw.randrange(1, 30)
    _emptied(kept, draw)
    lasting = draw.random() < 0.5
    what = f"call {at} failed: {errno.errorcode[number]}"
    with patch.object(entries, "os", Attacked(at, fails(number), lasting)):
        try:
            check(kept.used(), kept.right, what)
        except nt.NewtritonError as error:  # the temporary folder fails as well
            assert lasting and isinstance(kept, Compiled) and "put nowhere" in str(error), what
    return what, False


def _ended(kept: Kept, draw: random.Random) -> tuple[str, bool]:
    """Ends the process while it writes."""
    at = draw.randrange(1, 30)
    _emptied(kept, draw)
    try:
        with patch.object(entries, "os", Attacked(at, kill, lasting=True)):
            kept.used()
    except Killed:
        return f"killed at call {at}", True
    return f"not killed before call {at}", False


def _between(kept: Kept, draw: random.Random) -> tuple[str, bool]:
    """Damages files while they are read or written."""
    if isinstance(kept, Compiled):  # Triton reads again, after the checksum has been taken
        return _ended(kept, draw)
    at = draw.randrange(1, 30)
    _emptied(kept, draw)

    with patch.object(entries, "os", Attacked(at, lambda: _damage(kept, draw))):
        found = kept.used()
    what = f"damaged at call {at}"
    check(found, kept.right, what)
    return what, False


def _misplaced(kept: Kept, draw: random.Random) -> tuple[str, bool]:
    """Makes the folder one that is not safe."""
    place = draw.choice(PLACES)
    place(kept.folder.parent if isinstance(kept, Compiled) else kept.folder)
    return f"the folder: {place.__name__}", False

"""The source files of the project, by the names under which they are installed."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("newtriton", "compiler", "kernels", "runtime", "bench")


def module_of(path: Path) -> str:
    """The name under which a source file is installed."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[0] == "newtriton" else ("newtriton", *parts))


FILES = {module_of(p): p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))}


def room_of(module: str) -> str:
    """The folder in which a module lies."""
    return FILES[module].parent.relative_to(ROOT).as_posix()

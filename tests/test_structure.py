"""Rooms: imports go down only, nothing goes in circles, and a room holds what a person can survey.

A room is a folder of sources, and what stands beside the rooms of a folder is a room of its own. An
import for the type checker alone counts as an import.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("newtriton", "compiler", "kernels", "runtime", "bench")
MOST = 16  # files of a room

# From the ground up: a room imports from those before it.
ROOMS = (
    "compiler/graph",
    "compiler/derivatives",
    "compiler/language",
    "compiler/curvature",
    "compiler/lowering",
    "compiler",
    "kernels",
    "runtime",
    "runtime/aten",
    "runtime/fused",
    "runtime/data",
    "runtime/model",
    "runtime/parts",
    "runtime/optimizers",
    "runtime/training",
    "runtime/diagnostics",
    "runtime/checking",
    "newtriton",
    "bench",
    "newtriton/command",
)


def module_of(path: Path) -> str:
    """The name under which a source file is installed."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[0] == "newtriton" else ("newtriton", *parts))


FILES = {module_of(p): p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))}


def imported(module: str) -> Iterator[str]:
    """The modules of the project that a module imports, anywhere in its text."""
    path = FILES[module]
    here = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            inner = [f"{source}.{alias.name}" for alias in node.names]
            names = [name if name in FILES else source for name in inner]
        yield from (name for name in names if name in FILES)


IMPORTS = nx.DiGraph()
IMPORTS.add_nodes_from(FILES)
IMPORTS.add_edges_from((a, b) for a in FILES for b in imported(a))


def room_of(module: str) -> str:
    """The folder in which a module lies."""
    return FILES[module].parent.relative_to(ROOT).as_posix()


def test_every_room_has_its_place() -> None:
    assert {room_of(module) for module in FILES} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_down_only(room: str) -> None:
    upward = [
        f"{a} → {b}"
        for a, b in IMPORTS.edges
        if room_of(a) == room and ROOMS.index(room_of(b)) > ROOMS.index(room)
    ]
    assert not upward


def test_no_files_import_each_other_in_a_circle() -> None:
    assert not [sorted(c) for c in nx.strongly_connected_components(IMPORTS) if len(c) > 1]


def test_kernels_stand_alone() -> None:
    outside = {b for a, b in IMPORTS.edges if room_of(a) == "kernels" and room_of(b) != "kernels"}
    assert not outside


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_can_be_surveyed_and_says_who_lives_there(room: str) -> None:
    inside = [path for module, path in FILES.items() if room_of(module) == room]
    assert len([p for p in inside if p.stem != "__init__"]) <= MOST
    (front,) = [p for p in inside if p.stem == "__init__"]
    assert ast.get_docstring(ast.parse(front.read_text(encoding="utf-8")))

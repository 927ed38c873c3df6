"""Rooms: imports go down only, nothing goes in circles, and a room holds what a person can survey.

A room is a folder of sources, and what stands beside the rooms of a folder is a room of its own.
An import counts wherever it stands: in a function, for the type checker alone, or as a module's
name in a string. Tests mirror the rooms, and what `nt` exports is documented.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

import newtriton as nt

from .sources import FILES, ROOT, room_of

MOST = 16  # files of a room
TESTS = ROOT / "tests"

# From the ground up: a room imports from those before it.
ROOMS = (
    "compiler/graph",
    "compiler/derivatives",
    "compiler/functions",
    "compiler/language",
    "compiler/layers",
    "compiler/capture",
    "compiler/curvature",
    "compiler/streaming",
    "compiler/lowering",
    "compiler/passes",
    "compiler",
    "kernels",
    "runtime",
    "runtime/caching",
    "runtime/parallel",
    "runtime/aten",
    "runtime/fused",
    "runtime/rounding",
    "runtime/data/formats",
    "runtime/data",
    "runtime/inputs",
    "runtime/model",
    "runtime/pieces",
    "runtime/parts",
    "runtime/curvatures",
    "runtime/solvers",
    "runtime/rules",
    "runtime/optimizers",
    "runtime/charting",
    "runtime/tracking",
    "runtime/training",
    "runtime/diagnostics",
    "runtime/reporting",
    "runtime/checking",
    "runtime/drawing",
    "newtriton",
    "bench",
    "bench/protocol",
    "bench/paper",
    "bench/kfac_jax",
    "bench/scaling",
    "bench/sequences",
    "bench/pages",
    "bench/peers/apart",
    "bench/peers",
    "newtriton/command",
)

# Scripts that measure: test_packaging.py imports them, and no more is tested.
SCRIPTS = {
    f"bench/{name}.py"
    for name in (
        "compiling", "eacg_grid", "first_order", "newton_cg", "patch_factors", "sequences/passes",
    )
}  # fmt: skip

NAMES = frozenset(FILES) - {"newtriton"}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module, package: list[str]) -> Iterator[str]:
    """What a module of a package imports: names of modules, or of what is inside them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and node.value in NAMES:
            yield node.value


def owner(name: str) -> str:
    """The module of the project that holds a name, "" if none does."""
    while name and name not in FILES:
        name = name.rpartition(".")[0]
    return name


@cache
def package_of(module: str) -> list[str]:
    parts = module.split(".")
    return parts if FILES[module].stem == "__init__" else parts[:-1]


@cache
def defined(module: str) -> set[str]:
    """The names that a module binds at its top level."""
    bound: set[str] = set()
    for node in ast.walk(parsed(FILES[module])):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
    return bound


IMPORTED = {m: set(imported(parsed(p), package_of(m))) for m, p in FILES.items()}
IMPORTS = nx.DiGraph()
IMPORTS.add_nodes_from(FILES)
IMPORTS.add_edges_from((m, owner(n)) for m, names in IMPORTED.items() for n in names if owner(n))


def test_every_room_has_its_place() -> None:
    assert {room_of(module) for module in FILES} == set(ROOMS)


def test_every_import_leads_somewhere() -> None:
    nowhere = [
        f"{module}: {name}"
        for module, names in IMPORTED.items()
        for name in names
        if owner(name) not in ("", name)
        and name.removeprefix(f"{owner(name)}.") not in defined(owner(name))
    ]
    assert not nowhere


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_down_only(room: str) -> None:
    upward = [
        f"{a} → {b}"
        for a, b in IMPORTS.edges
        if room_of(a) == room and ROOMS.index(room_of(b)) > ROOMS.index(room)
        if FILES[a].stem != "__main__"  # where `python -m` begins, which nobody imports
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
    assert ast.get_docstring(parsed(front))


@pytest.mark.parametrize(
    ("text", "package", "expected"),
    [
        ("import newtriton.kernels.lags", "bench", {"newtriton.kernels.lags"}),
        ("import newtriton.kernels as k", "bench", {"newtriton.kernels"}),
        ("from . import lags", "kernels", {"newtriton.kernels.lags"}),
        ("from .lags import walk", "kernels", {"newtriton.kernels.lags.walk"}),
        ("from .. import kernels", "kernels", {"newtriton.kernels"}),
        ("from ..graph.ir import N", "compiler.lowering", {"newtriton.compiler.graph.ir.N"}),
        ("def f():\n    from . import lags", "kernels", {"newtriton.kernels.lags"}),
        ("if TYPE_CHECKING:\n    from . import lags", "kernels", {"newtriton.kernels.lags"}),
        ("import_module('newtriton.kernels.lags')", "bench", {"newtriton.kernels.lags"}),
    ],
)
def test_no_form_of_import_is_overlooked(text: str, package: str, expected: set[str]) -> None:
    assert set(imported(ast.parse(text), ["newtriton", *package.split(".")])) == expected


def test_one_name_one_room() -> None:
    names = [room.rpartition("/")[2] for room in ROOMS]
    assert len(set(names)) == len(names)


def test_modules_keep_their_names_where_they_are_imported() -> None:
    renamed = {
        module
        for module, path in FILES.items()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if alias.asname not in (None, alias.name, "nt")
        and set(imported(ast.Module([node], []), package_of(module))) & set(FILES)
    }
    assert not renamed


def mirror(room: str) -> Path:
    """The folder of a room's tests."""
    return TESTS / room.removeprefix("newtriton/") if room != "newtriton" else TESTS


def test_tests_mirror_the_rooms() -> None:
    folders = {path.parent for path in TESTS.rglob("*.py")}
    assert folders == {TESTS / "fuzzing", *map(mirror, ROOMS)}
    assert all((folder / "__init__.py").exists() for folder in folders)


EXPORTED = {
    name.rpartition(".")[2]: owner(name)
    for name in IMPORTED["newtriton"]
    if name.startswith("newtriton.")
}


@cache
def named_by_tests(room: str) -> frozenset[str]:
    """The modules that the tests in a room's folder import, or use as nt.X."""
    found: set[str] = set()
    for path in mirror(room).glob("test_*.py"):
        found |= {owner(name) for name in imported(parsed(path), ["newtriton", "tests"])}
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "nt":
                found.add(EXPORTED.get(node.attr, ""))
    return frozenset(found)


def test_every_module_is_tested_in_its_room() -> None:
    untested = {
        f"{room_of(module)}/{path.name}"
        for module, path in FILES.items()
        if path.stem != "__init__"
        and module not in named_by_tests(room_of(module))
        and not (mirror(room_of(module)) / f"test_{path.name}").exists()
    }
    assert untested == SCRIPTS


PUBLIC = {name: value for name, value in vars(nt).items() if name in EXPORTED}


def test_every_public_name_is_documented() -> None:
    assert len(PUBLIC) == len(EXPORTED)
    assert not [name for name, value in PUBLIC.items() if not value.__doc__]


def test_every_public_object_has_an_example() -> None:
    objects = {name: value for name, value in PUBLIC.items() if not inspect.ismodule(value)}
    missing = {name for name, value in objects.items() if "Examples:" not in value.__doc__}
    assert not missing


PARTS = ("parts", "curvatures", "solvers", "rules", "optimizers")
CLASSES = {
    node.name
    for module, path in FILES.items()
    if room_of(module).removeprefix("runtime/") in PARTS
    for node in parsed(path).body
    if isinstance(node, ast.ClassDef)
}


def messages(module: str) -> Iterator[str]:
    """The sentences of a module that are no docstrings: what errors say."""
    tree = parsed(FILES[module])
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and " " in text.strip() and id(node) not in docstrings:
            yield text


def test_parts_that_errors_name_are_public() -> None:
    named = {
        word
        for module in FILES
        if room_of(module).startswith("runtime/")
        for text in messages(module)
        for word in re.findall(r"\b[A-Z]\w+", text)
    }
    assert not (named & CLASSES) - {"Leaf", *EXPORTED}


def test_parts_that_documentation_names_are_public() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    texts = {page.name: page.read_text(encoding="utf-8") for page in pages}
    # adding.md adds names that are not there yet; what it runs fails by itself.
    there = {name: text for name, text in texts.items() if name != "adding.md"}
    used = {word for text in there.values() for word in re.findall(r"\bnt\.(\w+)", text)}
    outside = [text for name, text in there.items() if name != "architecture.md"]
    outside += [inspect.getdoc(value) or "" for value in PUBLIC.values()]
    named = {word for text in outside for word in re.findall(r"`([A-Z]\w+)[`(]", text)}
    hidden = ((named & CLASSES) | used) - {*EXPORTED}
    assert not hidden

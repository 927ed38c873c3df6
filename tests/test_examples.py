"""The examples of docstrings print what they say."""

from __future__ import annotations

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import newtriton as nt

from .sources import FILES

Documented = ast.Module | ast.ClassDef | ast.FunctionDef
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PARSER = doctest.DocTestParser()


def documented(node: Documented, name: str) -> Iterator[tuple[str, Documented]]:
    """A module, class or function and all that is defined inside it, by their names."""
    yield name, node
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from documented(child, f"{name}.{child.name}")


def examples_of(module: str) -> Iterator[tuple[str, str]]:
    """The docstrings of a module that hold examples: (name, text)."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    for name, node in documented(tree, module):
        text = ast.get_docstring(node) or ""
        if PARSER.get_examples(text):
            yield name, text


EXAMPLES = [
    pytest.param(module, name, text, id=name.removeprefix("newtriton."))
    for module in FILES
    for name, text in examples_of(module)
]


@pytest.mark.parametrize(("module", "name", "text"), EXAMPLES)
def test_an_example_prints_what_it_says(
    module: str, name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = vars(importlib.import_module(module)) | {"nt": nt, "torch": torch}
    example = PARSER.get_doctest(text, names, name, str(FILES[module]), None)
    said: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=OPTIONS).run(example, out=said.append)
    assert not said, "".join(said)

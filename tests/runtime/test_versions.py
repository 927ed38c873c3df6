"""Versions: what is too old, or lacks something, is refused in one sentence; lists agree."""

import ast
import re
from types import SimpleNamespace

import pytest
import torch
import triton

import newtriton as nt
from newtriton.runtime import versions
from newtriton.runtime.versions import OLDEST, TAKEN, TESTED, missing_from, release, require

from ..sources import FILES, ROOT


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    """Puts stand-ins in the place of packages and their modules."""
    modules: dict[str, object] = {}
    real = versions.import_module
    monkeypatch.setattr(versions, "import_module", lambda name: modules.get(name) or real(name))
    return modules


def test_what_is_installed_is_taken():
    require("torch")
    require("triton")
    assert [missing_from(package) for package in TAKEN] == [[], []]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.13.0+cpu", (2, 13)),
        ("3.10.0rc1", (3, 10)),
        ("2.16.0a0+git12ab", (2, 16)),
        ("3.9", (3, 9)),
    ],
)
def test_a_release_is_two_numbers(version: str, expected: tuple[int, int]):
    assert release(version) == expected


@pytest.mark.parametrize(("package", "old"), [("torch", "2.10.1+cu128"), ("triton", "3.5.1")])
def test_an_older_version_is_refused(installed, package: str, old: str):
    installed[package] = SimpleNamespace(__version__=old)
    sentence = f"{package} {re.escape(old)} is installed, .* pip install --upgrade '{package}>="
    with pytest.raises(nt.NewtritonError, match=sentence):
        require(package)


@pytest.mark.parametrize(("package", "new"), [("torch", "2.99.0"), ("triton", "3.10.0")])
def test_a_newer_version_is_taken(installed, package: str, new: str):
    installed[package] = SimpleNamespace(__version__=new, jit=triton.jit)
    require(package)


def test_a_version_that_lacks_something_is_refused(installed):
    installed["triton"] = SimpleNamespace(__version__="3.10.0", jit=triton.jit)
    installed["triton.runtime.jit"] = SimpleNamespace()
    with pytest.raises(nt.NewtritonError) as caught:
        require("triton")
    said = str(caught.value)
    assert said.startswith("triton 3.10.0 lacks triton.runtime.jit.MockTensor, ")
    assert TESTED["triton"] in said and said.endswith("use backend='aten'")


def test_packages_are_asked_for_where_they_are_used():
    for module, package in (("newtriton.runtime", "torch"), ("newtriton.runtime.fused", "triton")):
        assert f'require("{package}")' in FILES[module].read_text()


def test_all_that_is_taken_from_triton_is_listed():
    """Names imported from its modules, and what kernels and generated code use as `tl.…`."""
    used: set[str] = set()
    for name, path in FILES.items():
        if name.startswith("newtriton.bench"):
            continue  # what measures beside the library asks for itself
        text = path.read_text(encoding="utf-8")
        used |= {f"triton.language.{word}" for word in re.findall(r"\btl\.(\w+)", text)}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("triton"):
                used |= {f"{node.module}.{alias.name}" for alias in node.names}
    names = {f"{m}.{name}" for m, names in TAKEN["triton"].items() for name in names.split()}
    assert used - names == set()


def test_lists_of_versions_agree():
    project, makefile, readme = (
        (ROOT / name).read_text() for name in ("pyproject.toml", "Makefile", "README.md")
    )
    for package, oldest in OLDEST.items():
        assert f'"{package}>={oldest}' in project and release(TESTED[package]) == release(oldest)
        assert TESTED[package] in readme
    assert f"TRITONS := {TESTED['triton'].replace(',', '')}\n" in makefile
    pinned = (ROOT / "tests/constraints.txt").read_text()
    for package, tested in TESTED.items():
        assert re.search(rf"^{package}==(.*)$", pinned, re.MULTILINE)[1] in tested.split(", ")
    assert torch.__version__ and triton.__version__

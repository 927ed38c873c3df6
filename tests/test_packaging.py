"""The wheel installs under one name, and works without the sources beside it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import newtriton as nt

from .sources import FILES, FOLDERS, ROOT

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
# Prints where each module came from, or why it did not come, then runs the command. The finder of
# an editable installation goes first: it would fetch from the sources what the wheel lacks.
IMPORT = """
import importlib, json, runpy, sys
target, *modules = sys.argv[1:]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path.insert(0, target)
found = {}
for module in modules:
    try:
        found[module] = importlib.import_module(module).__file__
    except Exception as error:
        found[module] = repr(error)
print(json.dumps(found), flush=True)
sys.argv[1:] = ["--help"]
runpy.run_path(target + "/bin/newtriton", run_name="__main__")
"""


BUILD = """
import sys
from setuptools import build_meta
getattr(build_meta, sys.argv[1])(sys.argv[2])
"""


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources as a release has them, made of a copy: building in place leaves files behind."""
    sources = tmp_path_factory.mktemp("sources")
    for folder in FOLDERS:
        shutil.copytree(
            ROOT / folder, sources / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    output = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-c", BUILD, "build_sdist", str(output)]
    subprocess.run(command, check=True, capture_output=True, cwd=sources)
    (path,) = output.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built offline, of nothing but what the sdist holds."""
    output = tmp_path_factory.mktemp("wheel")
    command = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", output, sdist]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = output.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder into which the wheel alone was installed."""
    target = tmp_path_factory.mktemp("installed")
    command = [*PIP, "install", "--no-deps", "--no-index", "--no-compile", "--target", target]
    subprocess.run([*command, wheel], check=True, capture_output=True)
    return target


def test_the_wheel_holds_one_package_and_all_of_it(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"newtriton"}
    for folder in FOLDERS:
        inside = "newtriton" if folder == "newtriton" else f"newtriton/{folder}"
        for source in (ROOT / folder).rglob("*.py"):
            assert f"{inside}/{source.relative_to(ROOT / folder).as_posix()}" in names


def test_the_sdist_holds_no_part_of_the_tests(sdist: Path):
    with tarfile.open(sdist) as packed:
        names = packed.getnames()
    assert any(name.endswith("/compiler/programs.py") for name in names)
    assert not [name for name in names if name.split("/")[1:2] == ["tests"]]


def test_type_checkers_are_told_of_the_annotations(wheel: Path):
    assert "newtriton/py.typed" in zipfile.ZipFile(wheel).namelist()


def test_every_folder_of_sources_is_a_package_of_the_wheel(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.rpartition("/")[0].replace("/", ".") for name in names if name[-3:] == ".py"}
    folders = {module for module, path in FILES.items() if path.stem == "__init__"}
    assert packages == folders


@pytest.fixture(scope="module")
def said(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a process says that imports every module and then runs the command."""
    # Nor does a module need Triton's interpreter, or a GPU, to be imported.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-I", "-c", IMPORT, str(installed), *FILES]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    run = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=elsewhere, env=environment
    )
    return run.stdout


def test_every_module_imports_from_the_wheel_alone(installed: Path, said: str):
    imported, _, _ = said.partition("\n")
    elsewhere = {
        module: origin
        for module, origin in json.loads(imported).items()
        if not origin.startswith(str(installed))
    }
    assert not elsewhere


def test_the_wheel_installs_the_command(said: str):
    _, _, shown = said.partition("\n")
    assert shown.startswith("usage: newtriton")
    assert all(name in shown for name in ("train", "inspect", "check", "bench"))


def test_the_package_is_found_in_the_folder_above_a_clone(tmp_path: Path) -> None:
    (tmp_path / "newtriton").symlink_to(ROOT, target_is_directory=True)
    command = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'ditable' not in repr(f)];"
        "import newtriton as nt, newtriton.runtime, newtriton.command.main;"
        "print(nt.Linear(3), nt.runtime.__file__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # as compat's .pth file says it
    found = subprocess.run(
        [sys.executable, "-c", command], cwd=tmp_path, env=environment, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert found.stdout.split() == ["Linear(3)", str(ROOT / "runtime" / "__init__.py")]


def test_an_editable_installation_names_the_clone(tmp_path: Path) -> None:
    for folder in FOLDERS:
        (tmp_path / folder).symlink_to(ROOT / folder, target_is_directory=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    command = [sys.executable, "-c", BUILD, "build_editable", str(tmp_path)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        (path,) = (name for name in packed.namelist() if name.endswith(".pth"))
        assert packed.read(path).decode().split() == [str(tmp_path)]


HEAVY = ("triton", "matplotlib", "sklearn", "scipy", "PIL", "networkx", "torch._dynamo", "sympy")


def test_what_is_seldom_needed_is_imported_where_it_is_used() -> None:
    """An import of newtriton takes little longer than PyTorch's."""
    code = (
        "import sys, torch; before = set(sys.modules); import newtriton; "
        "print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "newtriton" in found
    assert not set(HEAVY) & set(found)


def test_a_version_is_said_alike_everywhere() -> None:
    project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    changes = (ROOT / "docs" / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.search(r"^## (\d\S*)", changes, re.M)
    assert project and cited and released
    assert {project[1], cited[1], released[1]} == {nt.__version__}

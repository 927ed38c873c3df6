"""The wheel installs under one name, and imports without the sources beside it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("newtriton", "compiler", "kernels", "runtime", "bench")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built offline, from a copy: building in place would leave files behind."""
    sources = tmp_path_factory.mktemp("sources")
    for folder in FOLDERS:
        shutil.copytree(
            ROOT / folder, sources / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    output = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", output, sources], check=True, capture_output=True)
    (path,) = output.glob("*.whl")
    return path


def test_the_wheel_holds_one_package_and_all_of_it(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"newtriton"}
    for folder in FOLDERS:
        inside = "newtriton" if folder == "newtriton" else f"newtriton/{folder}"
        for source in (ROOT / folder).rglob("*.py"):
            assert f"{inside}/{source.relative_to(ROOT / folder).as_posix()}" in names


def test_the_wheel_imports_on_its_own(wheel: Path, tmp_path: Path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        "import newtriton.compiler, newtriton.runtime; "
        "print(newtriton.__file__, newtriton.compiler.__file__)"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", program], check=True, capture_output=True, text=True
    )
    assert run.stdout.split() == [
        str(tmp_path / "newtriton" / "__init__.py"),
        str(tmp_path / "newtriton" / "compiler" / "__init__.py"),
    ]

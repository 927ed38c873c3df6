"""`module:attribute`: an object of a user's file or module, or one line that says why not."""

import sys
from pathlib import Path

import pytest

from newtriton.command.references import named, users_code
from newtriton.compiler.graph.errors import NewtritonError

TABLE = {"one": 1, "two": 2}


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of its own, and the path as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


def write(name: str, text: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return name


def test_a_name_of_the_table_is_its_entry() -> None:
    assert named("two", TABLE, "--net") == 2


def test_a_file_can_import_its_neighbours() -> None:
    write("nets/neighbour_of_net.py", "WIDTH = 3")
    file = write("nets/net_by_file.py", "from neighbour_of_net import WIDTH\nclass A:\n  b = WIDTH")
    assert named(f"{file}:A.b", TABLE, "--net") == 3


def test_a_file_runs_once_however_often_it_is_named() -> None:
    file = write("named_twice.py", "value = object()")
    assert named(f"{file}:value", TABLE, "--net") is named(f"./{file}:value", TABLE, "--loss")


def test_a_file_may_have_the_name_of_another_module() -> None:
    file = write("random.py", "value = 5")
    assert named(f"{file}:value", TABLE, "--net") == 5
    assert sys.modules["random"].__file__ != str(Path(file).resolve())


def test_a_package_is_found_from_the_present_folder() -> None:
    write("package_of_nets/__init__.py", "")
    write("package_of_nets/deep.py", "value = 7")
    assert named("package_of_nets.deep:value", TABLE, "--net") == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("three", "--net is 'three': one of one, two, or module:attribute"),
        ("one:", "module:attribute"),
        (":one", "module:attribute"),
        ("absent.py:net", "there is no file absent.py"),
        ("no_such_module:net", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("good.py:missing", "good.py has no 'missing'"),
        ("good.py:value.missing", "good.py has no 'value.missing'"),
        ("bad.py:value", "NameError: name 'undefined' is not defined ("),
        ("bad.py:value", "bad.py, line 2)"),
        ("worse.py:value", "SyntaxError"),
    ],
)
def test_what_cannot_be_found_is_said_in_one_line(text: str, message: str) -> None:
    write("good.py", "value = 1")
    write("bad.py", "value = 1\nundefined")
    write("worse.py", "value = = 1")
    with pytest.raises(NewtritonError) as raised:
        named(text, TABLE, "--net")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_failed_can_be_named_again() -> None:
    file = write("mended.py", "undefined")
    with pytest.raises(NewtritonError):
        named(f"{file}:value", TABLE, "--net")
    write("mended.py", "value = 2")
    assert named(f"{file}:value", TABLE, "--net") == 2


def test_errors_of_newtriton_stay_as_they_are() -> None:
    with pytest.raises(NewtritonError, match=r"^as it is$"), users_code("making a net"):
        raise NewtritonError("as it is")

"""The parser: what cannot be parsed takes one line, and every option says what it is for."""

import argparse
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator

import pytest

import newtriton as nt
from newtriton.command import main as cli
from newtriton.command.catalogue import DIAGNOSES, OPTIMIZERS
from newtriton.command.keywords import Entry


def one_line(text: str) -> str:
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


def small_cnn() -> nt.Sequential:
    """A network of a convolution and a pool, as the catalogue's, whose programs run fast."""
    conv = nt.Conv2d(4, 3, padding=1)
    return nt.Sequential(conv, nt.SiLU(), nt.MaxPool2d(2), nt.Flatten(), nt.Linear(10))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["train"], "--output"),
        (["train", "--output", "x", "--optimizer", "kfax"], "kfax"),
        (["train", "--output", "x", "--epochs", "many"], "many"),
        (["inspect", "--net", "cnn", "--input", "3x-2"], "write it like 3x32x32"),
    ],
)
def test_what_cannot_be_parsed_takes_one_line(capsys, arguments: list[str], message: str):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert message in one_line(capsys.readouterr().err)


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"newtriton {nt.__version__}\n"


def test_the_command_runs_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(sys, "argv", ["newtriton", "--help"])
    monkeypatch.delitem(sys.modules, cli.__name__)
    with pytest.raises(SystemExit) as end:
        runpy.run_module(cli.__name__, run_name="__main__")
    assert not end.value.code
    assert "train" in capsys.readouterr().out


def options() -> Iterator[tuple[str, argparse.Action]]:
    """Every option and argument, with its command."""
    (commands,) = (a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        yield from ((name, action) for action in command._actions if action.dest != "help")


@pytest.mark.parametrize(
    ("command", "action"), [*options()], ids=lambda x: x if isinstance(x, str) else x.dest
)
def test_every_option_has_a_help_text_with_its_default(command: str, action: argparse.Action):
    assert action.help
    default = "" if action.default in (None, False) else action.default
    text = action.help % {"default": action.default}
    if isinstance(default, list):
        assert "default: all" in text or all(str(part) in text for part in default)
    else:
        assert str(default) in text


@pytest.mark.parametrize(
    ("command", "table"), [("train", OPTIMIZERS), ("inspect", DIAGNOSES)], ids=["train", "inspect"]
)
def test_help_texts_say_whose_an_option_is(command: str, table: dict[str, Entry]):
    texts = {action.dest: action.help or "" for name, action in options() if name == command}
    for option in {option for entry in table.values() for option in entry.keywords}:
        _, _, owners = texts[option].partition(" for ")
        for name, entry in table.items():
            assert (f"{name} (default: " in owners) == (option in entry.keywords)
            if option in entry.keywords:
                assert f"{name} (default: {entry.default(option)})" in owners


def test_a_closed_pipe_ends_quietly() -> None:
    arguments = ["inspect", "--net", "mlp", "--input", "784"]
    command = [sys.executable, "-m", cli.__name__, *arguments]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)
    assert ended.stderr == b""
    assert ended.returncode == cli.CLOSED


def test_what_both_halves_of_a_check_refuse_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    command = [sys.executable, "-m", cli.__name__, "check", "--nets", "nosuch"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == cli.CANNOT
    assert "--nets is 'nosuch'" in one_line(ended.stderr)

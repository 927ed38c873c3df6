"""Parsers: what cannot be parsed is one line on stderr, status 2, and what was probably meant."""

from __future__ import annotations

import argparse

import pytest

from newtriton.runtime.arguments import CANNOT, Parser


def parser() -> Parser:
    top = Parser(prog="made")
    top.add_argument("--version", action="store_true")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    train = commands.add_parser("train", allow_abbrev=False)
    train.add_argument("--epochs", type=int)
    train.add_argument("--optimizer", choices=("adam", "sgd"))
    train.add_argument("--output", required=True)
    train.add_argument("--note")
    bench = commands.add_parser("bench")
    bench.add_argument("--quick", action="store_true")
    bench.add_argument("name", nargs="?")
    bench.add_argument("rest", nargs=argparse.REMAINDER)
    return top


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "COMMAND is 'trian': one of 'train', 'bench'; did you mean 'train'?"),
        (["--vrsion"], "there is no option --vrsion; did you mean '--version'?"),
        (["train", "--epoch=3"], "there is no option --epoch; did you mean '--epochs'?"),
        (["train", "--ouput", "a"], "there is no option --ouput; did you mean '--output'?"),
        (["train", "--zzz"], "there is no option --zzz: --help lists them"),
        (
            ["train", "--optimizer", "Adm"],
            "--optimizer is 'Adm': one of 'adam', 'sgd'; did you mean 'adam'?",
        ),
        (["train", "--optimizer", "x"], "--optimizer is 'x': one of 'adam', 'sgd'"),
        (["train", "--epochs", "x"], "argument --epochs: invalid int value: 'x'"),
        (["train", "--output", "a\nb", "c\nd"], "unrecognized arguments: c d"),
        (["bench", "--quik"], "there is no option --quik; did you mean '--quick'?"),
    ],
)
def test_what_is_mistyped_takes_one_line(arguments, message, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(arguments)
    assert ended.value.code == CANNOT
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["bench", "paper", "--list"], {"rest": ["--list"]}),  # options of the measurement
        (["bench", "--qui"], {"quick": True}),  # the beginning is enough
        (
            ["train", "--output", "a", "--note", "--zzz is no option"],
            {"note": "--zzz is no option"},
        ),
        (["train", "--output=--zzz"], {"output": "--zzz"}),
        (["--version", "train", "--output", "a"], {"version": True}),
    ],
)
def test_what_is_right_is_taken(arguments, found) -> None:
    assert vars(parser().parse_args(arguments)).items() >= found.items()


def test_options_may_come_from_the_program(monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["made", "train", "--output", "a"])
    assert parser().parse_args().output == "a"

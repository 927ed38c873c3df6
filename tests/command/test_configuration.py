"""A file of options: what it says counts where the command line says nothing."""

import argparse
from pathlib import Path

import pytest

from newtriton.command.configuration import expanded
from newtriton.compiler.graph.errors import NewtritonError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path)
    parser.add_argument("--net", choices=("cnn", "mlp"), default="cnn")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--norm", action=argparse.BooleanOptionalAction)
    parser.add_argument("--set", action="append")


def parsed(tmp_path: Path, text: str, *arguments: str) -> argparse.Namespace:
    (tmp_path / "run.toml").write_text(text)
    parser = argparse.ArgumentParser()
    add_options(parser)
    given = ["--config", str(tmp_path / "run.toml"), *arguments]
    return parser.parse_args(expanded(given, add_options))


def test_options_come_from_the_file_and_the_command_line_wins(tmp_path: Path) -> None:
    text = 'net = "mlp"\nbatch-size = 5\nrate = -0.25\nresume = true\nnorm = false\n'
    found = parsed(tmp_path, text, "--batch-size", "7")
    assert (found.net, found.batch_size, found.rate) == ("mlp", 7, -0.25)
    assert (found.resume, found.norm) == (True, False)
    assert parsed(tmp_path, "resume = false\nnorm = true").norm
    assert not parsed(tmp_path, "resume = false").resume


def test_keywords_are_a_table(tmp_path: Path) -> None:
    text = '[set]\nevery = [1, 20]\nnoise = "none"\nflag = true\n'
    found = parsed(tmp_path, text, "--set", "every=3")
    assert found.set == ["every=1,20", "noise=none", "flag=true", "every=3"]
    assert parsed(tmp_path, 'set = ["every=1,20", "a=1"]').set == ["every=1,20", "a=1"]


def test_without_a_file_nothing_changes() -> None:
    assert expanded(["--net", "mlp"], add_options) == ["--net", "mlp"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "has 'epoch', which is no option: net, batch-size, rate, resume, norm, set"),
        ("batch_size = 3", "has 'batch_size', which is no option"),
        ("batch = 3", "has 'batch', which is no option"),
        ('config = "other.toml"', "has 'config', which is no option"),
        ("help = true", "has 'help', which is no option"),
        ("epoch = false", "has 'epoch', which is no option"),
        ('batch-size = "many"', "argument --batch-size: invalid int value: 'many'"),
        ('net = "vgg"', "--net is 'vgg': one of"),
        ("batch-size = 1979-05-27", "batch-size is datetime.date"),
        ("resume = 3", "argument --resume"),
        ("[net]\nx = 1", "net is {'x': 1}: give a number, text or true"),
        ("net = ", "is no TOML file"),
    ],
)
def test_a_fault_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(NewtritonError) as raised:
        parsed(tmp_path, text)
    assert str(tmp_path / "run.toml") in str(raised.value)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    ["a." * 3000 + "a = 1", "net = " + "[" * 400 + "1" + "]" * 400, "x = " + "[" * 5000],
    ids=["keys", "lists", "open lists"],
)
def test_what_is_nested_too_deeply_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(NewtritonError, match=r"run\.toml(: a)? is (no TOML|no file of|{)"):
        parsed(tmp_path, text)


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(NewtritonError, match=r"run\.toml cannot be read: it has \d+ bytes"):
        parsed(tmp_path, "a." * 100_000 + "a = 1")

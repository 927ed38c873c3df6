"""The data that options describe, of the catalogue or of the user's."""

import argparse
import sys
from pathlib import Path

import pytest
import torch

import newtriton as nt
from newtriton.command.data import add_data, data
from newtriton.compiler.graph.errors import NewtritonError

SETS = """
import numpy as np
import torch

x, y = torch.arange(8.0).reshape(4, 2), torch.tensor([0, 1, 0, 1])
pair = (x, y), (x[:2], y[:2])

def arrays():
    return (x.numpy(), y.numpy()), (x.numpy(), y.numpy())

def from_files(root="here"):
    from_files.root = root
    return pair

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return len(y)
    def __getitem__(self, i):
        return x[i], int(y[i])

def datasets():
    return {"train": Rows(), "test": Rows()}

def broken():
    return torch.zeros(2) @ torch.zeros(3)
"""


@pytest.fixture(autouse=True)
def _sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file of data in the present folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "sets_of_a_user", raising=False)
    Path("sets_of_a_user.py").write_text(SETS)


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_data(parser, "digits")
    return parser.parse_args([a.replace("sets:", "sets_of_a_user.py:") for a in arguments])


@pytest.mark.parametrize("name", ["sets:pair", "sets:arrays", "sets:from_files"])
def test_data_of_the_users_are_samples(name: str) -> None:
    for part in data(options("--data", name)):
        assert isinstance(part, nt.Samples)
        assert part.y.dtype == torch.int64
        assert len(part.x) == len(part.y)


def test_datasets_of_the_users_are_read_as_they_come() -> None:
    for part in data(options("--data", "sets:datasets")):
        (first, labels), _ = nt.Batches(*part, 3, shuffle=False)
        assert first.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
        assert labels.tolist() == [0, 1, 0]


def test_the_folder_goes_to_a_function_that_reads_files() -> None:
    data(options("--data", "sets:from_files"))
    function = sys.modules["sets_of_a_user"].from_files
    assert function.root == "here"
    data(options("--data", "sets:from_files", "--data-dir", "there"))
    assert function.root == Path("there")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "digit"], "--data is 'digit': one of digits"),
        (["--data", "sets:pair", "--data-dir", "x"], "--data-dir is not for sets_of_a_user.py:p"),
        (["--data", "sets:arrays", "--preprocessing", "x"], "--preprocessing is not for sets_"),
        (["--data", "sets:y"], "Tensor: give a name, or a pair of datasets"),
        (["--data", "sets:x"], "give a name, or a pair of datasets"),
        (["--data", "sets:x"], "gives no pair (training, validation), each of them a pair (x, y)"),
        (["--data", "sets:broken"], "failed with RuntimeError"),
    ],
)
def test_what_is_no_data_is_said(arguments: list[str], message: str) -> None:
    with pytest.raises(NewtritonError) as raised:
        data(options(*arguments))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)

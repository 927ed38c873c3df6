"""Options are those of the signature, and mean what the docstring says."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import newtriton as nt
from newtriton.bench.pages.results import Results
from newtriton.bench.pages.signatures import arguments, combinations, defaults

FILES = Results(Path())


@pytest.mark.parametrize("name", ["FITRE", "TorchOptimizer", "spectrum"])
def test_every_option_has_its_default_and_meaning(name: str) -> None:
    lines = [*defaults(FILES, name)][2:]
    options = inspect.signature(getattr(nt, name)).parameters
    assert [line.split("`")[1] for line in lines] == [*options]
    assert all(len(line.split(" | ")[-1]) > 5 for line in lines)


def test_defaults_are_shown_as_code() -> None:
    lines = [*defaults(FILES, "FITRE")]
    assert "| `moving_average` | `0.9` | θ of the factors, 0 ≤ θ < 1. |" in lines
    assert '| `noise` | `"wiener"` |' in "\n".join(lines)


def test_a_meaning_ends_with_its_paragraph() -> None:
    text = "F.\n\nArgs:\n    a: one\n        or two.\n\nAttributes:\n    b: three."
    assert arguments(text) == {"a": "one or two."}


@pytest.mark.parametrize("name", ["None", "nowhere", "__version__"])
def test_what_is_none_is_refused(name: str) -> None:
    with pytest.raises(nt.NewtritonError, match="there is no nt"):
        list(defaults(FILES, name))


def test_what_goes_together_is_tried() -> None:
    found = {line.split(" | ")[0]: line for line in combinations(FILES)}
    assert found["| `ggn`, `ggn-layers`"].endswith("| | | | | all | trust-region |")
    assert found["| `hessian`, `hessian-layers`"].count("fixed") == 0

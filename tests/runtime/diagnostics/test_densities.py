"""Densities of spectra: they integrate to 1, and agree with exact spectra within their errors."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from tests.tolerances import assert_close

from ..problems import dense, problem


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
@pytest.mark.parametrize("vectors", [4, 100])
def test_integrates_to_one(matrix: str, vectors: int) -> None:
    model, [(x, y)] = problem("cnn")
    found = nt.density(model.linearize(x, y), matrix, vectors=vectors, steps=12)
    t = found.grid(4000)
    assert found.exact is (vectors == 100)
    assert float(torch.trapezoid(found(t)[0], t)) == pytest.approx(1.0, abs=1e-6)
    assert found.share(*found.range)[0] == pytest.approx(1.0, abs=1e-6)
    assert found.weights.sum(1).tolist() == pytest.approx([1.0] * len(found.weights))


def test_a_small_matrix_has_its_exact_density() -> None:
    model, [(x, y)] = problem("mlp")
    lin = model.linearize(x, y)
    values = torch.linalg.eigvalsh(dense(lin.hvp, model.layout.numel))
    found = nt.density(lin, width=0.05)
    t = torch.linspace(-0.5, 1.0, 40, dtype=torch.float64)
    z = (t[:, None] - values) / 0.05
    assert_close(found(t)[0], (torch.exp(-0.5 * z**2) / (0.05 * math.sqrt(2 * math.pi))).mean(1))
    assert found.products == model.layout.numel
    assert not found(t)[1].any()


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_agrees_with_the_exact_spectrum_within_its_errors(matrix: str) -> None:
    model, [(x, y)] = problem("cnn")
    lin = model.linearize(x, y)
    exact = nt.density(lin, matrix, vectors=2, steps=model.layout.numel)
    found = nt.density(lin, matrix, vectors=12, steps=13, width=exact.width)
    assert (exact.exact, found.exact, found.products) == (True, False, 12 * 13)
    low, high = exact.range
    cuts = torch.linspace(low, high, 9).tolist()
    for a, b in itertools.pairwise(cuts):
        share, error = found.share(a, b)
        assert abs(share - exact.share(a, b)[0]) < 4 * error + 0.01


def test_a_krylov_space_that_ends_is_enough() -> None:
    """2x²I and one zero more has two eigenvalues: Lanczos' method ends after two steps."""
    model = nt.compile(nt.Linear(30, bias=False), (2,), nt.MSELoss(), dtype=torch.float64)
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    lin = model.linearize(x, torch.zeros(1, 30, dtype=torch.float64))
    found = nt.density(lin, vectors=5, steps=11)
    assert found.products <= 5 * 3
    share, error = found.share(9.0, 11.0)  # 2‖x‖² = 10, of half of all eigenvalues
    assert abs(share - 0.5) < 4 * error
    assert share + found.share(-1.0, 1.0)[0] == pytest.approx(1.0)


def test_prints_shares_that_add_up() -> None:
    model, [(x, y)] = problem("cnn")
    *rows, last = str(nt.density(model.linearize(x, y), vectors=3, steps=5)).splitlines()
    assert rows[0].split() == ["from", "to", "share", "error"]
    assert sum(float(row.split()[2].rstrip("%")) for row in rows[1:]) == pytest.approx(100, abs=0.1)
    assert last.startswith("3 random vectors, σ = ")
    assert last.endswith("15 products")


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda lin: nt.density(lin, "fisher"), "matrix is 'fisher'"),
        (lambda lin: nt.density(lin, vectors=1), "vectors is 1"),
        (lambda lin: nt.density(lin, steps=1), "steps is 1"),
        (lambda lin: nt.density(lin, width=0.0), "width is 0"),
    ],
)
def test_refuses_what_there_cannot_be(
    call: Callable[[nt.Linearization], object], named: str
) -> None:
    model, [(x, y)] = problem("mlp")
    with pytest.raises(NewtritonError, match=named):
        call(model.linearize(x, y))


def test_a_density_is_drawn_into_a_file_or_on_axes(tmp_path: Path) -> None:
    model, [(x, y)] = problem("cnn")
    found = nt.density(model.linearize(x, y), vectors=4, steps=12)
    figure = found.plot(tmp_path / "a" / "spectrum.svg")
    assert (tmp_path / "a" / "spectrum.svg").read_bytes().startswith(b"<?xml")
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "Density of the eigenvalues of the Hessian"
    own = Figure()
    assert found.plot(axes=own.subplots()) is own
    assert len(own.axes[0].get_lines()) == 1
    with pytest.raises(NewtritonError, match="axes is 3: give Matplotlib's axes"):
        found.plot(axes=3)  # type: ignore[arg-type]
    with pytest.raises(NewtritonError, match="path goes without axes"):
        found.plot("spectrum.png", own.axes[0])


def test_a_saved_density_loads_as_it_was(tmp_path: Path) -> None:
    model, [(x, y)] = problem("mlp")
    found = nt.density(model.linearize(x, y), "ggn", vectors=2, steps=3)
    found.save(tmp_path / "spectrum.json")
    again = type(found).load(tmp_path / "spectrum.json")
    assert torch.equal(again.nodes, found.nodes) and torch.equal(again.weights, found.weights)
    assert (again.width, again.products, again.exact, again.matrix) == (
        *(found.width, found.products, found.exact), "ggn",
    )  # fmt: skip
    with pytest.raises(NewtritonError, match="cannot be written"):
        found.save(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("nodes", []), ("nodes", [[1, "a"]]), ("nodes", [[math.nan] * 3] * 2), ("weights", [[0.5]]),
     ("width", 0), ("matrix", "fisher"), ("more", 1)],
)  # fmt: skip
def test_another_file_is_refused_by_name(tmp_path: Path, name: str, value: object) -> None:
    model, [(x, y)] = problem("mlp")
    path = tmp_path / "spectrum.json"
    found = nt.density(model.linearize(x, y), vectors=2, steps=3)
    found.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(NewtritonError, match=r"spectrum\.json is no spectrum that Density\.save"):
        type(found).load(path)

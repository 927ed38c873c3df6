"""Pictures are files of the format that is asked for, or stand in a page and take its colours."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib as mpl
import pytest

import newtriton as nt
from newtriton.runtime.charting import colours
from newtriton.runtime.charting.saving import save
from newtriton.runtime.reporting.charts import draw
from newtriton.runtime.reporting.figures import figure_of, inline
from newtriton.runtime.reporting.page import page
from newtriton.runtime.reporting.quantities import LOSS
from newtriton.runtime.reporting.reading import Run
from newtriton.runtime.reporting.style import style_sheet

from .records import diverged, history

RUNS = [Run("a $x_{$", history()), Run("b", diverged())]


def test_a_picture_has_a_row_for_each_axis_and_a_column_for_each_quantity(tmp_path: Path) -> None:
    backend = mpl.rcParams._get_backend_or_none()
    figure = figure_of(RUNS, ["loss", "accuracy", "damping"], ["epochs", "seconds"])
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Loss by epoch", "Validation accuracy by epoch", "Damping γ by epoch",
        "Loss by second", "Validation accuracy by second", "Damping γ by second",
    ]  # fmt: skip
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for ending, begin in begins.items():
        save(figure, tmp_path / "deep" / f"run.{ending}")
        assert (tmp_path / "deep" / f"run.{ending}").read_bytes().startswith(begin)
    assert mpl.rcParams._get_backend_or_none() == backend


def test_what_cannot_be_drawn_is_one_error() -> None:
    for what, against, message in [
        (["loss"], ["days"], "against is 'days': one of 'epochs', 'steps', 'seconds'"),
        (["lr"], ["steps"], "what is 'lr': one of 'loss', 'accuracy', 'rho'"),
        ([], ["steps"], "there is nothing to draw"),
    ]:
        with pytest.raises(nt.NewtritonError, match=message):
            figure_of(RUNS, what, against)


def test_a_chart_of_a_page_takes_its_colours_from_it() -> None:
    text = inline(lambda axes: draw(axes, RUNS, LOSS, "epochs"), "c1-")
    root = ET.fromstring(text)
    assert root.tag == "svg" and root.get("viewBox") and root.get("width") is None
    assert {"run1", "run2", "muted", "grid"} <= set(re.findall(r"var\(--(\w+)\)", text))
    assert not re.findall(r"#[0-9a-f]{6}", text), "no colour stays by dark what it is by light"
    assert all(name.startswith("c1-") for name in re.findall(r' id="([^"]*)"', text))
    assert "DejaVu" not in text and "metadata" not in text


def test_ticks_are_left_as_they_are_and_the_same_chart_is_the_same_text() -> None:
    run = history()
    for step in run.steps:
        step["loss"] *= 1e-3
    one, other = (
        inline(lambda axes: draw(axes, [Run("a", run)], LOSS, "steps"), "c1-") for _ in range(2)
    )
    assert one == other
    assert ">0.001<" in one, "places are rounded, and no text"


def test_every_colour_has_one_by_dark_and_no_two_are_the_same() -> None:
    light = [pair[0] for pair in colours.VARIABLES.values()]
    assert len(set(light)) == len(light)
    sheet = style_sheet()
    for pair in colours.VARIABLES.values():
        assert pair[0] in sheet and pair[1] in sheet
    assert set(re.findall(r"var\(--(\w+)\)", sheet)) <= {*colours.VARIABLES, "back"}


def test_a_page_uses_no_variable_that_it_does_not_set() -> None:
    text = page(RUNS)
    assert set(re.findall(r"var\(--(\w+)\)", text)) <= set(re.findall(r"--(\w+):", text))

"""A report is one page that loads nothing, with the numbers of the histories in it, exactly."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import astuple
from html.parser import HTMLParser
from pathlib import Path

import pytest

import newtriton as nt
from newtriton.runtime.training.history import MOST

from ..training.damage import Parts
from .records import diverged, history

VOID = {"meta", "br", "img", "link", "input", "hr"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page(HTMLParser):
    """A page whose elements are closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.values: list[str] = []
        self.tags: dict[str, int] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "data":
            self.values.append(dict(attrs)["value"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def made(folder: Path, runs: object) -> Page:
    nt.report(runs, folder / "report.html")  # type: ignore[arg-type]
    return Page(folder / "report.html")


def test_a_page_loads_nothing(tmp_path: Path) -> None:
    page = made(tmp_path, {"a": history(), "b": diverged()})
    assert "http" not in page.source and "@import" not in page.source
    assert not {"script", "link", "img", "iframe", "base"} & page.tags.keys()
    names = {value for _, name, value in page.attributes if name == "id"}
    for tag, name, value in page.attributes:
        if name in ("href", "src"):
            assert value.startswith("#") and value[1:] in names, (tag, value)
    used = set(re.findall(r"url\(([^)]*)\)", page.source))
    assert {value.lstrip("#") for value in used} <= names
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)), "no name is there twice"


def test_a_page_holds_the_numbers_exactly(tmp_path: Path) -> None:
    run = history(40)
    page = made(tmp_path, run)
    for epoch in run.epochs:
        assert {repr(value) for value in astuple(epoch)[1:]} <= set(page.values)
    best = min(epoch.validation_loss for epoch in run.epochs)
    refused = sum(not step["accepted"] for step in run.steps)
    tiles = page.values[:8]
    accuracy = run.epochs[-1].validation_accuracy
    assert tiles == [
        *map(repr, (accuracy, accuracy, best, run.epochs[-1].validation_loss)),
        *map(repr, (run.epochs[-1].loss, 40, 10.0, refused)),
    ]
    assert "8 steps were refused: it takes the loss from " in page.text
    assert ", and 7 like it." in page.text


def test_what_nothing_recorded_is_not_drawn(tmp_path: Path) -> None:
    page = made(tmp_path, history())
    for title in (
        "Loss by second",
        "Damping γ",
        "Gain φ that noise leaves",
        "Radius of the trust region",
    ):
        assert title in page.text
    for title in ("Learning rate", "conjugate gradients", "Halvings", "Spectrum", "Options"):
        assert title not in page.text
    run = history(cg_iterations=3, temperature=1.5)
    run.epochs.clear()
    page = made(tmp_path, run)
    assert "Iterations of conjugate gradients" in page.text and "temperature" in page.text
    assert "accuracy" not in page.text


def test_runs_are_compared_and_the_best_is_bold(tmp_path: Path) -> None:
    runs = {"first": history(12, seed=1), "second": history(20, seed=2)}
    page = made(tmp_path, runs)
    assert "2 runs compared" in page.text
    finals = [run.epochs[-1].validation_loss for run in runs.values()]
    bold = re.findall(r'<b><data value="([^"]*)"', page.source)
    assert repr(min(finals)) in bold and repr(max(finals)) not in bold
    assert page.tags["figure"] == 6 + 6


def test_folders_of_runs_have_options_versions_and_what_went_wrong(tmp_path: Path) -> None:
    parts = Parts()
    parts.train(tmp_path / "one", 2, "never")
    nt.density(parts.model.linearize(parts.data.x, parts.data.y)).save(
        tmp_path / "one" / "spectrum.json"
    )
    page = made(tmp_path, [tmp_path / "one", tmp_path / "one" / "history.json"])
    assert page.source.count("one") > 2
    page = made(tmp_path, tmp_path / "one")
    assert "KFAC, mlp, 47 parameters" in page.text
    for text in ("optimizer every 1, 2", "batch size 4", "torch", "Density of the eigenvalues"):
        assert text in page.text, text

    def stop(history: nt.History) -> None:
        raise RuntimeError("<the> user's own")

    with pytest.raises(RuntimeError):
        parts.train(tmp_path / "one", 4, "last", callbacks=[stop])
    page = made(tmp_path, tmp_path / "one")
    assert "It failed after 6 steps" in page.text and "RuntimeError: <the> user's own" in page.text


def test_losses_that_are_not_finite_are_told_and_marked(tmp_path: Path) -> None:
    page = made(tmp_path, diverged())
    assert "The losses of 3 steps are not finite, first of step 7." in page.text
    assert "The losses of 1 epoch are not finite, first of epoch 3." in page.text
    assert "not finite, or outside of the chart" in page.text
    assert {"inf", "nan"} <= set(page.values)
    assert "outside of the chart" not in made(tmp_path, history()).text


def test_hostile_names_are_text(tmp_path: Path) -> None:
    name = "</title><script>alert('&')</script> $x_{$ \"\u202e"
    page = made(tmp_path, {name: history(), "": history(8)})
    assert "script" not in page.tags
    assert "</title><script>alert('&')</script> $x_{$" in page.text


def test_a_long_run_is_a_small_file_and_its_spike_stays(tmp_path: Path) -> None:
    run = history(30_000, 3_000)
    assert len(run.steps) <= MOST
    run.steps[4321]["damping"] = 1e9
    page = made(tmp_path, {"a": run, "b": run, "c": run})
    assert len(page.source) < 1_000_000
    assert "10⁹" in page.text, "the axis reaches up to the spike"
    assert f"Of 30,000 steps {len(run.steps):,} are recorded" in page.text


def test_many_epochs_are_a_short_table_that_ends_with_the_last(tmp_path: Path) -> None:
    run = history(1_000, 1)
    page = made(tmp_path, run)
    assert page.source.count("<tr>") < 300
    assert repr(run.epochs[-1].validation_loss) in page.values


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    for runs, message in [
        ([], "there are no runs"),
        (3, "runs are 3: give folders of runs, or histories"),
        ([3], "a run is 3: give its folder"),
        (nt.History(), "nothing has been recorded of run 'run'"),
        (tmp_path / "no", "is not there"),
        (tmp_path, "holds no run"),
        ({3: history()}, "have a key 3"),
    ]:
        with pytest.raises(nt.NewtritonError, match=message):
            nt.report(runs, tmp_path / "report.html")  # type: ignore[arg-type]
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(nt.NewtritonError, match="cannot be written"):
        nt.report(history(), tmp_path)


DUMP = """<script>
const errors = [];
addEventListener("error", event => errors.push(event.message));
addEventListener("load", () => {
  const root = document.documentElement;
  const beyond = [...document.querySelectorAll("body *")].filter(
    part => part.getBoundingClientRect().right > root.clientWidth + 1);
  const widest = beyond.slice(-1).map(part => `${part.tagName} ${part.className} is too wide`);
  const wide = root.scrollWidth > root.clientWidth ? ["it scrolls sideways", ...widest] : [];
  const broken = [...document.querySelectorAll("figure svg")].filter(
    svg => svg.getBoundingClientRect().height < 50);
  const small = broken.map(svg => `a chart is too low: ${svg.getAttribute("aria-label")}`);
  root.setAttribute("data-width", root.clientWidth);
  root.setAttribute("data-errors", [...errors, ...wide, ...small].join("; ") || "none");
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed to draw the page")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_draws_it_without_an_error_and_it_fits_a_phone(
    tmp_path: Path, width: int
) -> None:
    long = "a name without a space " + "x" * 60
    made(tmp_path, {long: history(60), "b": diverged(), "c": history(30, lr=0.1)})
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    # A window is no narrower than 500 pixels, a frame is as narrow as a phone.
    frame = tmp_path / "frame.html"
    inside = tmp_path / "inside.html"
    inside.write_text(text.replace("</head>", DUMP + "</head>"), encoding="utf-8")
    frame.write_text(
        f'<iframe src="inside.html" style="width: {width}px; height: 800px; border: 0"></iframe>'
        "<script>addEventListener('load', () => { const inner = document.querySelector('iframe')"
        ".contentDocument.documentElement; document.body.dataset.errors = inner.dataset.errors;"
        " document.body.dataset.width = inner.dataset.width; });</script>",
        encoding="utf-8",
    )
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--allow-file-access-from-files", "--hide-scrollbars", "--enable-logging=stderr",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
         frame.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert f'data-width="{width}"' in done.stdout
    assert 'data-errors="none"' in done.stdout, done.stdout[-300:]
    assert "CONSOLE" not in done.stderr, done.stderr

"""No page says another number than the files of results, and every figure says where it is from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import newtriton as nt
from newtriton.bench.pages import __main__ as command
from newtriton.bench.pages.prose import unheld
from newtriton.bench.pages.results import FOLDER, Results
from newtriton.bench.paper.pages import blocks
from newtriton.bench.paper.papers import PAPERS

from ...sources import ROOT

FILES = Results(ROOT / FOLDER)
PAGES = {page.relative_to(ROOT).as_posix(): page for page in command.pages(ROOT)}

# Pages that are made as a whole of files of results, with what makes them.
MADE = {
    "docs/papers/": "bench paper --pages",
    "docs/benchmarks/peers.md": "bench peers",
}

# Figures that are no measurements: a part of the line by page, with what it is.
STATED: dict[str, dict[str, str]] = {
    "docs/command.md": {"or 10 minutes": "an example of an option"},
    "docs/data.md": {
        "would take more than 1 GiB as float32": "a bound in the code",
        "1.2 GB for Tiny ImageNet, unless they would take more than 4 GiB": "a size, and a bound",
        "Files are plain ones, of 1 GiB at most": "a bound in the code",
        "hold 64 MiB, or a hundred times its size": "a bound in the code",
    },
    "docs/distributed.md": {"with NVLink's 450 GB/s and": "what a model assumes"},
    "docs/mathematics.md": {
        "in chunks of samples of at most 64 MiB": "a bound in the code",
        '"like 5 × the mini-batch"': "a paper's words",
        "| Table 2 | 3096 features | 3072 |": "a paper's misprint",
        "| eq. 90 | σ = 0.1, CG_max = 250, 5 % |": "a paper's options",
        "| appendix B | γ and τ start at K-FAC's | 0.01 |": "a default",
    },
    "docs/reliability.md": {"stays below 6 MB plus 150 bytes": "a bound on what is kept"},
}


def made(name: str) -> bool:
    """Whether a page is made as a whole."""
    return any(name.startswith(start) for start in MADE)


@pytest.mark.parametrize("name", PAGES)
def test_no_page_says_another_number_than_the_files(name: str) -> None:
    assert not [*command.check(PAGES[name], FILES, ROOT)]


@pytest.mark.parametrize("name", PAPERS)
def test_the_pages_of_the_papers_are_made_of_their_rows(name: str) -> None:
    made_of_rows = "\n\n".join(blocks(PAPERS[name], ROOT / FOLDER / "papers")) + "\n"
    assert PAGES[f"docs/papers/{name}.md"].read_text(encoding="utf-8") == made_of_rows


@pytest.mark.parametrize("name", [n for n in PAGES if not made(n)])
def test_every_figure_says_where_it_comes_from(name: str) -> None:
    text = PAGES[name].read_text(encoding="utf-8")
    lines = text.split("\n")
    stated = STATED.get(name, {})
    found = [
        str(fault)
        for fault in unheld(text, FILES, ROOT)
        if not any(phrase in lines[fault.line - 1] for phrase in stated)
    ]
    assert not found, "give each a mark, see newtriton bench pages --help"


def test_what_is_stated_is_still_on_its_page() -> None:
    gone = [
        phrase
        for name, phrases in STATED.items()
        for phrase in phrases
        if phrase not in PAGES[name].read_text(encoding="utf-8")
    ]
    assert not gone


PAGE = """# A page

It takes 5 ms<!-- made .ms -->.

<!-- table rows(made, ms) -->
<!-- end -->
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with one page and one file."""
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "made.json").write_text('{"rows": [{"ms": 4.0}]}')
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").write_text(PAGE)
    (tmp_path / "README.md").write_text("Nothing.\n")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["newtriton bench pages", *arguments])
    command.main()


def test_a_page_is_compared_and_made_anew(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        run(monkeypatch, "--root", str(clone))
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("docs/page.md:6: '<!-- end -->' is '| ms |' in what its table")
    assert said[1] == "docs/page.md:3: 5 is 4 in made .ms"
    page = clone / "docs/page.md"
    page.write_text(PAGE.replace("5 ms", "4 ms"))
    run(monkeypatch, "--root", str(clone), "--write")
    assert "| ms |\n|---|\n| 4.0 |\n\n*`made.json`.*\n<!-- end -->\n" in page.read_text()
    assert "are those of the files" in capsys.readouterr().out
    run(monkeypatch, "--root", str(clone))


def test_a_page_that_cannot_be_made_says_why(clone: Path) -> None:
    page = clone / "docs/page.md"
    page.write_text("<!-- table rows(none, ms) -->\n<!-- end -->\n")
    assert "has no 'none': it has made" in "".join(
        command.check(page, Results(clone / FOLDER), clone)
    )


def test_tables_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "--tables")
    assert "battery-counts" in capsys.readouterr().out


def test_a_folder_that_is_no_clone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(nt.NewtritonError, match="give --root, a clone"):
        command.pages(tmp_path)

"""README and docs: their code runs, what does not says why, and links of README lead somewhere."""

from __future__ import annotations

import inspect
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from .pages import LANGUAGES, PAGES, REASONS, Block, Runner, blocks, commands, links
from .sources import ROOT
from .test_structure import PUBLIC

TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
BLOCKS = {name: blocks(text) for name, text in TEXTS.items()}
REFERENCE = "".join(text for name, text in TEXTS.items() if name.startswith("docs/reference/"))


@pytest.mark.usefixtures("own_nodes")
@pytest.mark.parametrize("name", [name for name, found in BLOCKS.items() if found])
def test_the_code_of_a_page_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    torch.manual_seed(0)
    runner = Runner(ROOT / name)
    try:
        for block in BLOCKS[name]:
            try:
                runner.run(block)
            except (Exception, SystemExit) as error:
                pytest.fail(f"{name}:{block.line}: {type(error).__name__}: {error}")
    finally:
        runner.names.clear()
        # The next page may have another file of the same name.
        for module, loaded in list(sys.modules.items()):
            if str(tmp_path) in str(getattr(loaded, "__file__", None)):
                del sys.modules[module]


def test_every_block_says_what_it_is() -> None:
    unknown = [
        f"{name}:{block.line}: {block.language or 'no language'}"
        for name, found in BLOCKS.items()
        for block in found
        if block.language not in LANGUAGES
    ]
    assert not unknown


def test_what_is_not_run_says_why() -> None:
    one = "|".join(reason.replace("PACKAGE", r"`[\w.-]+`") for reason in REASONS)
    known = re.compile(f"({one})(, or ({one}))*")
    reasons = {
        f"{name}:{block.line}": block.reason
        for name, found in BLOCKS.items()
        for block in found
        if block.reason is not None and not known.fullmatch(block.reason)
    }
    assert not reasons


def anchors(text: str) -> set[str]:
    """The names by which GitHub and the site find the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {re.sub(r"[ -]+", "-", title.strip()) for title in plain}


def test_links_of_the_readme_lead_somewhere() -> None:
    lost = []
    for link in links(TEXTS["README.md"]):
        path, _, anchor = link.partition("#")
        if ":" in path:
            continue
        known = not anchor or anchor in anchors(TEXTS.get(path or "README.md", ""))
        if not ((ROOT / path).exists() and known):
            lost.append(link)
    assert not lost


def test_every_public_name_is_in_the_reference() -> None:
    described = re.findall(r"^::: newtriton\.(\w+)$", REFERENCE, flags=re.MULTILINE)
    assert len(set(described)) == len(described)
    assert set(PUBLIC) == set(described) - {"compiler"}


ARGUED = [name for name, value in PUBLIC.items() if re.search("^ *Args:", value.__doc__, re.M)]


@pytest.mark.parametrize("name", ARGUED)
def test_arguments_that_are_described_exist(name: str) -> None:
    text = inspect.getdoc(PUBLIC[name]) or ""
    _, _, listed = text.partition("\nArgs:\n")
    listed = re.split(r"^\S", listed, flags=re.MULTILINE)[0]
    described = set(re.findall(r"^    \*{0,2}(\w+)", listed, flags=re.MULTILINE))
    assert described
    taken = inspect.signature(PUBLIC[name]).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        assert described <= set(taken)


PAGE = """
<!-- not run: needs a GPU -->
```sh
newtriton check --gpu
```

Text.

<!-- not run: needs a GPU -->

Text between.

- ```python title="a.py"
  x = 1
  ```

```pycon
>>> print(1)
1
```

```text
a
```

```sh
make docs
```
```text
b
```
"""


def test_blocks_are_read_with_what_stands_above_them() -> None:
    assert blocks(PAGE) == [
        Block("sh", "newtriton check --gpu\n", 3, None, "needs a GPU"),
        Block("python", "x = 1\n", 13, "a.py"),
        Block("pycon", ">>> print(1)\n1\n", 17),
        Block("text", "a\n", 22, is_output=True),
        Block("sh", "make docs\n", 26),
        Block("text", "b\n", 29, is_output=True),
    ]


def test_a_title_makes_a_file_and_names_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runner = Runner(tmp_path / "page.md")
    for block in (
        Block("python", "print('a')\n", 1, "folder/a.py"),
        Block("sh", "python folder/a.py  # says a\n", 2),
        Block("text", "a\n", 3, is_output=True),
        Block("python", "x = 2\n", 4),
        Block("pycon", ">>> y = x + 1\n>>> y\n3\n", 5),
        Block("python", "assert y == 3\n", 6),
        Block("console", "$ python folder/a.py\na\n$ make docs\n", 7),
    ):
        runner.run(block)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (Block("python", "1 / 0", 1), "division"),
        (Block("pycon", ">>> 1 + 1\n3\n", 1), "Expected"),
        (Block("sh", "newtriton trian", 1), "status 2"),
        (Block("sh", "newtriton train --output x --optimizer fitre --net nowhere", 1), "status 2"),
        (Block("sh", "make everything", 1), "no such target"),
        (Block("sh", "pip install torch", 1), "mark the block"),
        (Block("sh", "newtriton bench --quickly", 1, reason="takes minutes"), "quickly"),
        (Block("sh", "torchrun -m newtriton trian", 1, reason="needs several processes"), "trian"),
        (Block("python", "x = ", 1, reason="needs a GPU"), "invalid syntax"),
        (Block("toml", "a = ", 1), "Invalid"),
        (Block("text", "b", 1, is_output=True), "where it prints"),
        (Block("console", "$ make docs\nsite\n", 1), "where it prints"),
    ],
)
def test_a_block_that_does_not_hold_is_told(block: Block, message: str) -> None:
    with pytest.raises(Exception, match=message):
        Runner(Path("page.md")).run(block)


def test_commands_are_read_as_a_shell_reads_them() -> None:
    block = Block("sh", "A=1 newtriton train \\\n  --set a='b c'  # why\n# nothing\n", 1)
    assert list(commands(block)) == [(["A=1", "newtriton", "train", "--set", "a=b c"], None)]


def test_names_lead_to_the_reference_where_they_are_no_links_yet() -> None:
    linked = runpy.run_path(str(ROOT / "docs/site/hooks.py"))["on_page_content"]
    for code, name in (
        ("nt.FITRE", "FITRE"),
        ("nt.fit(…)", "fit"),
        ("newtriton.compile", "compile"),
        ("Model.loss(x, y)", "Model.loss"),
    ):
        html = f"<p><code>{code}</code></p>"
        assert f'identifier="newtriton.{name}" optional><code>{code}</code></autoref>' in linked(
            html
        )
    for kept in (
        '<a href="x"><code>nt.FITRE</code></a>',
        "<h2>On <code>nt.FITRE</code></h2>",
        "<pre><code>nt.FITRE</code></pre>",
        "<code>model</code>",
        "<code>x + 1</code>",
    ):
        assert linked(kept) == kept

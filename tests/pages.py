"""The code of README and docs: the blocks of a page, and how they are run, one after the other.

A page is a folder of its own and one namespace. By its language a block is

- `python`: run; with a `title="net.py"`, as a file that is written for the blocks below it,
- `pycon`: run by doctest,
- `sh`: commands, of which `newtriton`, `python FILE` and `make TARGET` are known,
- `console`: commands after `$`, each with what it prints,
- `toml`, `json`: parsed, and with a title written,
- `text`: what a person reads; right below a block that is run, what that prints.

In what is printed `...` stands for anything. `<!-- not run: REASON -->` above a block has it parsed
only.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from newtriton.command import main as cli

from .sources import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
LANGUAGES = ("python", "pycon", "sh", "console", "toml", "json", "text")
# Why a block may stay unrun. Commands are parsed and Python is compiled nevertheless.
REASONS = (
    "installs",  # from the network, into an environment
    "needs a GPU",
    "needs several processes",
    "needs data that are not here",
    "needs PACKAGE",  # one that is not installed for the tests
    "takes minutes",
    "part of a change to the package",
)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
TITLE = re.compile(r'\btitle="([^"]+)"')
NOT_RUN = re.compile(r"<!--\s*not run: (.+?)\s*-->")
RUN = ("python", "pycon", "sh", "console")
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
TARGETS = re.compile(r"^([a-z][\w-]*):", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: what stands after the fence, "" where nothing does.
        text: the code, without the fence's indentation.
        line: the line of the fence, from 1.
        title: the name of the file that the block is, or None.
        reason: why it is not run, or None.
        is_output: whether it is text right below a block that is run: what that prints.
    """

    language: str
    text: str
    line: int
    title: str | None = None
    reason: str | None = None
    is_output: bool = False


def blocks(text: str) -> list[Block]:
    """Returns the fenced blocks of a page in their order."""
    found: list[Block] = []
    above = None  # the token before, where that is a comment or a block that is run
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "fence":
            language, _, rest = token.info.partition(" ")
            title = TITLE.search(rest)
            reason = NOT_RUN.search(above.content) if above and above.type == "html_block" else None
            block = Block(
                language,
                token.content,
                (token.map or [0])[0] + 1,
                title[1] if title else None,
                reason[1] if reason else None,
                is_output=language == "text" and above is not None and above.type == "fence",
            )
            found.append(block)
            above = token if language in RUN and not (reason or title) else None
        else:
            above = token if token.type == "html_block" else None
    return found


def links(text: str) -> Iterator[str]:
    """Yields where the links and pictures of a page lead."""
    for token in MarkdownIt("commonmark").parse(text):
        for child in token.children or ():
            target = child.attrs.get("href") or child.attrs.get("src")
            if target:
                yield str(target)


def commands(block: Block) -> Iterator[tuple[list[str], str | None]]:
    """Yields the commands of a block of `sh` or `console`, each with what it prints if told."""
    text = block.text.replace("\\\n", " ")
    if block.language == "sh":
        for line in text.splitlines():
            if words := shlex.split(line, comments=True):
                yield words, None
        return
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, _, said = part.partition("\n")
        yield shlex.split(line, comments=True), said.strip() or None


def newtriton_arguments(words: list[str]) -> list[str] | None:
    """Returns what a command gives to newtriton, None if it is no call of it."""
    while words and ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    if words[:1] == ["newtriton"]:
        return words[1:]
    if words[:1] in (["python"], ["torchrun"]) and "newtriton" in words:
        place = words.index("newtriton")
        return words[place + 1 :] if words[place - 1] == "-m" else None
    return None


def parse(block: Block) -> None:
    """Parses a block that is not run; raises what its language raises."""
    if block.language == "python":
        ast.parse(block.text)
    elif block.language == "pycon":
        doctest.DocTestParser().get_examples(block.text)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "json":
        json.loads(block.text)
    elif block.language in ("sh", "console"):
        for words, _ in commands(block):
            arguments = newtriton_arguments(words)
            if arguments is not None:
                _parse_arguments(arguments)


def _parse_arguments(arguments: list[str]) -> None:
    """Gives arguments to the parser of the command line; raises if it does not take them."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            cli.parser(arguments).parse_args(arguments)
    except SystemExit as end:
        if end.code:
            raise AssertionError(f"newtriton {shlex.join(arguments)}: {said.getvalue()}") from None


@dataclass
class Runner:
    """Runs the blocks of one page in the present folder.

    Attributes:
        page: whose blocks they are.
        names: the namespace of its Python.
        said: what the last block printed.
    """

    page: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    said: str = ""

    def run(self, block: Block) -> None:
        """Runs a block, or parses it; raises where it does not do what the page says."""
        if block.is_output:
            self._compare(block.text, self.said)
        elif block.reason is not None or block.language in ("toml", "json"):
            parse(block)
        if block.title is not None:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.reason is None and block.language in RUN:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                getattr(self, f"_{block.language}")(block)
            self.said = printed.getvalue()

    def _python(self, block: Block) -> None:
        code = "\n" * block.line + block.text  # so that a traceback names the page's line
        exec(compile(code, str(self.page), "exec"), self.names)

    def _pycon(self, block: Block) -> None:
        test = doctest.DocTestParser().get_doctest(
            block.text, self.names, self.page.name, str(self.page), block.line
        )
        said: list[str] = []
        doctest.DocTestRunner(verbose=False, optionflags=OPTIONS).run(
            test, out=said.append, clear_globs=False
        )
        self.names |= test.globs
        assert not said, "".join(said)

    def _sh(self, block: Block) -> None:
        for words, expected in commands(block):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                self._command(words)
            print(printed.getvalue(), end="")
            if expected is not None:
                self._compare(expected, printed.getvalue())

    _console = _sh

    def _command(self, words: list[str]) -> None:
        arguments = newtriton_arguments(words)
        if arguments is not None:
            try:
                status = cli.main(arguments)
            except SystemExit as end:  # --help
                status = end.code
            assert not status, f"{shlex.join(words)}: status {status}"
        elif words[0] == "python" and Path(words[1]).is_file():
            runpy.run_path(words[1], run_name="__main__")
        elif words[0] == "make":
            targets = TARGETS.findall((ROOT / "Makefile").read_text(encoding="utf-8"))
            assert set(words[1:]) <= set(targets), f"{shlex.join(words)}: no such target"
        elif words[0] == "cd":
            raise AssertionError("a page is one folder: mark the block as not run")
        else:
            raise AssertionError(
                f"{shlex.join(words)}: mark the block `<!-- not run: REASON -->`; it may be "
                f"{', '.join(REASONS)}"
            )

    @staticmethod
    def _compare(expected: str, said: str) -> None:
        checker = doctest.OutputChecker()
        if not checker.check_output(expected, said, OPTIONS):
            raise AssertionError(f"the page says\n{expected}\nwhere it prints\n{said}")

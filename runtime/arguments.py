"""Parsers of command lines: what cannot be parsed is one line, with what was probably meant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, NoReturn

from ..compiler.graph.errors import NewtritonError, meant, one_line
from ..compiler.graph.options import check_option

CANNOT = 2  # the exit status


class Parser(argparse.ArgumentParser):
    """A parser whose errors take one line; its sub-commands get the same class.

    Examples:
        >>> from newtriton.runtime.arguments import Parser
        >>> parser = Parser()
        >>> _ = parser.add_argument("--epochs", type=int)
        >>> parser.parse_args(["--epochs=3"])
        Namespace(epochs=3)
        >>> try:
        ...     parser.parse_args(["--epocs=3"])
        ... except SystemExit as ended:  # after a line on stderr
        ...     print(ended.code)
        2
    """

    def parse_known_args(  # type: ignore[override] - of each overload
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Refuses options that there are not, which others may be missing for."""
        given = sys.argv[1:] if args is None else list(args)
        for option in self._options_in(given):
            if not self._knows(option):
                self.unknown(option)
        return super().parse_known_args(given, namespace)

    def unknown(self, option: str) -> None:
        """Ends the program: there is no such option."""
        near = meant(option, self._option_string_actions) or ": --help lists them"
        self.error(f"there is no option {option}{near}")

    def error(self, message: str) -> NoReturn:
        """Ends the program with status 2."""
        self.exit(CANNOT, f"error: {one_line(message)}\n")

    def _options_in(self, given: Sequence[str]) -> Iterator[str]:
        """Yields the options that are this parser's: not those behind a sub-command, or a `--`."""
        rest = (argparse.PARSER, argparse.REMAINDER)
        if any(action.nargs in rest for action in self._actions):
            given = [*takewhile(lambda text: text.startswith("-"), given)]
        for text in takewhile(lambda text: text != "--", given):
            if text.startswith("--") and " " not in (option := text.partition("=")[0]):
                yield option

    def _knows(self, option: str) -> bool:
        """Whether there is such an option, or one that begins so where that is enough."""
        known = self._option_string_actions
        short = self.allow_abbrev and any(name.startswith(option) for name in known)
        return option in known or short

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuses what is none of the choices of an option."""
        if action.choices is None or value in action.choices:
            return
        what = "/".join(action.option_strings) or action.metavar or action.dest
        try:
            check_option(str(what), value, tuple(map(str, action.choices)))
        except NewtritonError as error:
            raise argparse.ArgumentError(None, str(error)) from error

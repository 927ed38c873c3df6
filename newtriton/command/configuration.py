"""Options from a TOML file: its keys are the long names of a command's options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..compiler.graph.errors import NewtritonError, meant, quoted
from ..runtime.arguments import Parser
from ..runtime.disk import read

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found]

LARGEST = 1 << 14  # bytes of a file of options: for a key of 60,000 tomllib takes 20 seconds
KEYWORDS = "set"  # the table of a file, and the option, whose values are name=value


class Twin(Parser):
    """A command's options alone, none of which must be given; errors are raised."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)

    def unknown(self, option: str) -> None:
        """Passes over what is no option here: it may be one of the whole command."""

    def error(self, message: str) -> NoReturn:
        """Raises the message."""
        raise NewtritonError(message)


def expanded(
    arguments: Sequence[str], add_options: Callable[[argparse.ArgumentParser], None]
) -> list[str]:
    """Returns arguments with those of their --config in front, which they override.

    Args:
        arguments: the arguments of a command.
        add_options: adds the command's options to a parser, --config among them.

    Raises:
        NewtritonError: the file cannot be read, or has what is no option; the file is named.
    """
    first = Twin()
    first.add_argument("--config", type=Path)
    path = first.parse_known_args(arguments)[0].config
    if path is None:
        return [*arguments]
    try:
        return [*_arguments(path, add_options), *arguments]
    except RecursionError as error:
        raise NewtritonError(f"{path} is no file of options: it is nested too deeply") from error


def _arguments(path: Path, add_options: Callable[[argparse.ArgumentParser], None]) -> Iterator[str]:
    """Yields the arguments that a file stands for."""
    try:
        values = tomllib.loads(read(path, LARGEST).decode())
    except NewtritonError:
        raise
    except ValueError as error:
        raise NewtritonError(f"{path} is no TOML file: {error}") from error
    twin = Twin()
    add_options(twin)
    for key, value in values.items():
        given = _given(path, key, value)
        try:
            off = value is False and not twin.parse_known_args([f"--no-{key}"])[1]
            given = [f"--no-{key}"] if off else given
            taken, unknown = twin.parse_known_args(given or [f"--{key}"])
        except NewtritonError as error:
            raise NewtritonError(f"{path}: {error}") from error
        if unknown or key == "config":
            names = [name.replace("_", "-") for name in vars(taken)]
            names = [name for name in names if name not in ("config", "run")]
            listed = f"{', '.join(names)}{meant(key, names)}"
            raise NewtritonError(f"{path} has {quoted(key)}, which is no option: {listed}")
        yield from given


def _given(path: Path, key: str, value: Any) -> list[str]:
    """Returns an entry as arguments; an option that is off gives none."""
    if key == KEYWORDS and isinstance(value, dict):
        return [f"--{KEYWORDS}={name}={_text(path, name, v)}" for name, v in value.items()]
    if key == KEYWORDS and isinstance(value, list):
        return [f"--{KEYWORDS}={_text(path, key, setting)}" for setting in value]
    if isinstance(value, bool):
        return [f"--{key}"] if value else []
    return [f"--{key}={_text(path, key, value)}"]


def _text(path: Path, key: str, value: Any) -> str:
    """Returns a value as the command line has it."""
    if isinstance(value, list):
        return ",".join(_text(path, key, part) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    raise NewtritonError(f"{path}: {key} is {quoted(value)}: give a number, text or true")

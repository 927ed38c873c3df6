"""What a user names on the command line as `module:attribute`, in a module or a file."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ..compiler.graph.errors import NewtritonError, meant, quoted

T = TypeVar("T")


def named(text: str, table: Mapping[str, T], option: str) -> T | Any:
    """Returns the table's entry of a name, or what `module:attribute` stands for.

    The module is `package.module`, found from the present folder as well, or `path/to/file.py`.

    Raises:
        NewtritonError: there is no such name, or it cannot be imported.
    """
    if text in table:
        return table[text]
    module, colon, attribute = text.rpartition(":")
    if not (colon and module and attribute):
        raise NewtritonError(
            f"{option} is {quoted(text)}: one of {', '.join(table)}, or module:attribute, as in "
            f"package.module:name or path/to/file.py:name{meant(text, table)}"
        )
    found: Any = _imported(module, option)
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = meant(part, dir(found))
            raise NewtritonError(f"{option}: {module} has no {quoted(attribute)}{near}")
        found = getattr(found, part)
    return found


def needed(make: Callable[..., Any], given: Collection[str]) -> list[str]:
    """Returns the parameters that a call of a function or class must give, beyond those given."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        name
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in several
        and name not in given
    ]


def _imported(name: str, option: str) -> ModuleType:
    """Returns the module of a file or a package, from which its neighbours can be imported."""
    is_file = name.endswith(".py")
    if is_file and not Path(name).is_file():
        raise NewtritonError(f"{option}: there is no file {name}")
    folder = str(Path(name).resolve().parent if is_file else Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    with users_code(f"{option}: importing {name}"):
        return _from_file(Path(name)) if is_file else importlib.import_module(name)


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Says in one line what a user's code does wrong, and where."""
    try:
        yield
    except NewtritonError:
        raise
    except (Exception, SystemExit) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise NewtritonError(
            f"{what} failed with {type(error).__name__}: {error} ({frame.filename}, line "
            f"{frame.lineno})"
        ) from error


def _from_file(path: Path) -> ModuleType:
    """Runs a file as a module of its stem's name, once however often it is named."""
    path = path.resolve()
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    name = path.stem if known is None else f"newtriton_user_{path.stem}"
    spec = spec_from_file_location(name, path)
    assert spec is not None and isinstance(spec.loader, SourceFileLoader)  # it is a Python file
    module = module_from_spec(spec)
    sys.modules[name] = module  # as an import does: dataclasses look there
    try:
        # Compiled anew: of a file that has changed within a second, kept bytecode may be the old.
        code = spec.loader.source_to_code(path.read_bytes(), str(path))
        exec(code, vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module

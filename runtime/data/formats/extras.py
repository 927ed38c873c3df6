"""Packages that only some data sets need."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ....compiler.graph.errors import NewtritonError


def need(module: str, package: str, what: str) -> ModuleType:
    """Returns a module that is imported when it is first needed.

    Args:
        module: the module's name.
        package: what the package is called.
        what: what needs it.

    Raises:
        NewtritonError: the package is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise NewtritonError(
            f"{what} needs {package}: pip install 'newtriton[data]' ({error})"
        ) from error

"""What follows a run, and what it needs of a library that may not be there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from ...compiler.graph.errors import NewtritonError, one_line
from .events import Event, Place, place_of


class Tracker:
    """A base for what follows a run event by event, as one of `fit`'s callbacks.

    Steps and epochs come to `record`, each once: what a run had made before the tracker joined it
    comes first, from the run's history. An error in `begin` comes through before training begins;
    one that comes later is a warning, and training goes on without the tracker.

    Attributes:
        run: what the run is called that it follows; None before one has begun.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> class Printer(nt.Tracker):
        ...     def record(self, event):
        ...         if event["event"] == "epoch":
        ...             print(event["number"], event["steps"])
        >>> model = nt.compile(nt.Linear(2), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> data = [(torch.eye(3), torch.tensor([0, 1, 1]))]
        >>> history = nt.fit(
        ...     model, nt.FITRE(model), data, epochs=2, progress=False, callbacks=[Printer()]
        ... )
        1 1
        2 2
    """

    run: str | None = None

    def begin(self, event: Event) -> Place:
        """Takes in how a run begins or goes on: "begun" or "resumed".

        Returns:
            up to where it has the run's steps and epochs already; it gets those that follow.
        """
        known, self.run = self.run == event["run"], event["run"]
        return place_of(event) if known else Place()

    def record(self, event: Event) -> None:
        """Takes in a "step" or an "epoch"."""

    def end(self, event: Event) -> None:
        """Takes in how it ends: "ended", "interrupted" or "failed"."""


def library(name: str, package: str, owner: str) -> ModuleType:
    """Returns a module of a library that newtriton does not depend on.

    Args:
        name: the module.
        package: what pip installs it by.
        owner: who needs it.

    Raises:
        NewtritonError: it is not installed, or cannot be imported.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise NewtritonError(f"{owner} needs {package}: pip install {package}") from error


@contextmanager
def began(service: str) -> Iterator[None]:
    """Raises what a service raises where a run cannot begin there as one clear error.

    Raises:
        NewtritonError: names the service, and why.
    """
    try:
        yield
    except NewtritonError:
        raise
    except Exception as error:  # each service has errors of its own
        said = one_line(str(error)) or type(error).__name__
        raise NewtritonError(f"no run can begin with {service}: {said}") from error


def plain(options: object) -> object:
    """Returns options as other libraries take them: what JSON does not have as text."""
    if isinstance(options, dict):
        return {str(name): plain(value) for name, value in options.items()}
    if isinstance(options, list | tuple):
        return [plain(value) for value in options]
    return options if isinstance(options, bool | int | float | str | None) else str(options)

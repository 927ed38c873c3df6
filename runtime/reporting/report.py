"""A report of runs, as a file."""

from __future__ import annotations

from pathlib import Path

from ...compiler.graph.calls import checked
from ..disk import unwritable
from ..paths import path_of
from ..training import files
from .page import page
from .reading import Runs, runs_of


@checked
def report(runs: Runs, path: str | Path = "report.html") -> None:
    """Writes a report of training runs: one page of HTML that loads nothing from anywhere.

    It has the results, loss and accuracy by epoch, update and second, what steps recorded (ρ,
    radius, damping, noise gain, …), the spectrum where the folder of a run has one
    (`spectrum.json`, which `Density.save` writes), what went wrong, options and versions. What
    nothing has recorded is left out. Several runs are compared in the same charts.

    Args:
        runs: the folders that `fit(checkpoint=…)` or `newtriton train` keep runs in, histories, or
            files of `History.save`: one, several, or several by the names that they are to have.
        path: the file, which takes the place of one that is there.

    Raises:
        NewtritonError: there is no run, one is damaged or has no records, or the file cannot be
            written.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> model = nt.compile(nt.Linear(2), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> data = [(torch.eye(3), torch.tensor([0, 1, 1]))]
        >>> history = nt.fit(model, nt.FITRE(model), data, epochs=3, progress=False)
        >>> nt.report({"three steps of FITRE": history}, "report.html")
        >>> "three steps of FITRE" in open("report.html", encoding="utf-8").read()
        True
    """
    file = path_of("path", path, "file")
    text = page(runs_of(runs))
    try:
        files.make_folder(file.parent)
        files.replace(file, text.encode("utf-8", "replace"))
    except OSError as error:
        raise unwritable(file, error) from error

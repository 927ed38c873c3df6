"""Pictures of training runs, made without pyplot: no window opens and no backend is chosen."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from ...compiler.graph.calls import checked
from ...compiler.graph.errors import NewtritonError, one_line, quoted
from ...compiler.graph.options import check_mapping, check_names, check_option
from ..charting.saving import save
from ..paths import path_of
from .epoch import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Measure = Literal["epochs", "seconds"]


class Recorded(Protocol):
    """What is drawn of a training run, such as a `History`."""

    @property
    def epochs(self) -> Sequence[Epoch]:
        """The records of its epochs."""
        ...


@checked
def plot_histories(
    histories: Mapping[str, Recorded | Sequence[Recorded]],
    path: str | Path | None = None,
    against: Measure | Sequence[Measure] = "epochs",
) -> "Figure":
    """Draws the losses and validation accuracies of several training runs into one picture.

    Losses are on a logarithmic axis, accuracies in percent; training is dashed, validation solid.
    Where no run has accuracies, there are losses alone.

    Args:
        histories: the histories, by the name that the legend gives them; several under one name
            (seeds, say) share a colour.
        path: where to save the picture (the ending chooses the format); None saves nothing.
        against: "epochs", "seconds", or both in a sequence: one row of the picture each.

    Returns:
        Matplotlib's figure, which belongs to no window.

    Raises:
        NewtritonError: `against` is unknown, there is no completed epoch, or the file cannot be
            written.

    Examples:
        >>> import newtriton as nt
        >>> epoch = {"number": 1, "steps": 10, "seconds": 0.5, "loss": 0.3}
        >>> epoch |= {"validation_loss": 0.4, "validation_accuracy": 0.8}
        >>> history = nt.History([Epoch(**epoch)])
        >>> figure = nt.plot_histories({"FITRE": history, "SGD": [history, history]})
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['loss', 'validation accuracy']
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 (slow to import)
    from matplotlib.ticker import MaxNLocator, PercentFormatter  # noqa: PLC0415

    file = None if path is None else path_of("path", path, "file")
    measures = check_names("against", [against] if isinstance(against, str) else against)
    for measure in measures or [""]:
        check_option("against", measure, ("epochs", "seconds"))
    groups = {
        name: list(runs) if isinstance(runs, Sequence) else [runs]
        for name, runs in check_mapping("histories", histories).items()
    }
    for history in (history for runs in groups.values() for history in runs):
        if not isinstance(getattr(history, "epochs", None), Sequence):
            raise NewtritonError(f"a history is {quoted(history)}: give an nt.History")
    if not any(history.epochs for runs in groups.values() for history in runs):
        raise NewtritonError("there is no completed epoch to draw")

    epochs = [epoch for runs in groups.values() for history in runs for epoch in history.epochs]
    columns = 1 if all(epoch.validation_accuracy is None for epoch in epochs) else 2
    figure = Figure(figsize=(5 * columns, 4 * len(measures)), layout="constrained")
    rows = figure.subplots(len(measures), columns, squeeze=False)
    for row, measure in zip(rows, measures, strict=True):
        for index, (name, runs) in enumerate(groups.items()):
            for history in runs:
                label = one_line(name).replace("$", r"\$")  # no formula
                _draw(row, history, measure, name=label, color=f"C{index}")
        for axes, label in zip(row, ("loss", "validation accuracy"), strict=False):
            axes.set(xlabel=measure, ylabel=label)
            axes.grid(alpha=0.3)
            if measure == "epochs":
                axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            else:
                axes.set_xlim(left=0.0)
            handles, names = axes.get_legend_handles_labels()
            if once := {name: handle for name, handle in zip(names, handles, strict=True) if name}:
                axes.legend(once.values(), once.keys())
        row[0].set_yscale("log", nonpositive="mask")
        for accuracies in row[1:]:
            accuracies.yaxis.set_major_formatter(PercentFormatter(1.0))
    if file is not None:
        save(figure, file, dpi=100.0)
    return figure


def _draw(row: Sequence["Axes"], history: Recorded, measure: str, *, name: str, color: str) -> None:
    """Adds one history's curves, training dashed and validation solid."""
    epochs = history.epochs
    at = [epoch.number if measure == "epochs" else epoch.seconds for epoch in epochs]

    def line(axes: "Axes", values: Iterable[float | None], label: str, style: str = "-") -> None:
        """Draws one curve through the values there are."""
        points = [(t, value) for t, value in zip(at, values, strict=True) if value is not None]
        if points:
            axes.plot(*zip(*points, strict=True), style, marker=".", color=color, label=label)

    line(row[0], (epoch.loss for epoch in epochs), f"{name} training".strip(), "--")
    line(row[0], (epoch.validation_loss for epoch in epochs), f"{name} validation".strip())
    for accuracies in row[1:]:
        line(accuracies, (epoch.validation_accuracy for epoch in epochs), name)

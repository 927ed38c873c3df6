"""What a training run recorded, as numbers, as a file and as a picture."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...compiler.graph.calls import Checked
from ...compiler.graph.errors import NewtritonError
from ..disk import TEXT, parsed, read, unwritable
from ..paths import path_of
from ..summary import summary
from . import files
from .epoch import Epoch
from .plots import Measure, plot_histories

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COUNTED = ("step", "epoch", "seconds", "loss")  # of a step's record
FLAGS = ("interrupted", "stopped")


MOST, RECENT = 10_000, 5_000  # records of steps, and those of the last steps among them


@dataclass(repr=False)
class History(Checked):
    """The records of a training run.

    Attributes:
        epochs: one `Epoch` per completed epoch: number, steps, seconds, loss, validation_loss and
            validation_accuracy.
        steps: one dictionary per optimizer step: `step` and `epoch` (from 1), `seconds` of training
            so far, and the fields of the optimizer's report. Of more than 10,000 steps the last
            5,000 are kept at least, and of the others every second, fourth, eighth, ….
        interrupted: whether a KeyboardInterrupt ended the run.
        stopped: whether a callback ended it.

    Examples:
        >>> import newtriton as nt
        >>> train, test = nt.digits()
        >>> net = nt.Sequential(nt.Flatten(), nt.Linear(10))
        >>> model = nt.compile(net, input_shape=(1, 8, 8), loss=nt.CrossEntropyLoss())
        >>> batches = nt.Batches(*train, batch_size=500)
        >>> history = nt.fit(model, nt.FITRE(model), batches, [test], epochs=2, progress=False)
        >>> [(epoch.number, epoch.steps) for epoch in history.epochs]
        [(1, 3), (2, 6)]
        >>> history.epochs_to(0.999) is None
        True
    """

    epochs: list[Epoch] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False
    stopped: bool = False

    def __str__(self) -> str:
        """Returns how far the run has come and a line for each epoch, a screen at most."""
        names = [field.name for field in fields(Epoch)]
        rows = [[_shown(getattr(epoch, name)) for name in names] for epoch in self.epochs]
        refused, recorded = sum(not step.get("accepted", True) for step in self.steps), ""
        if self.count > len(self.steps):
            recorded = f" of the {len(self.steps)} recorded"
        last = {n: v for n, v in (self.steps[-1] if self.steps else {}).items() if v is not None}
        return summary(
            f"History of {len(self.epochs)} epochs, {self.count} steps, {self.seconds:.3g} s"
            + (", interrupted" if self.interrupted else "")
            + (", ended by a callback" if self.stopped else ""),
            {
                "refused": f"{refused} steps{recorded}",
                "last step": ", ".join(f"{n} {_shown(v)}" for n, v in last.items()) or None,
            },
            [[name.replace("_", " ") for name in names], *rows] if rows else (),
        )

    __repr__ = __str__

    @property
    def count(self) -> int:
        """How many steps have been made."""
        return self.steps[-1]["step"] if self.steps else 0

    @property
    def stride(self) -> int:
        """Of how many early steps one is recorded: 1, 2, 4, …"""
        early = self.count - RECENT
        return 1 if self.count <= MOST else 1 << math.ceil(math.log2(2 * early / RECENT))

    def record(self, step: dict[str, Any]) -> None:
        """Appends the record of a step; early ones are thinned out where there are too many."""
        self.steps.append(step)
        if len(self.steps) > MOST:
            last, stride = self.count - RECENT, self.stride
            self.steps[:] = [s for s in self.steps if s["step"] > last or s["step"] % stride == 0]

    @property
    def seconds(self) -> float:
        """The time spent training, in seconds."""
        return self.steps[-1]["seconds"] if self.steps else 0.0

    def refused(self, epoch: int) -> int:
        """Returns how many recorded steps of an epoch were not accepted."""
        of_epoch = [step for step in self.steps if step.get("epoch") == epoch]
        return sum(not step.get("accepted", True) for step in of_epoch)

    def epochs_to(self, accuracy: float) -> int | None:
        """Returns the first epoch whose validation accuracy is at least this, or None."""
        for epoch in self.epochs:
            if epoch.validation_accuracy is not None and epoch.validation_accuracy >= accuracy:
                return epoch.number
        return None

    def text(self) -> str:
        """Returns the records as JSON, with Python's NaN and Infinity where a run diverged.

        Each has a line of its own.
        """
        lists = {"epochs": [*map(vars, self.epochs)], "steps": self.steps}
        lines = {name: ",\n".join(map(json.dumps, rows)) for name, rows in lists.items()}
        parts = [f'"{name}": [\n{text}\n]' for name, text in lines.items()]
        parts += [f'"{name}": {json.dumps(getattr(self, name))}' for name in FLAGS]
        return "{" + ",\n".join(parts) + "}\n"

    def save(self, path: str | Path) -> None:
        """Writes `text` into a file, at once in the place of what was there.

        Raises:
            NewtritonError: it cannot be written.
        """
        path = path_of("path", path, "file")
        try:
            files.make_folder(path.parent)
            files.replace(path, self.text().encode())
        except OSError as error:
            raise unwritable(path, error) from error

    @classmethod
    def parsed(cls, text: str) -> "History":
        """Returns what `text` was made from.

        Raises:
            NewtritonError: it is something else.
        """
        try:
            record = parsed(text)
            found = cls(**record | {"epochs": [Epoch(**epoch) for epoch in record["epochs"]]})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise NewtritonError("it is not a history that History.save wrote") from error
        if not found._is_whole():
            raise NewtritonError("it is not a history that History.save wrote: a value is none")
        return found

    @classmethod
    def load(cls, path: str | Path) -> "History":
        """Reads what `save` wrote.

        Raises:
            NewtritonError: the file is another one.
        """
        data = read(path_of("path", path, "file"), TEXT)
        try:
            return cls.parsed(data.decode())
        except ValueError as error:
            raise NewtritonError(f"{path} is not a history that History.save wrote") from error

    def _is_whole(self) -> bool:
        """Whether epochs and steps hold the numbers that are counted and drawn."""
        optional = ("validation_loss", "validation_accuracy")
        epochs = [
            _is_number(value) or (value is None and name in optional)
            for epoch in self.epochs
            for name, value in asdict(epoch).items()
        ]
        flags = [isinstance(getattr(self, name), bool) for name in FLAGS]
        if not (all(epochs) and all(flags) and isinstance(self.steps, list)):
            return False
        return all(
            isinstance(step, dict) and all(_is_number(step.get(name)) for name in COUNTED)
            for step in self.steps
        )

    def plot(
        self, path: str | Path | None = None, against: Measure | Sequence[Measure] = "epochs"
    ) -> "Figure":
        """Draws losses and accuracies of this history alone; see `plot_histories`."""
        return plot_histories({"": self}, path, against)


def _is_number(value: object) -> bool:
    """Whether a value is a number of JSON."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """Returns a value of a record in a few characters."""
    if value is None:
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else str(value)

"""What a training run recorded, as numbers, as a file and as a picture."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...compiler.graph.errors import NewtritonError
from .plots import Measure, plot_histories

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data.

    Attributes:
        number: counted from 1.
        steps: optimizer steps so far, from the beginning of the run.
        seconds: time spent training so far, validation not included.
        loss: mean over the epoch's samples of the loss that each step met.
        validation_loss: mean over the validation samples, after the epoch.
        validation_accuracy: share of right classes; None where the labels are no classes.
    """

    number: int
    steps: int
    seconds: float
    loss: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None


@dataclass
class History:
    """The records of a run.

    Attributes:
        epochs: one record per completed epoch.
        steps: one per optimizer step: `step` and `epoch` (from 1), `seconds` as in `Epoch`, and
            the fields of the optimizer's report.
        interrupted: whether a KeyboardInterrupt ended the run.
    """

    epochs: list[Epoch] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False

    @property
    def seconds(self) -> float:
        """Time spent training."""
        return self.steps[-1]["seconds"] if self.steps else 0.0

    def epochs_to(self, accuracy: float) -> int | None:
        """The first epoch after which the validation accuracy was at least this; None if never."""
        for epoch in self.epochs:
            if epoch.validation_accuracy is not None and epoch.validation_accuracy >= accuracy:
                return epoch.number
        return None

    def save(self, path: str | Path) -> None:
        """Writes JSON (with Python's NaN and Infinity where a run diverged)."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "History":
        """Reads what `save` wrote."""
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(**record | {"epochs": [Epoch(**epoch) for epoch in record["epochs"]]})
        except (ValueError, TypeError, KeyError) as error:
            raise NewtritonError(f"{path} is not a history that History.save wrote") from error

    def plot(
        self, path: str | Path | None = None, against: Measure | Sequence[Measure] = "epochs"
    ) -> "Figure":
        """Draws losses and accuracy; see `plot_histories`."""
        return plot_histories({"": self}, path, against)

"""A callback that ends a run where its epochs have not become better for some time."""

from __future__ import annotations

from dataclasses import dataclass

from ...compiler.graph.calls import Checked
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_count, check_number, check_option
from .history import History

SIGNS = {"validation_loss": -1, "validation_accuracy": 1, "loss": -1}  # 1 where more is better


@dataclass
class EarlyStopping(Checked):
    """Ends a run as soon as its last epochs, `patience` of them, are no better than the best.

    It is one of `fit`'s callbacks. An epoch is better where it beats the best one so far by more
    than `min_delta`: losses are to fall, accuracies to rise. All that is judged are the epochs of
    the history, so that a run that is resumed is ended after the same epoch as one that was not.
    The weights stay those of the last epoch; with `checkpoint`, `fit` keeps those of the lowest
    validation loss in `best/weights.safetensors`.

    Args:
        patience: after how many epochs in a row that are no better the run ends.
        monitor: what is compared, "validation_loss", "validation_accuracy" or "loss".
        min_delta: by how much an epoch has to be better, ≥ 0.

    Raises:
        NewtritonError: an argument is none that there can be; or, after the first epoch, `fit` has
            no validation data by which to judge it.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> model = nt.compile(nt.Linear(2), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> data = [(torch.eye(3), torch.tensor([0, 1, 1]))]
        >>> stops = nt.EarlyStopping(2, "validation_accuracy")
        >>> history = nt.fit(
        ...     model, nt.KFAC(model), data, data, epochs=100, progress=False, callbacks=[stops]
        ... )
        >>> history.stopped, len(history.epochs) < 100
        (True, True)
    """

    patience: int
    monitor: str = "validation_loss"
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        self.patience = check_count("patience", self.patience)
        check_option("monitor", self.monitor, tuple(SIGNS))
        self.min_delta = check_number("min_delta", self.min_delta, 0.0)

    def __call__(self, history: History) -> bool:
        """Returns whether the run is to end."""
        best, waited = -float("inf"), 0
        for epoch in history.epochs:
            value = getattr(epoch, self.monitor)
            if value is None:
                raise NewtritonError(
                    f"EarlyStopping looks at {self.monitor}, which epoch {epoch.number} has none "
                    "of: give fit validation data with classes for labels, or another monitor"
                )
            better = SIGNS[self.monitor] * value > best + self.min_delta  # which NaN never is
            best, waited = (SIGNS[self.monitor] * value, 0) if better else (best, waited + 1)
        return waited >= self.patience

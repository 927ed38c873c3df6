"""The record of an epoch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data.

    Attributes:
        number: the number of the epoch, counted from 1.
        steps: the number of optimizer steps so far, from the beginning of the run.
        seconds: the time spent training so far, validation not included.
        loss: the mean over the epoch's samples of the loss that each step met.
        validation_loss: the mean over the validation samples, after the epoch.
        validation_accuracy: the share of right classes; None where the labels are no classes.
    """

    number: int
    steps: int
    seconds: float
    loss: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None

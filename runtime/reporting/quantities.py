"""What can be drawn of a run: quantities, the fields that record them, and how they are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .reading import Run

AXES = ("epochs", "steps", "seconds")
AXIS = {"epochs": "epoch", "steps": "update", "seconds": "second"}  # one of them
NO_QUANTITY = {"step", "epoch", "seconds", "accepted", "new_loss", "loss"}


@dataclass(frozen=True)
class Quantity:
    """What is drawn in one chart.

    Attributes:
        name: what it is called on the command line.
        title: what it is called above a chart.
        step: the field of a step's record; None where steps do not record it.
        epoch: the field of an epoch that is drawn as a line with points; None for none.
        mean: the field of an epoch that is drawn against epochs in the place of the steps'.
        log: whether its axis is logarithmic where its values are positive and spread.
        percent: whether it is a share.
        window: the values that are shown, where there are others; None for all.
        marks: values at which there is a line.
        counts: whether it counts what seldom happens: with nothing but zeros it is not drawn.
    """

    name: str
    title: str
    step: str | None = None
    epoch: str | None = None
    mean: str | None = None
    log: bool = False
    percent: bool = False
    window: tuple[float, float] | None = None
    marks: tuple[float, ...] = ()
    counts: bool = False


LOSS = Quantity("loss", "Loss", "loss", "validation_loss", "loss", log=True)
ACCURACY = Quantity("accuracy", "Validation accuracy", epoch="validation_accuracy", percent=True)
OF_STEPS = (
    Quantity("rho", "ρ, actual / predicted decrease", "rho", window=(-1.0, 3.0), marks=(0.0, 1.0)),
    Quantity("radius", "Radius of the trust region", "radius", log=True),
    Quantity("damping", "Damping γ", "damping", log=True),
    Quantity("gain", "Gain φ that noise leaves", "gain", log=True),
    Quantity("lr", "Learning rate", "lr", log=True),
    Quantity("step-norm", "Length of the step ‖s‖", "step_norm", log=True),
    Quantity("predicted", "Predicted decrease", "predicted", log=True),
    Quantity("cg-iterations", "Iterations of conjugate gradients", "cg_iterations", counts=True),
    Quantity("halvings", "Halvings of the line search", "halvings", counts=True),
    Quantity("damping-retries", "Factors that took more damping", "damping_retries", counts=True),
    Quantity("rejected", "Steps in a row that could not be made", "rejected", counts=True),
)
KNOWN = {quantity.name: quantity for quantity in (LOSS, ACCURACY, *OF_STEPS)}


def recorded(runs: Iterable[Run]) -> dict[str, Quantity]:
    """Returns the quantities that runs have recorded, by name: the known ones first."""
    runs = [*runs]
    fields = {name: None for run in runs for step in run.history.steps for name in numbers(step)}
    taken = {quantity.step for quantity in OF_STEPS} | NO_QUANTITY
    more = {name: Quantity(name, name.replace("_", " "), name) for name in fields.keys() - taken}
    candidates = {**KNOWN, **dict(sorted(more.items()))}
    return {n: q for n, q in candidates.items() if any(_has(run, q) for run in runs)}


def numbers(step: dict[str, object]) -> Iterator[str]:
    """Yields the fields of a step's record that are numbers."""
    for name, value in step.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name


def _has(run: Run, quantity: Quantity) -> bool:
    """Whether a run has recorded a quantity."""
    epochs = (getattr(epoch, quantity.epoch or "", None) for epoch in run.history.epochs)
    if quantity.epoch is not None and any(value is not None for value in epochs):
        return True
    if quantity.step is None:
        return False
    values = [step.get(quantity.step) for step in run.history.steps]
    values = [value for value in values if isinstance(value, (int, float))]
    return any(value != 0 for value in values) if quantity.counts else bool(values)

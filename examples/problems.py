"""The two problems of the demonstration: digits by a convolutional network, CURVES encoded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

import newtriton as nt

Method: TypeAlias = Callable[[nt.Model], nt.SecondOrder | nt.TorchOptimizer]
Split: TypeAlias = tuple[nt.Samples, nt.Samples]

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Problem:
    """What is trained, how, and what counts.

    Attributes:
        title: what the table and the picture call it.
        net: makes the network.
        loss: makes its loss.
        data: the samples for training and those for validation.
        batch_size: the samples in a batch.
        epochs: the epochs of presets.
        first_order_epochs: the epochs of first-order methods.
        accuracy: the validation accuracy to be reached; None stands for the loss over the last
            epoch of the best first-order method, from the same seed.
    """

    title: str
    net: Callable[[], nt.Sequential]
    loss: Callable[[], nt.Loss]
    data: Split
    batch_size: int
    epochs: int
    first_order_epochs: int
    accuracy: float | None = None

    def run(self, method: Method, data: Split, epochs: int) -> list[nt.History]:
        """Trains once per seed; all methods see the same first weights and the same batches."""
        train, validation = data
        histories = []
        for seed in SEEDS:
            model = nt.compile(self.net(), tuple(train.x.shape[1:]), self.loss(), seed=seed)
            batches = nt.Batches(*train, batch_size=self.batch_size, seed=seed)
            history = nt.fit(model, method(model), batches, [validation], epochs, progress=False)
            histories.append(history)
        return histories

    def epochs_to_goal(self, history: nt.History, baseline: nt.History) -> int | None:
        """Returns the first epoch that meets the goal, or None."""
        if self.accuracy is not None:
            return history.epochs_to(self.accuracy)
        goal = baseline.epochs[-1].loss
        return next((epoch.number for epoch in history.epochs if epoch.loss <= goal), None)


def digits() -> Problem:
    """Returns a small convolutional network for scikit-learn's handwritten digits."""
    return Problem(
        "Digits, convolutional network",
        nt.models.small_cnn,
        nt.CrossEntropyLoss,
        nt.digits(),
        batch_size=128,
        epochs=10,
        first_order_epochs=10,
        accuracy=0.97,
    )


def curves() -> Problem:
    """Returns an autoencoder for 14×14 CURVES: sigmoids, a linear code of 6, sparse first weights.

    It is of the papers' kind (Martens & Grosse 2015, section 13), small enough to take a minute.
    First-order methods get four times the epochs, and so about the same seconds.
    """

    def linear(width: int) -> nt.Linear:
        return nt.Linear(width, init="sparse")

    def net() -> nt.Sequential:
        return nt.Sequential(
            *(linear(100), nt.Sigmoid(), linear(50), nt.Sigmoid(), linear(6)),
            *(linear(50), nt.Sigmoid(), linear(100), nt.Sigmoid(), linear(196)),
        )

    images = nt.curves(10000).x.reshape(-1, 1, 28, 28)
    x = torch.nn.functional.avg_pool2d(images, 2).flatten(1)
    return Problem(
        "CURVES, deep autoencoder",
        net,
        nt.BCEWithLogitsLoss,
        nt.split(nt.Samples(x, x), 0.2),
        batch_size=500,
        epochs=12,
        first_order_epochs=48,
    )

"""A loss times a number."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph import ops
from ..graph.ir import Node
from ..graph.options import check_number
from .loss import Loss, check_loss

# What a loss says of itself that a positive factor does not change.
UNCHANGED = ("convex", "distribution", "separable", "root", "noise", "span", "values")


@dataclass(frozen=True, repr=False)
class Scaled(Loss):
    """The loss c·ℓ of another loss ℓ: derivatives, B and all that stands for B are c times ℓ's.

    Labels are drawn as ℓ draws them, from e^{−cℓ/d} with d = c times ℓ's own dispersion. Weight
    decay is the model's and is not multiplied.

    Args:
        loss: the loss ℓ.
        c: the factor c > 0.

    Raises:
        NewtritonError: ℓ is no loss, or c is no positive number.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> loss = nt.Scaled(nt.MSELoss(), 100.0)
        >>> model = nt.compile(nt.Linear(2), input_shape=(4,), loss=loss)
        >>> _ = model.params.zero_()
        >>> model.loss(torch.zeros(3, 4), torch.ones(3, 2)).item()
        200.0
        >>> loss
        Scaled(MSELoss(), 100.0)
    """

    loss: Loss
    c: float

    def __post_init__(self) -> None:
        check_loss(self.loss)
        object.__setattr__(self, "c", check_number("c", self.c, above=0.0))
        for name in UNCHANGED:
            object.__setattr__(self, name, getattr(self.loss, name))
        object.__setattr__(self, "dispersion", self.c * self.loss.dispersion)
        if self.loss.bound is not None:
            object.__setattr__(self, "lowest", self.c * self.loss.bound)

    @property
    def title(self) -> str:
        """The name by which errors call ℓ."""
        return self.loss.title

    @property
    def plain(self) -> Loss:
        """The loss c·ℓ without the weights of ℓ."""
        return self if self.loss.plain is self.loss else Scaled(self.loss.plain, self.c)

    def check(self) -> None:
        """Raises an error where an attribute of ℓ is none that it can have."""
        self.loss.check()
        super().check()

    def classes(self, z: Node) -> int:
        """Returns how many classes there are for int labels."""
        return self.loss.classes(z)

    def ignored(self, z: Node) -> int | None:
        """Returns the int label that does not count."""
        return self.loss.ignored(z)

    def labels(self, z: Node) -> Node:
        """Returns the input node of the labels."""
        return self.loss.labels(z)

    def losses(self, z: Node, y: Node) -> Node:
        """Returns the N losses."""
        return ops.scale(self.loss.losses(z, y), self.c)

    def counts(self, z: Node, y: Node) -> Node | None:
        """Returns by whose sum the sum of the losses is divided, as that of ℓ."""
        return self.loss.counts(z, y)

    def weights(self, z: Node, y: Node) -> Node | None:
        """Returns the weights of ℓ."""
        return self.loss.weights(z, y)

    def scores(self, z: Node) -> Node:
        """Returns the scores of the classes, those of ℓ."""
        return self.loss.scores(z)

    def drawn(self, z: Node) -> tuple[Node, Node]:
        """Returns labels drawn as ℓ draws them, and the input node of the random numbers."""
        return self.loss.drawn(z)

    def square_root(self, z: Node, y: Node, units: Node) -> Node:
        """Returns √c times a root of what stands for ℓ's B."""
        return ops.scale(self.loss.square_root(z, y, units), self.c**0.5)

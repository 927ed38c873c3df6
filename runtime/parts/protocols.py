"""What the three parts of an optimizer are to each other: curvature, solver and step rule.

A curvature C stands for the data term alone; weight decay η joins the damping γ. A solver returns
x ≈ (C + (γ + η)I)⁻¹ g. A step rule proposes s along −x and judges it. None imports another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..model.model import Model
    from ..vectors import Vectors


class Tag(Enum):
    """What a solver or a rule may rely on in a curvature."""

    SEMIDEFINITE = "no negative curvature"
    KRONECKER = "blocks A ⊗ G, kept as factors"


class Status(Enum):
    """How a solve ended."""

    SOLVED = "solved"
    DAMPING_RAISED = "a factor was not positive definite: its damping was raised"
    LIMIT = "conjugate gradients reached their limit of iterations"
    STALLED = "conjugate gradients stopped where the quadratic fell too slowly"
    NEGATIVE_CURVATURE = "conjugate gradients met curvature that is not positive"
    BOUNDARY = "conjugate gradients reached the trust region's boundary"
    FAILED = "a factor could not be factorised at any damping"
    BREAKDOWN = "conjugate gradients broke down: the preconditioner is not positive definite"
    NOT_FINITE = "conjugate gradients broke down: a product was not finite"

    @property
    def failed(self) -> bool:
        """Whether there is no direction to go along."""
        return self in (Status.FAILED, Status.BREAKDOWN, Status.NOT_FINITE)


@dataclass(frozen=True)
class Solution:
    """x ≈ (C + damping)⁻¹ g; `statistics` may count `retries` and `cg_iterations`."""

    x: Tensor
    status: Status
    statistics: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """A step s and what the model says of it.

    predicted: −m(s) ≥ 0, NaN if it is not finite. slope: gᵀs, where the rule searches a line.
    halvings: how often a line search has shortened the step.
    """

    step: Tensor
    norm: float
    predicted: float
    slope: float = 0.0
    halvings: int = 0


class Part(Protocol):
    """What every part has: a name, and state that is explicit."""

    @property
    def name(self) -> str:
        """As combinations and errors call it."""
        ...

    def state_spec(self, model: Model) -> Mapping[str, Any]:
        """What a state must look like, in the terms of `state.check_state`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that the coming steps depend on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave, bit for bit."""
        ...


class Point(Protocol):
    """Where a step starts: a `Linearization`, or the means over many batches."""

    @property
    def objective(self) -> float:
        """The value of h."""
        ...

    @property
    def gradient(self) -> Tensor:
        """∇h, flat."""
        ...

    @property
    def vectors(self) -> Vectors:
        """Arithmetic on flat vectors."""
        ...

    def quadratic_forms(self, vs: Sequence[Tensor], curvature: str = "hessian") -> Tensor:
        """The k×k matrix of vᵢᵀ C vⱼ, weight decay included."""
        ...


class Curvature(Part, Protocol):
    """An approximation C of the data term's curvature."""

    @property
    def model(self) -> Model:
        """Whose curvature it is."""
        ...

    @property
    def tags(self) -> frozenset[Tag]:
        """What may be relied on."""
        ...

    def update(self, lin: Any) -> bool:
        """Takes in a linearization; False where the curvature there is not finite."""
        ...

    def mv(self, v: Tensor) -> Tensor:
        """C v."""
        ...


class Solver(Part, Protocol):
    """A way to x ≈ (C + damping·I)⁻¹ g."""

    @property
    def bounded(self) -> bool:
        """Whether it takes a radius."""
        ...

    @property
    def solve(self) -> Callable[..., Solution]:
        """The direction for (curvature, damping, g), and a radius if `bounded`."""
        ...


class StepRule(Part, Protocol):
    """From a direction to a step."""

    @property
    def radius(self) -> float | None:
        """Of the trust region; None where the rule has none."""
        ...

    def dampings(self, damping: float) -> tuple[float, ...]:
        """The γ to try at this step; the best prediction decides which one stays."""
        ...

    def propose(self, direction: Tensor, lin: Any) -> Proposal:
        """The step from the solver's direction x ≈ C⁻¹g."""
        ...

    def shorten(self, loss: float, new_loss: float, proposal: Proposal) -> Proposal | None:
        """What a line search tries next; None where `proposal` is to be judged."""
        ...

    def judge(
        self, loss: float, new_loss: float, proposal: Proposal, eps: float
    ) -> tuple[bool, float | None]:
        """(accepted, ρ = actual/predicted decrease); adapts what the rule adapts."""
        ...

    def adapt(self, damping: float, rho: float | None) -> float:
        """γ of the next step, −∞ for ρ where no step could be made."""
        ...

    def tighten(self) -> None:
        """A step that could not be made: smaller ones follow."""
        ...

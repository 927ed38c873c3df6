"""What the three parts of an optimizer are to each other: curvature, solver and step rule.

A curvature C stands for the data term alone; weight decay η joins the damping γ. A solver returns
x ≈ (C + (γ + η)I)⁻¹ g. A step rule proposes s along −x and judges it. None imports another: what a
solver or a rule relies on it names in `needs`, and the others offer it in `tags`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from inspect import getattr_static
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.program import Program
from ..aten.switches import switches
from .block import BlockDiagonal
from .state import Attributes, Spec, State, Undo
from .tags import MISSING, Tag

if TYPE_CHECKING:
    from ..model.linearized import Linearized
    from ..model.model import Model
    from ..pieces.gathering import Asked
    from ..vectors import Vectors

T = TypeVar("T")

Hides = Callable[[float], bool]  # says whether rounding hides a change of h, see `Point.hides`
FAILURE = 100  # the severity from which on there is no direction


class Status(Enum):
    """How a solve ended: a sentence, which names the remedy where there is something to mend.

    Attributes:
        severity: how bad it is. The worst of several solves is the one with the highest; from
            `FAILURE` on there is no direction to go along.

    Examples:
        >>> import newtriton as nt
        >>> nt.Status.LIMIT.failed, nt.Status.NOT_FINITE.failed
        (False, True)
        >>> nt.Status.SOLVED.value
        'solved'
    """

    SOLVED = 0, "solved"
    DAMPING_RAISED = (
        10,
        "a factor was not positive definite: its damping was raised. Where that happens often, "
        "raise `damping`",
    )
    LIMIT = (
        20,
        "conjugate gradients reached their limit of iterations: raise `limit`, `tolerance` or "
        "`damping`",
    )
    STALLED = (
        30,
        "conjugate gradients stopped where the quadratic fell too slowly: lower `progress` for "
        "closer solves",
    )
    NEGATIVE_CURVATURE = (
        40,
        "conjugate gradients met curvature that is not positive: raise `damping`, or take the "
        "curvature 'ggn'",
    )
    BOUNDARY = (
        50,
        "conjugate gradients reached the trust region's boundary: raise `max_radius` for longer "
        "steps",
    )
    FAILED = (
        FAILURE,
        "a factor could not be factorised at any damping: raise `damping`, or take smaller steps",
    )
    BREAKDOWN = (
        FAILURE + 10,
        "conjugate gradients broke down: the preconditioner is not positive definite. Raise "
        "`damping`, or leave it out",
    )
    NOT_FINITE = (
        FAILURE + 20,
        "conjugate gradients broke down: a product was not finite. Take smaller steps, or compute "
        "in float64",
    )

    _value_: str
    severity: int

    def __new__(cls, severity: int, sentence: str) -> Status:
        """Makes a status whose value is its sentence."""
        status = object.__new__(cls)
        status._value_, status.severity = sentence, severity
        return status

    @property
    def failed(self) -> bool:
        """Whether there is no direction to go along."""
        return self.severity >= FAILURE


@dataclass(frozen=True)
class Solution:
    """What a solve gives.

    Attributes:
        x: x ≈ (C + damping·I)⁻¹ g, flat; zeros where the solve failed.
        status: how it ended.
        statistics: counts: `retries` of factorisations with more damping, `cg_iterations`.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> curvature = nt.KroneckerCurvature(model)
        >>> lin = model.linearize(torch.eye(3), torch.arange(3))
        >>> _ = curvature.update(lin)
        >>> nt.BlockCG(limit=1).solve(curvature, 0.1, lin.gradient).statistics
        {'cg_iterations': 1}
    """

    x: Tensor
    status: Status
    statistics: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """A step s and what the model m of the objective says of it.

    Attributes:
        step: s, flat.
        norm: ‖s‖.
        predicted: the predicted decrease −m(s) ≥ 0; NaN where it is not finite.
        slope: gᵀs.
        along: α where s = −αx + …, x being the solver's direction.
        uphill: whether −x leads uphill, gᵀx < 0, where other directions may lead s downhill.
        halvings: how often a line search has shortened the step.
        bounded: whether it ends where a trust region does.
    """

    step: Tensor
    norm: float
    predicted: float
    slope: float = 0.0
    along: float = 0.0
    uphill: bool = False
    halvings: int = 0
    bounded: bool = False

    def times(self, factor: float) -> Proposal:
        """Returns the step times a factor, with what the quadratic model says of it."""
        half_form = -self.predicted - self.slope  # ½ sᵀCs
        return replace(
            self,
            step=self.step * factor,
            norm=self.norm * factor,
            predicted=-(factor * self.slope + factor**2 * half_form),
            slope=self.slope * factor,
            along=self.along * factor,
        )


class Stateful(Protocol):
    """Whatever has a state, which is explicit."""

    def state_dict(self) -> State:
        """Returns copies of all that the coming steps depend on."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Restores what `state_dict` gave, bit for bit; the state has been checked."""
        ...


class Part(Stateful, Protocol):
    """What every part has: a name and a state."""

    @property
    def name(self) -> str:
        """The name by which combinations and errors call the part."""
        ...


class Point(Protocol):
    """Where a step starts: a `Linearization`, or the means over many batches."""

    @property
    def objective(self) -> float:
        """The value of h at the point."""
        ...

    @property
    def gradient(self) -> Tensor:
        """The gradient ∇h, flat."""
        ...

    @property
    def vectors(self) -> Vectors:
        """The arithmetic on flat vectors."""
        ...

    def quadratic_forms(self, vs: Sequence[Tensor], curvature: str = "hessian") -> Tensor:
        """Returns the k×k matrix of vᵢᵀ C vⱼ, weight decay included."""
        ...

    def hides(self, change: float) -> bool:
        """Whether rounding may be all of a change of h; a small one costs a transfer."""
        ...


class Curvature(Part, Protocol):
    """An approximation C of the data term's curvature, as a linear operator.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> curvature: nt.Curvature = nt.MatrixFree(model, "ggn")
        >>> curvature.tags
        frozenset({<Tag.SEMIDEFINITE: 'there is no negative curvature'>})
    """

    @property
    def model(self) -> Model:
        """The model whose curvature it is."""
        ...

    @property
    def tags(self) -> frozenset[Tag]:
        """What may be relied on."""
        ...

    @property
    def blocks(self) -> BlockDiagonal | None:
        """C as blocks that can be factorised, with `Tag.BLOCKS`; None where it has none."""
        ...

    @property
    def preconditioner(self) -> Curvature | None:
        """A second curvature that is easy to solve with, with `Tag.PRECONDITIONER`."""
        ...

    def update(self, lin: Linearized) -> bool:
        """Takes in a linearization; returns False where the curvature there is not finite."""
        ...

    def mv(self, v: Tensor) -> Tensor:
        """Returns C v for a flat vector, without weight decay."""
        ...

    def state_spec(self) -> Mapping[str, Spec]:
        """Returns what a state must look like, for `state.check_state`."""
        ...


@runtime_checkable
class Foreseeing(Protocol):
    """A curvature or a rule that can say which programs of a model it will run."""

    def programs(self, model: Model, batch: int) -> Sequence[Program]:
        """Returns the programs that will run on batches of this size, to compile them ahead."""
        ...


@runtime_checkable
class Asking(Protocol):
    """A curvature that can say which factors it will ask of the next linearization."""

    def asks(self) -> Asked | None:
        """Returns what the next update asks for; None for nothing."""
        ...


@runtime_checkable
class Spanning(Protocol):
    """A point that takes the forms of several spans of directions in one pass."""

    def forms_of_each(self, spans: Sequence[Sequence[Tensor]], curvature: str) -> list[Tensor]:
        """Returns for each span the matrix of its forms, see `Point.quadratic_forms`."""
        ...


@runtime_checkable
class Averaging(Protocol):
    """A curvature that is an average over batches."""

    @property
    def unseen(self) -> float:
        """The share of the curvature that so many samples may not have seen: 1/N of N samples."""
        ...

    def bootstrap(self, lin: Linearized) -> bool:
        """Takes a batch in before the first update; returns False where it is not finite."""
        ...


class Inverse(Protocol):
    """An inverse (C + damping·I)⁻¹, made ready once by `Solver.prepare` and applied often."""

    def solve(self, g: Tensor, radius: float | None = None) -> Solution:
        """Returns x ≈ (C + damping·I)⁻¹ g.

        Args:
            g: the right-hand side, flat.
            radius: the largest ‖x‖, where the solver needs `Tag.RADIUS`; others pass over it.
        """
        ...


class Solver(Part, Protocol):
    """A way to x ≈ (C + damping·I)⁻¹ g.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> solver: nt.Solver = nt.KFI()
        >>> curvature = nt.KroneckerCurvature(model)
        >>> solver.needs <= curvature.tags
        True
    """

    @property
    def needs(self) -> frozenset[Tag]:
        """The tags that curvature and rule must offer."""
        ...

    def prepare(self, curvature: Curvature, damping: float) -> Inverse:
        """Factorises the curvature where that is due; a failure shows in the inverse's solutions.

        The inverse is valid until the curvature is updated.
        """
        ...

    def solve(
        self, curvature: Curvature, damping: float, g: Tensor, radius: float | None = None
    ) -> Solution:
        """Prepares and solves once, see `Inverse.solve`."""
        ...

    def state_spec(self, curvature: Curvature) -> Mapping[str, Spec]:
        """Returns what a state must look like where the solver works on this curvature."""
        ...


class Stepper(Protocol):
    """What has to be known of a step rule, or of another maker of steps; see `StepRule`."""

    @property
    def name(self) -> str:
        """The name by which errors call it."""
        ...

    @property
    def needs(self) -> frozenset[Tag]:
        """The tags that the curvature must offer."""
        ...

    @property
    def tags(self) -> frozenset[Tag]:
        """What a solver may rely on."""
        ...

    @property
    def matrix(self) -> str | None:
        """The curvature of its own quadratic model, where it may be refused by a loss."""
        ...


class StepRule(Part, Stepper, Protocol):
    """A way from a direction to a step, and the judgement of it.

    Examples:
        >>> import newtriton as nt
        >>> rule: nt.StepRule = nt.TrustRegion(max_radius=2.0)
        >>> rule.radius
        2.0
    """

    @property
    def radius(self) -> float | None:
        """The radius of the trust region, with `Tag.RADIUS`; None where the rule has none."""
        ...

    @property
    def lr(self) -> float | None:
        """The learning rate; None where the rule has none."""
        ...

    def watch(self, step: Tensor | None, form: bool = True, side: Tensor | None = None) -> None:
        """Lets the next proposal measure an earlier step on its batch as well.

        Args:
            step: the step; None for none now, which says that there will be some.
            form: whether its quadratic form is wanted with its slope.
            side: the solver's right-hand side, for `energy`.
        """
        ...

    def seen(self) -> tuple[float, float | None] | None:
        """Returns that step's slope and form on the batch, None for a form that there is not.

        None alone stands for no step, or for one that has not been measured.
        """
        ...

    def energy(self, direction: Tensor) -> float:
        """Returns xᵀ(C + γI)x of a direction x that was proposed, from that right-hand side.

        It is 0 where the rule does not measure it.
        """
        ...

    def dampings(self, damping: float) -> tuple[float, ...]:
        """Returns the γ to try at this step; the best prediction decides which one stays."""
        ...

    def survey(self, directions: Sequence[Tensor], point: Point) -> None:
        """Measures what `propose` will need of several directions at a point, in one transfer."""
        ...

    def propose(self, direction: Tensor, point: Point) -> Proposal:
        """Returns the step from the solver's direction x ≈ C⁻¹g."""
        ...

    def shorten(self, loss: float, new_loss: float, proposal: Proposal) -> Proposal | None:
        """Returns what a line search tries next; None where `proposal` is to be judged."""
        ...

    def judge(
        self, loss: float, new_loss: float, proposal: Proposal, hides: Hides
    ) -> tuple[bool, float | None]:
        """Judges a step that was tried, and adapts what the rule adapts.

        Args:
            loss: h before the step.
            new_loss: h after it.
            proposal: the step.
            hides: says whether rounding hides a change of h, see `Point.hides`.

        Returns:
            whether it is accepted, and ρ = actual/predicted decrease; None without a model, or
            where both decreases are rounding error.
        """
        ...

    def adapt(self, damping: float, rho: float | None) -> float:
        """Returns γ of the next step; ρ is −∞ where no step could be made."""
        ...

    def tighten(self) -> None:
        """Makes the coming steps smaller: a step could not be made."""
        ...

    def state_spec(self, model: Model) -> Mapping[str, Spec]:
        """Returns what a state must look like, for `state.check_state`."""
        ...


class LinearSolver(Attributes, ABC):
    """The base of solvers: what a solve is, given `prepare`; docs/adding.md writes one.

    Without attributes that `STATE` names a solver carries nothing from step to step.

    Examples:
        >>> import newtriton as nt
        >>> isinstance(nt.KFI(), nt.LinearSolver), isinstance(nt.Steihaug(), nt.LinearSolver)
        (True, True)
    """

    @abstractmethod
    def prepare(self, curvature: Curvature, damping: float) -> Inverse:
        """Returns the inverse, made ready; see `Solver.prepare`."""

    def solve(
        self, curvature: Curvature, damping: float, g: Tensor, radius: float | None = None
    ) -> Solution:
        """Prepares and solves once, see `Inverse.solve`."""
        with switches(g.device):
            return self.prepare(curvature, damping).solve(g, radius)

    def state_spec(self, curvature: Curvature) -> Mapping[str, Spec]:
        """Returns what a state must look like, see `Solver.state_spec`; empty by default."""
        return {}

    def hold(self) -> Undo:
        """Returns what puts the solver back to what it is now, a state of its own among it."""
        own = type(self).state_dict is not Attributes.state_dict
        return partial(self.load_state_dict, self.state_dict()) if own else super().hold()


def check_curvature(what: str, value: Any) -> Curvature:
    """Returns a curvature; raises an error where the value is something else."""
    return _checked(what, value, Curvature, "a curvature, e.g. KroneckerCurvature(model)")


def check_solver(what: str, value: Any) -> Solver:
    """Returns a solver; raises an error where the value is something else."""
    return _checked(what, value, Solver, "a solver, e.g. KFI(), or a subclass of LinearSolver")


def check_rule(what: str, value: Any) -> StepRule:
    """Returns a step rule; raises an error where the value is something else."""
    return _checked(what, value, StepRule, "a step rule, e.g. TrustRegion()")


def _checked(what: str, value: T, protocol: type, example: str) -> T:
    """Returns an object that has what a protocol asks of it; nothing of it is called.

    Raises:
        NewtritonError: names what it lacks.
    """
    wanted = {name for kind in protocol.__mro__ for name in vars(kind) if name[0] != "_"}
    missing = sorted(name for name in wanted if not _has(value, name))
    if not missing and not isinstance(value, type):
        return value
    lacks = ""
    if 0 < len(missing) < len(wanted):
        lacks = f", which lacks {', '.join(missing)} of nt.{protocol.__name__}"
    raise NewtritonError(f"{what} is {quoted(value)}{lacks}: give {example}")


def _has(value: object, name: str) -> bool:
    """Whether an object has an attribute; a property of its class is not computed."""
    missing = object()
    return getattr_static(value, name, missing) is not missing or hasattr(value, name)


def no_solution(g: Tensor, status: Status, **statistics: int) -> Solution:
    """Returns the solution of a solve that failed: zeros."""
    return Solution(torch.zeros_like(g), status, statistics)


def blocks_of(curvature: Curvature) -> BlockDiagonal:
    """Returns the curvature as blocks.

    Raises:
        NewtritonError: it has none.
    """
    blocks = curvature.blocks
    if blocks is None:
        raise NewtritonError(f"curvature {curvature.name!r}: {MISSING[Tag.BLOCKS]}")
    return blocks

"""Any torch.optim optimizer on gradients that are preconditioned by curvature × solver."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...compiler.curvature.blocks import KroneckerLayer
from ...compiler.graph.calls import checked
from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.options import check_number
from ...compiler.graph.program import Program
from ...compiler.language.network import layer_of
from ..parts.protocols import Asking, Curvature, Foreseeing, Solver
from ..parts.state import Number, Spec, State, Undo, all_of, held
from ..parts.tags import MISSING, Tag
from ..pieces.gathering import Asked
from .combinations import check_combination
from .first_order import Start, TorchOptimizer
from .needs import check_step
from .passes import Batch
from .presets import Every, refresh_intervals
from .registry import FACTORED, resolve_curvature, resolve_solver
from .report import not_finite
from .retreat import Retreat

if TYPE_CHECKING:
    from ..model.model import Model

EVERY, BURN_IN = 5, 5  # of factors that are given by name, as FITRE's
NOTHING = (
    "no layer with a Kronecker rule is left to precondition: name fewer layers in `plain`, or take "
    "TorchOptimizer"
)


class Preconditioned(TorchOptimizer):
    """An optimizer of torch.optim that is given x = (C + (γ + η)I)⁻¹∇h for the gradient.

    C is a curvature, η the model's weight decay. `TorchOptimizer` has the rest: `optimizer` takes
    PyTorch's schedules of learning rates, options are the class's own, and a step that leads to
    what is not finite is taken back. Parameters without a Kronecker rule keep their plain gradient:
    those whose block is diagonal, those that have no block, and the layers that `plain` names.

    With `clip` = κ, x is multiplied by ν = min(1, √(κ / (lr² |xᵀ∇h|))), the sum xᵀ∇h being over
    what is preconditioned. Since ∇h ≈ Cx, the step −lr·νx of plain SGD then changes the predictions
    by no more than κ/2 in KL divergence, where C is the Fisher matrix (Ba, Grosse & Martens 2017;
    K-FAC for PyTorch by Pauloski et al. 2020 takes κ = 0.001).

    Args:
        model: the model to be trained.
        cls: a class of torch.optim; not L-BFGS, whose line search is along its own gradients.
        curvature: a `Curvature`, or a name, see `SecondOrder`.
        solver: a `Solver`, or a name, likewise.
        damping: γ ≥ 0.
        every: steps between two refreshes of factors that are given by name, ≥ 1, or a pair
            (gather, invert); 5 unless given.
        clip: κ > 0; None for no bound.
        plain: the names of layers that keep their plain gradient.
        seed: the seed of labels, where factors that are given by name draw some.
        options: the arguments of the class, and `schedule` and `micro_batch` of `TorchOptimizer`.

    Attributes:
        optimizer: the optimizer itself, e.g. for a scheduler of learning rates.
        damping: γ, which may be set between steps.
        curvature: the curvature, which belongs to this optimizer.
        solver: the solver, likewise.

    Raises:
        NewtritonError: the class is none or does not take the options, an option is unknown or out
            of its range, nothing is left to precondition, or the parts do not go together.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> optimizer = nt.Preconditioned(model, torch.optim.SGD, lr=0.1, momentum=0.9)
        >>> schedule = torch.optim.lr_scheduler.StepLR(optimizer.optimizer, 3, 0.5)
        >>> x, y = torch.eye(3), torch.arange(3)
        >>> for _ in range(4):
        ...     report = optimizer.step(x, y)
        ...     schedule.step()
        >>> report.loss < 1.0, report.lr
        (True, 0.05)
    """

    @checked
    @torch.inference_mode(False)
    def __init__(
        self,
        model: Model,
        cls: type[torch.optim.Optimizer],
        *,
        curvature: Curvature | str = "kfac",
        solver: Solver | str = "kfi",
        damping: float = 0.01,
        every: Every | None = None,
        clip: float | None = None,
        plain: Sequence[str] = (),
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(model, cls, **options)
        if self.takes_data:
            raise NewtritonError(
                "L-BFGS searches along directions of its own gradients, which cannot be "
                "preconditioned: take another class, or TorchOptimizer(model, torch.optim.LBFGS)"
            )
        self.damping = check_number("damping", damping, 0.0, torch.finfo(model.dtype).max)
        self.clip = None if clip is None else check_number("clip", clip, above=0.0)
        plain = (plain,) if isinstance(plain, str) else plain
        plain = model.layout.check_layers("plain", plain)
        gather, invert = refresh_intervals(EVERY if every is None else every)
        by_name = isinstance(solver, str)
        self.solver = resolve_solver(solver, invert)
        of_factors: dict[str, Any] = {}
        if isinstance(curvature, str) and curvature in FACTORED:
            layers = _kronecker_layers(model, plain)
            refreshes = {"every": gather, "refresh": invert, "burn_in": BURN_IN}
            of_factors = {**refreshes, "seed": seed, "layers": layers}
        elif every is not None:
            raise NewtritonError(
                f"every is {quoted(every)}: it is of factors that are given by name, and the "
                "curvature is not; give it to the curvature and the solver, or leave it out"
            )
        means = by_name and Tag.MEANS in self.solver.needs
        self.curvature = resolve_curvature(model, curvature, means, **of_factors)
        self._retreat = Retreat(model, [self.curvature, self.solver], self._taken)
        rule = Delegated(type(self.optimizer).__name__)
        check_combination(self.curvature, self.solver, rule, "additive", model.criterion)
        self._preconditioned, self._plain = _places(self.curvature, plain)
        self._foreseen = set[int]()

    def _start(self, batches: Iterable[Batch]) -> Start:
        """Returns the loss of the batch, and x in place of its gradient."""
        ((x, y),) = batches
        lin = self._taken.linearize(x, y, ahead=self._ahead)
        gradient, reported = lin.gradient, dict[str, Any](damping=self.damping)
        fault = not_finite(lin.objective, gradient, [lin.statistics])
        if fault is None and not self.curvature.update(lin):
            fault = "curvature that is not finite"
        if fault is None:
            damping = self.damping + self.model.weight_decay
            solution = self.solver.solve(self.curvature, damping, gradient)
            sentence = solution.status.value
            reported |= {"status": sentence, "cg_iterations": 0, **solution.statistics}
            reported["damping_retries"] = reported.pop("retries", 0)
            fault = sentence if solution.status.failed else None
            gradient = self._direction(solution.x, gradient)
        return Start(lin.objective, gradient, [lin.statistics], fault, reported)

    def _asks(self) -> Asked | None:
        """Returns what the curvature will ask of the next linearization."""
        return self.curvature.asks() if isinstance(self.curvature, Asking) else None

    def _hold(self) -> Undo:
        return all_of([super()._hold(), held(self.curvature), held(self.solver)])

    def _ahead(self, batch: int) -> Sequence[Program]:
        """Returns the programs that will run on a batch of this size, when first asked for."""
        if batch in self._foreseen:
            return []
        curvature, linearize = self.curvature, self.model.programs[True].linearize
        found = curvature.programs(self.model, batch) if isinstance(curvature, Foreseeing) else []
        check_step(self.model, curvature, self.solver, [linearize, *found], batch)
        self._foreseen.add(batch)
        return found

    def _direction(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Returns νx where there is curvature, and the gradient elsewhere."""
        direction = x.clone()  # a solver may keep x, and an optimizer change it
        if self.clip is not None:
            sums = [torch.dot(x[at], gradient[at]) for at in self._preconditioned]
            slope = torch.stack(sums).sum(dtype=torch.float64).abs()
            bound = (self.clip / (self._lr**2 * slope)).sqrt().clamp(max=1.0)
            direction.mul_(bound.to(x.dtype))
        for at in self._plain:
            direction[at] = gradient[at]
        return direction

    def _described(self) -> Mapping[str, object]:
        clip = {} if self.clip is None else {"clip": self.clip}
        parts = {"curvature": self.curvature, "solver": self.solver}
        return {**parts, "damping": f"{self.damping:g}", **clip}

    def _state_spec(self) -> Mapping[str, Spec]:
        return {
            **super()._state_spec(),
            "curvature": self.curvature.state_spec(),
            "solver": self.solver.state_spec(self.curvature),
            "damping": Number(float, 0.0),
        }

    def state_dict(self) -> State:
        """Returns copies of all that the coming steps depend on, besides model and data."""
        return {
            **super().state_dict(),
            "curvature": self.curvature.state_dict(),
            "solver": self.solver.state_dict(),
            "damping": self.damping,
        }

    @checked
    @torch.inference_mode(False)
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave, bit for bit.

        Raises:
            NewtritonError: the state does not fit; nothing has changed.
        """
        super().load_state_dict(state)
        self.curvature.load_state_dict(state["curvature"])
        self.solver.load_state_dict(state["solver"])
        self.damping = state["damping"]


@dataclass(frozen=True)
class Delegated:
    """What stands for a step rule where a torch.optim optimizer makes the steps.

    Attributes:
        name: the name of the optimizer's class.
        needs: the tags that the curvature must offer.
        tags: what a solver may rely on.
        matrix: None, since there is no quadratic model.
    """

    name: str
    needs: frozenset[Tag] = frozenset({Tag.SEMIDEFINITE})
    tags: frozenset[Tag] = frozenset({Tag.CONSTANT_DAMPING})
    matrix: str | None = None


def _kronecker_layers(model: Model, plain: Collection[str]) -> list[str] | None:
    """Returns the layers with a Kronecker rule, without the plain ones; None where it is all.

    Raises:
        NewtritonError: there is none.
    """
    known = [b.owner for b in model.known_blocks if isinstance(b, KroneckerLayer)]
    layers = [layer for layer in dict.fromkeys(known) if layer not in plain]
    if not layers:
        raise NewtritonError(NOTHING)
    return None if len(layers) == len(model.layout.layers) else layers


def _places(curvature: Curvature, plain: Collection[str]) -> tuple[list[slice], list[slice]]:
    """Returns where a flat vector is preconditioned, and where the gradient stays plain.

    Raises:
        NewtritonError: layers are to be plain, and the curvature is not made of blocks; or all of
            them are plain.
    """
    layout, blocks = curvature.model.layout, curvature.blocks
    if blocks is None:
        if plain:
            raise NewtritonError(f"plain is {quoted(plain)}: {MISSING[Tag.BLOCKS]}")
        return [slice(0, layout.numel)], []
    factored = [name for b in blocks.blocks if Tag.DIAGONAL not in b.tags for name in b.names]
    names = {name for name in factored if layer_of(name) not in plain}
    preconditioned = [at for name, at in layout.slices.items() if name in names]
    if not preconditioned:
        raise NewtritonError(NOTHING)
    return preconditioned, [at for name, at in layout.slices.items() if name not in names]

"""Second-order optimizers: curvature × solver × step rule, and how a step is made of them.

No part imports another part's kind: any curvature goes with any solver and rule, but for what
`combinations.check_combination` refuses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import NoneType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...compiler.graph.calls import checked
from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.options import check_flag, check_kind, check_number, check_option
from ...compiler.graph.program import Program
from ...compiler.language.trees import Tree
from ...kernels.memory import empty_like
from ..aten.switches import switches
from ..model.model import Model, check_model
from ..parts.protocols import (
    Asking,
    Averaging,
    Curvature,
    Foreseeing,
    Proposal,
    Solution,
    Solver,
    Stateful,
    StepRule,
)
from ..parts.state import (
    Number,
    Random,
    Spec,
    State,
    Undo,
    all_of,
    as_described,
    check_state,
    drawing,
    drawing_spec,
    held,
    held_attributes,
    held_generator,
    seeded,
)
from ..pieces.gathering import Asked
from ..pieces.taken import described, taken
from ..reading import largest_of
from ..remaking import Remade
from ..rules.following import Following
from ..rules.noise import Noise
from ..summary import summary
from .averaging import PolyakAverage
from .combinations import FORMS, check_combination
from .needs import check_step
from .passes import Batch, check_batches, pair
from .registry import resolve
from .report import SEARCH_FAILED, Patience, StepReport, not_finite, refusal
from .retreat import Retreat
from .sampling import Sampled, as_batches, mean_objective
from .undoing import undone

if TYPE_CHECKING:
    from ..model.linearization import Linearization

NOISES = ("wiener",)


class SecondOrder(Remade):
    """An optimizer θ ← θ + s, with s proposed by a step rule along the solver's direction.

    The direction is x ≈ (C + (γ + η)I)⁻¹∇h with curvature C and weight decay η; the rule proposes s
    along −x and judges it by the loss at θ + s. The parts are objects, or names for their defaults,
    see `registry.CURVATURES`, `SOLVERS` and `RULES`.

    Args:
        model: the model to be trained.
        curvature: a `Curvature`, or a name: a kind of Kronecker factors ("kfac", "kflr", …), their
            eigenbasis ("ekfac"), "ggn", "hessian", "ggn-layers" or "hessian-layers".
        solver: a `Solver`, or a name: "kfi", "eigen", "cg" or "ea-cg" for Kronecker factors,
            "truncated-cg" or "steihaug" for any curvature.
        rule: a `StepRule`, or a name: "fixed", "quadratic", "trust-region" or
            "levenberg-marquardt".
        damping: γ ≥ 0, added to the curvature with the model's weight decay; rules may change it.
        form: "additive", C + γI; or EA-CG's "convex", (1 − α)C + αI with α = γ < 1.
        sample: the share of the samples that curvature is taken on, 0 < sample ≤ 1; loss and
            gradient are of all.
        average: a `PolyakAverage` of the parameters to be kept, or None.
        noise: "wiener" judges the steps of mini-batches against their noise, see `rules.noise`;
            None judges each on its own batch alone. A step on all data, `step(data)`, has none.
        follow: whether γ follows what the model of its step promises: the best of γ and its
            neighbours ωγ, γ/ω, ω = 0.95²⁰, at steps that lie ever farther apart; with noise no
            less than (1 − φ)/N, see `rules.noise`.
        micro_batch: the most samples that are taken at once: a larger batch is taken in pieces,
            whose gradients, products and factors are summed exactly; None for no such bound.
        seed: the seed of the samples that are drawn.

    Attributes:
        damping: γ as it is now.
        curvature: the curvature, which belongs to this optimizer.
        solver: the solver, likewise.
        rule: the step rule, likewise.

    Raises:
        NewtritonError: an option is unknown or out of its range, the parts do not go together, or
            batches cannot be taken in pieces; the error says what to take instead.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> optimizer = nt.SecondOrder(model, "ggn", "steihaug", "trust-region", damping=0.1)
        >>> report = optimizer.step(torch.eye(3), torch.arange(3))
        >>> report.accepted, report.new_loss < report.loss
        (True, True)
    """

    @checked
    @torch.inference_mode(False)
    def __init__(
        self,
        model: Model,
        curvature: Curvature | str = "kfac",
        solver: Solver | str = "kfi",
        rule: StepRule | str = "trust-region",
        damping: float = 0.1,
        *,
        form: str = "additive",
        sample: float = 1.0,
        average: PolyakAverage | None = None,
        noise: str | None = None,
        follow: bool = False,
        micro_batch: int | None = None,
        seed: int = 0,
    ) -> None:
        check_option("form", form, tuple(FORMS))
        self.model, self._frozen = check_model(model), model.check_trained()
        below, most = 1.0 if form == "convex" else math.inf, torch.finfo(model.dtype).max
        self.damping = check_number("damping", damping, 0.0, most, below=below)
        self.sample = check_number("sample", sample, above=0.0, most=1.0)
        self.curvature, self.solver, self.rule = resolve(
            model, curvature, solver, rule, self.damping
        )
        check_combination(self.curvature, self.solver, self.rule, form, model.criterion)
        if noise is not None and not (isinstance(noise, str) and noise in NOISES):
            raise NewtritonError(
                f"noise is {quoted(noise)}: 'wiener', or None for the papers' methods"
            )
        self.form = form
        self.average = check_kind("average", average, (PolyakAverage, NoneType), "a PolyakAverage")
        self.noise = None if noise is None else Noise()
        if self.noise is not None:
            self.rule.watch(None)
        self.follow, self.steps = check_flag("follow", follow), 0
        self.following = Following(model, self.curvature, self.solver, self.noise)
        self.generator = seeded(model, seed)
        self.patience = Patience()
        self._foreseen = set[int]()
        self._taken = taken(model, micro_batch, self._asks)
        noises = [] if self.noise is None else [self.noise]
        self._retreat = Retreat(model, [self.curvature, self.solver, *noises], self._taken)

    @property
    def takes_data(self) -> bool:
        """Whether a step is meant for all data, `step(data)`: curvature is that of a sample."""
        return self.sample < 1.0

    def _asks(self) -> Asked | None:
        """Returns what the curvature will ask of the next linearization."""
        return self.curvature.asks() if isinstance(self.curvature, Asking) else None

    def _ahead(self, batch: int) -> list[Program]:
        """Returns the programs that will run on a batch of this size, when first asked for.

        Raises:
            NewtritonError: they do not fit into the memory that is free.
        """
        if batch in self._foreseen:
            return []
        parts = [part for part in (self.curvature, self.rule) if isinstance(part, Foreseeing)]
        found = [program for part in parts for program in part.programs(self.model, batch)]
        known = self.model.programs[True]
        if self.sample == 1.0:
            found.append(known.evaluate)
        check_step(self.model, self.curvature, self.solver, [known.linearize, *found], batch)
        self._foreseen.add(batch)
        return found

    @checked
    @torch.inference_mode(False)
    @torch.no_grad()
    def bootstrap(self, data: Iterable[Batch]) -> None:
        """Takes batches into the averages of the curvature before the first step; no step is made.

        So the first step starts from the curvature of a larger sample than its batch, as FITRE's
        may: of five mini-batches (Kylasa et al. 2020, section 3.1.1). Burn-in comes after that. An
        error leaves the averages as they were.

        Args:
            data: the batches (x, y), all with the same weight.

        Raises:
            NewtritonError: the curvature is no average, a step has been made, there are no batches,
                or one does not fit the model or has curvature that is not finite.

        Examples:
            >>> import torch
            >>> import newtriton as nt
            >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
            >>> optimizer = nt.FITRE(model, burn_in=0)
            >>> optimizer.bootstrap(nt.Batches(torch.eye(3), torch.arange(3), batch_size=1))
            >>> optimizer.curvature.gathered
            3
        """
        curvature, batches = self.curvature, 0
        if not isinstance(curvature, Averaging):
            raise NewtritonError(
                f"bootstrap: curvature {curvature.name!r} is no average over batches, so that "
                "nothing is gathered before a step: leave the call out"
            )
        if self.steps:
            raise NewtritonError("bootstrap comes before the first step: make a new optimizer")
        check_batches(data)
        with self.model.ranks.told(), undone(self._hold()):
            for x, y in map(pair, data):
                batches += 1
                if not curvature.bootstrap(self._taken.linearize(x, y)):
                    raise NewtritonError(
                        f"bootstrap: the curvature of batch {batches} is not finite: look at the "
                        "data, or start from other parameters"
                    )
        if not batches:
            raise NewtritonError("bootstrap got no batches: give at least one")

    @checked
    @torch.inference_mode(False)
    @torch.no_grad()
    def step(self, x: Tree | Iterable[Batch], y: Tensor | None = None) -> StepReport:
        """Makes a step on a batch; one that is rejected leaves the parameters as they were.

        One that ends in an error, of the data's or by an interrupt, leaves everything as it was.

        `step(data)` takes an iterable of batches: loss and gradient are those of all of them,
        taken batch by batch, and curvature is that of a sample.

        Args:
            x: inputs, or the iterable of batches (x, y), which must not be a one-shot iterator.
            y: labels; None for an iterable.

        Returns:
            what the step did.

        Raises:
            NewtritonError: a batch does not fit the model or has NaN in it, or ten steps in a row
                could not be made because of what was not finite; the model has then gone back to
                where the last step was made from, if the loss is finite there.
        """
        batches = as_batches(x, y)
        self.model.check_trained(self._frozen)
        self._retreat.begin()
        with self.model.ranks.told(), undone(self._hold()):
            report, fault = self._attempt(x, y, batches)
        self._count(fault, batches)
        return replace(report, rejected=self.patience.rejected)

    def _attempt(
        self, x: Tree | Iterable[Batch], y: Tensor | None, batches: Iterable[Batch]
    ) -> tuple[StepReport, str | None]:
        """Makes a step; returns its report, and why none could be made, None where one could."""
        model, rule = self.model, self.rule
        if y is not None and self.sample == 1.0:
            point = second = self._taken.linearize(x, y, ahead=self._ahead)  # type: ignore[arg-type]
        else:
            point = Sampled(self._taken, batches, self.sample, self.generator, self._ahead)
            second = point.second

        def report(status: str, **what: Any) -> StepReport:
            return StepReport(
                point.objective, status=status, radius=rule.radius, damping=self.damping,
                lr=rule.lr, **what,
            )  # fmt: skip

        noise = None if y is None else self.noise
        with switches(model.device):  # solves take products outside of programs
            found = self._direction(point, second, noise)
        if isinstance(found, str):
            rule.tighten()
            self.damping = rule.adapt(self.damping, -math.inf)
            return report(found, new_loss=None, accepted=False, step_norm=0.0), found
        self._retreat.keep()
        solution, proposal = found
        with undone(self._retreat.restore):
            new_loss, proposal, accepted, rho = self._take(point, proposal, batches)
            if noise is not None:
                noise.record(proposal, point.objective, new_loss, accepted)
            self._retreat.moved()
            if accepted:
                for statistics in _statistics(point):
                    model.update_statistics(statistics)
            self.damping = rule.adapt(self.damping, rho)
            if self.average is not None:
                self.average.update(model.params)
        status = solution.status.value
        if not accepted:
            searched = proposal.halvings > 0
            status = SEARCH_FAILED if searched else refusal(point.objective, new_loss, proposal)
        return report(
            status, new_loss=new_loss,
            accepted=accepted, step_norm=proposal.norm, rho=rho, predicted=proposal.predicted,
            gain=None if noise is None else noise.gain,
            damping_retries=solution.statistics.get("retries", 0),
            cg_iterations=solution.statistics.get("cg_iterations", 0), halvings=proposal.halvings,
        ), None  # fmt: skip

    def _hold(self) -> Undo:
        """Returns what puts all but the model's tensors back to what it is now."""
        return all_of([
            *map(held, self._parts().values()),
            held_generator(self.generator),
            held_attributes(self, "damping", "steps"),
            held_attributes(self.following, "last"),
        ])  # fmt: skip

    def _count(self, fault: str | None, batches: Iterable[Batch]) -> None:
        """Counts a step that could not be made; with the last one the model may go back."""
        try:
            self.patience.count(fault)
        except NewtritonError:
            self._retreat.go_back(batches)
            raise

    def _take(
        self,
        point: Linearization | Sampled,
        proposal: Proposal,
        batches: Iterable[Batch],
    ) -> tuple[float, Proposal, bool, float | None]:
        """Tries the proposal, and shorter ones where the rule asks for them.

        Parameters have moved only if the last one is accepted; an interrupt leaves no step that
        was not judged.

        Returns:
            the loss and the proposal tried last, whether it is accepted, and ρ.
        """
        params, accepted = self.model.params, False
        before = empty_like(params).copy_(params)
        limits, farthest = torch.finfo(params.dtype), largest_of(params)
        try:
            while True:
                torch.add(before, proposal.step, out=params)
                inside = farthest + proposal.norm < 0.5 * limits.max  # no overflow: ‖s‖∞ ≤ ‖s‖
                finite = inside or math.isfinite(largest_of(params))
                new_loss = mean_objective(self._taken, batches) if finite else math.inf
                shorter = self.rule.shorten(point.objective, new_loss, proposal)
                if shorter is None:
                    break
                proposal = shorter
            accepted, rho = self.rule.judge(point.objective, new_loss, proposal, point.hides)
        finally:
            if not accepted:
                params.copy_(before)
        return new_loss, proposal, accepted, rho

    def _direction(
        self,
        point: Linearization | Sampled,
        second: Linearization,
        noise: Noise | None,
    ) -> tuple[Solution, Proposal] | str:
        """Returns the best proposal over the dampings to try, or what stands in the way of one."""
        fault = not_finite(point.objective, point.gradient, _statistics(point))
        if fault is not None:
            return fault
        if not self.curvature.update(second):
            return "curvature that is not finite"
        side = point.gradient
        if noise is not None:
            side = noise.averaged(side, point.count)
            self.rule.watch(noise.last, noise.wants_form, side)
        fault, solved = "", list[tuple[float, Solution]]()
        for damping in self._dampings(second.batch):
            solution = self._solve(damping, side)
            if solution.status.failed:
                fault = solution.status.value
            else:
                solved.append((damping, solution))
        if len(solved) > 1:
            self.rule.survey([solution.x for _, solution in solved], point)
        best: tuple[float, Solution, Proposal] | None = None
        for damping, solution in solved:
            proposal = self.rule.propose(solution.x, point)
            if not (_is_finite(proposal) or math.isfinite(largest_of(solution.x))):
                fault = "a direction that is not finite"
            elif proposal.norm == 0.0 and _vanishes(solution.x, point.gradient):
                fault = "a direction that vanishes: curvature is too large"
            elif best is None or _worth(proposal) > _worth(best[2]):
                best = (damping, solution, proposal)
        if noise is not None and (seen := self.rule.seen()) is not None:
            noise.judge(*seen)
        if best is None:
            return fault
        self.damping, solution, proposal = best
        if noise is not None:
            lowest = self.model.criterion.bound  # of h too: weight decay only adds to the loss
            energy = self.rule.energy(solution.x)
            proposal = noise.shortened(proposal, energy, point.objective, lowest, point.hides)
        return solution, proposal

    def _dampings(self, batch: int) -> tuple[float, ...]:
        """Returns the γ to try: the rule's, or those that are due where γ follows its model."""
        self.steps += 1
        if self.follow:
            return self.following.dampings(self.damping, self.steps, batch)
        return self.rule.dampings(self.damping)

    def _solve(self, damping: float, g: Tensor) -> Solution:
        """Solves (C + (γ + η)I) x = g, or ((1 − α)(C + ηI) + αI) x = g in the convex form."""
        scale = 1.0
        if self.form == "convex":
            scale = 1.0 / (1.0 - damping)
            damping *= scale
        damping += self.model.weight_decay
        solution = self.solver.solve(self.curvature, damping, g, self.rule.radius)
        return replace(solution, x=solution.x * scale) if scale != 1.0 else solution

    def __str__(self) -> str:
        """Returns the parts, the options and how far it has come, a screen at most."""
        rule, given = self.rule, self._made_of[1]
        numbers = {"damping": self.damping, "radius": rule.radius, "learning rate": rule.lr}
        known = {name: f"{value:g}" for name, value in numbers.items() if value is not None}
        return summary(
            f"{type(self).__name__} of {self.model!r}",
            {
                "curvature": self.curvature,
                "solver": self.solver,
                "rule": rule,
                **known,
                "form": self.form,
                "sample": f"{self.sample:g} of a step's samples for curvature",
                "average": self.average,
                "noise": None if self.noise is None else "wiener",
                "batches": described(self._taken),
                "given": ", ".join(f"{name}={value!r}" for name, value in given.items()) or None,
                "steps": f"{self.steps}, {self.patience.rejected} refused in a row",
            },
        )

    def _parts(self) -> dict[str, Stateful]:
        """Returns everything that has a state of its own, by name."""
        parts: dict[str, Stateful] = {
            "curvature": self.curvature,
            "solver": self.solver,
            "rule": self.rule,
        }
        parts |= drawing(self.model)
        more: dict[str, Stateful | None] = {"average": self.average, "noise": self.noise}
        return parts | {name: part for name, part in more.items() if part is not None}

    def _state_spec(self) -> Mapping[str, Spec]:
        """Returns what a state must look like, for `state.check_state`."""
        specs: dict[str, Spec] = {
            "curvature": self.curvature.state_spec(),
            "solver": self.solver.state_spec(self.curvature),
            "rule": self.rule.state_spec(self.model),
            **drawing_spec(self.model),
        }
        if self.average is not None:
            specs["average"] = self.average.state_spec(self.model)
        if self.noise is not None:
            specs["noise"] = self.noise.state_spec(self.model)
        specs["generator"] = Random(self.generator)
        counts = dict.fromkeys(("rejected", "steps", "followed"), Number(int, 0))
        return {**specs, "damping": Number(float, 0.0), **counts}

    def state_dict(self) -> State:
        """Returns copies of all that the coming steps depend on, besides model and data.

        Raises:
            NewtritonError: a part's state is not what its `state_spec` says.
        """
        state: State = {name: p.state_dict() for name, p in self._parts().items()}
        state["generator"] = self.generator.get_state()
        counts = {"steps": self.steps, "followed": self.following.last}
        state |= {**counts, "damping": self.damping, "rejected": self.patience.rejected}
        return as_described(self._state_spec(), state)

    @checked
    @torch.inference_mode(False)
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave, bit for bit.

        Raises:
            NewtritonError: the state does not fit, in every way listed; nothing has changed.
        """
        state = check_state(self._state_spec(), state)
        self._retreat.forget()
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.generator.set_state(state["generator"].cpu().contiguous())
        self.damping, self.patience.rejected = state["damping"], state["rejected"]
        self.steps, self.following.last = state["steps"], state["followed"]


def _statistics(point: Linearization | Sampled) -> Sequence[Mapping[str, Tensor]]:
    """Returns the statistics of each batch of a step."""
    return point.statistics if isinstance(point, Sampled) else [point.statistics]


def _is_finite(proposal: Proposal) -> bool:
    """Whether a proposal's numbers are finite: along a direction that is not, they are not."""
    return math.isfinite(proposal.norm) and math.isfinite(proposal.predicted)


def _vanishes(direction: Tensor, gradient: Tensor) -> bool:
    """Whether a direction has come to nothing beside a gradient that is not small itself."""
    eps = torch.finfo(gradient.dtype).eps
    return largest_of(direction) < eps**2 * largest_of(gradient) and largest_of(gradient) > eps


def _worth(proposal: Proposal) -> float:
    """Returns the predicted decrease, 0 for a step uphill; −∞ for what is no number."""
    if not math.isfinite(proposal.predicted):
        return -math.inf
    return 0.0 if proposal.uphill else proposal.predicted

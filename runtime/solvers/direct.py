"""Direct solvers of (C + damping·I) x = g on blocks: each is factorised now and then, and kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ...compiler.graph.options import check_count, check_flag, check_option
from ..footprint import Allocations, Footprint
from ..parts.block import RETRIES, Block, BlockDiagonal, Damped, Factorisation, in_rounds
from ..parts.eigen import REFRESHES
from ..parts.protocols import Inverse, LinearSolver, Solution, Status, blocks_of, no_solution
from ..parts.state import Elsewhere, Maybe, Number, Spec, State, Undo, copied, held_attributes
from ..parts.tags import Tag
from ..reading import read

if TYPE_CHECKING:
    from ..parts.protocols import Curvature


@dataclass(frozen=True)
class FactorisedInverse:
    """The inverse of each damped block, from its factorisation.

    Attributes:
        blocks: what is inverted.
        kept: each layer's factorisation.
        dampings: each layer's damping.
        retries: how often a damping had to be raised.
    """

    blocks: BlockDiagonal
    kept: Mapping[str, Factorisation]
    dampings: Mapping[str, float]
    retries: int

    def solve(self, g: Tensor, radius: float | None = None) -> Solution:
        """Solves one matrix equation per layer, and returns x."""

        def solved(block: Block, m: Tensor) -> Tensor:
            return block.solve(self.kept[block.layer], self.dampings[block.layer], m)

        status = Status.DAMPING_RAISED if self.retries else Status.SOLVED
        return Solution(self.blocks.apply(g, solved), status, {"retries": self.retries})


@dataclass(frozen=True)
class NoInverse:
    """What stands for an inverse where a block could not be factorised at any damping."""

    def solve(self, g: Tensor, radius: float | None = None) -> Solution:
        """Returns zeros, and the status that says so."""
        return no_solution(g, Status.FAILED, retries=RETRIES)


class Direct(LinearSolver):
    """Factorises every block once in a while, and keeps the result until the next time.

    Args:
        every: refreshes of the curvature between two factorisations, ≥ 1; during the curvature's
            burn-in each refresh is followed by one.
        form: how the damping joins a block. Unless it is `Damped.WHOLE`, a factorisation is for
            one damping, and another damping asks for a new one.
        refines: whether eigenvectors are refined where there are some, not computed anew.
    """

    needs = frozenset({Tag.BLOCKS})

    def __init__(self, every: int, form: Damped, refines: bool = False) -> None:
        self.every, self.form, self.refines = check_count("every", every), form, refines
        self._kept: dict[str, Factorisation] = {}
        self._made_at = (-1, math.nan)  # refreshes of the curvature, damping
        self.factorisations = self.retries = 0

    def _is_due(self, blocks: BlockDiagonal, damping: float) -> bool:
        refreshes, made_for = self._made_at
        new = blocks.gathered - refreshes
        due = refreshes < 0 or new >= (1 if blocks.burning_in else self.every)
        return due or (self.form is not Damped.WHOLE and damping != made_for)

    def prepare(self, curvature: Curvature, damping: float) -> Inverse:
        """Factorises the blocks where that is due, and returns their inverse.

        Raises:
            NewtritonError: the curvature has no blocks, or no factors yet.
        """
        blocks, retries = blocks_of(curvature), 0
        if self._is_due(blocks, damping):
            self.factorisations += 1
            factorised = self._factorise(blocks, damping, self._kept if self.refines else {})
            made = _all_of(blocks, None if factorised is None else factorised[1])
            if factorised is None or made is None:
                return NoInverse()
            self._kept, retries = factorised[0], made
            self._made_at = (blocks.gathered, damping)
        empty = Factorisation(self.form)
        kept = {block.layer: self._kept.get(block.layer, empty) for block in blocks.held}
        raised = _raised(blocks, kept, damping)
        more = 0
        if self.form is Damped.WHOLE:
            more = _all_of(blocks, None if raised is None else sum(n for _, n in raised.values()))
        if raised is None or more is None:
            return NoInverse()
        retries += more
        self.retries += retries
        dampings = {layer: found for layer, (found, _) in raised.items()}
        return FactorisedInverse(blocks, kept, dampings, retries)

    @property
    def is_made(self) -> bool:
        """Whether there is a factorisation."""
        return bool(self._kept)

    def footprint(self, sketch: BlockDiagonal) -> Footprint:
        """Returns the bytes that a factorisation takes; nothing is computed.

        Args:
            sketch: the blocks, of tensors without memory.
        """
        with Allocations(lazily=True) as found:
            made = self._factorise(sketch, 1.0, {})
            footprint = found.footprint
        del made
        return footprint

    def _factorise(
        self, blocks: BlockDiagonal, damping: float, last: Mapping[str, Factorisation]
    ) -> tuple[dict[str, Factorisation], int] | None:
        """Returns what to keep of each layer, and how often damping was raised; None on failure."""
        all_made = in_rounds(
            [b.factorising(b.share(damping), self.form, last.get(b.layer)) for b in blocks.held]
        )
        made = [each for each in all_made if each is not None]
        if len(made) < len(all_made):
            return None
        kept = {
            block.layer: factorisation
            for block, (factorisation, _) in zip(blocks.held, made, strict=True)
            if factorisation.tensors
        }
        return kept, sum(retries for _, retries in made)

    def state_spec(self, curvature: Curvature) -> Mapping[str, Spec]:
        """Returns specifications of the factorisations, of what they were made for, of counts."""
        model = curvature.model
        views = model.layout.views(model.params)
        blocks = blocks_of(curvature)
        specs = {
            block.layer: block.factorisation_spec(self.form, views, model.dtype)
            for block in blocks.blocks
        }
        held = {block.layer for block in blocks.held}
        kept = {
            layer: spec if layer in held else Elsewhere() for layer, spec in specs.items() if spec
        }
        made_at = {"refreshes": Number(int), "damping": Number()}
        counts = {"factorisations": Number(int, 0), "retries": Number(int, 0)}
        return {"kept": Maybe(kept), "made_at": Maybe(made_at), **counts}

    def state_dict(self) -> State:
        """Returns the factorisations in use, and what they were made for."""
        refreshes, damping = self._made_at
        kept = {layer: copied(each.tensors) for layer, each in self._kept.items()}
        made_at = {"refreshes": refreshes, "damping": damping} if refreshes >= 0 else None
        counts = {"factorisations": self.factorisations, "retries": self.retries}
        return {"kept": kept, "made_at": made_at, **counts}

    def hold(self) -> Undo:
        """Returns what puts factorisations and counts back to what they are now."""
        return held_attributes(self, "_kept", "_made_at", "factorisations", "retries")

    def load_state_dict(self, state: State) -> None:
        """Restores what `state_dict` gave, bit for bit."""
        self._kept = {
            layer: Factorisation(self.form, tensors)
            for layer, tensors in copied(state["kept"]).items()
        }
        made_at = state["made_at"]
        self._made_at = (made_at["refreshes"], made_at["damping"]) if made_at else (-1, math.nan)
        self.factorisations, self.retries = state["factorisations"], state["retries"]


def _all_of(blocks: BlockDiagonal, retries: int | None) -> int | None:
    """Returns the retries on all ranks together; None where one of them found no damping."""
    found = [number for (number,) in blocks.agree(-1 if retries is None else retries)]
    return None if min(found) < 0 else int(sum(found))


def _raised(
    blocks: BlockDiagonal, kept: Mapping[str, Factorisation], damping: float
) -> dict[str, tuple[float, int]] | None:
    """Returns each layer's damping and how often it was raised; None where none serves."""
    extremes = {b: b.extremes(kept[b.layer], b.share(damping)) for b in blocks.held}
    found = {b: extreme for b, extreme in extremes.items() if extreme is not None}
    raised = {block.layer: (block.share(damping), 0) for block in blocks.held}
    for block, (lowest, largest) in zip(found, read(*found.values()), strict=True):
        enough = block.raise_damping(block.share(damping), float(lowest), float(largest))
        if enough is None:
            return None
        raised[block.layer] = enough
    return raised


class KFI(Direct):
    """The Kronecker-factored inverse (A + π√γ I)⁻¹ ⊗ (G + √γ/π I)⁻¹ by Cholesky factors.

    γ is the additive damping, weight decay included, and π = √[(tr A/dim A)/(tr G/dim G)] (Martens
    & Grosse 2015, section 6.3). A pair that is not positive definite is tried again with ten times
    the damping, and with no less than what rounding asks for. Where the mean of the inputs stands
    for A, its inverse is Sherman and Morrison's (EA-CG, eq. 13).

    Args:
        every: refreshes of the curvature between two factorisations, ≥ 1.
        pi: whether the damping is balanced by π; False adds γ to both factors, as FITRE's code
            does.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> optimizer = nt.SecondOrder(model, nt.KroneckerCurvature(model), nt.KFI(every=5))
        >>> report = optimizer.step(torch.eye(3), torch.arange(3))
        >>> report.accepted, optimizer.solver.factorisations
        (True, 1)
    """

    name = "kfi"

    def __init__(self, every: int = 1, pi: bool = True) -> None:
        self.pi = check_flag("pi", pi)
        super().__init__(every, Damped.BALANCED if pi else Damped.FACTORS)


class Eigen(Direct):
    """The exact (A ⊗ G + γI)⁻¹, by eigenvectors of both factors: four products a layer.

    A change of damping asks for no new factorisation. Where an eigenvalue of a damped block is not
    positive, the block's damping is raised tenfold until all are above rounding.

    Args:
        every: refreshes of the curvature between two factorisations, ≥ 1.
        basis: "eigh", or "qr" to take the eigenvectors F = U Λ Uᵀ once and then to refine them by
            U ← QR(F U), with diag(UᵀFU) for Λ (SOAP, Vyas et al. 2024): a basis near the
            eigenvectors, in which the part of F off the diagonal is left out. It is for
            devices on which "eigh" is slow beside products and QR; on a CPU it gains nothing.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> optimizer = nt.SecondOrder(model, nt.KroneckerCurvature(model), nt.Eigen(basis="qr"))
        >>> optimizer.step(torch.eye(3), torch.arange(3)).accepted
        True
    """

    name = "eigen"

    def __init__(self, every: int = 1, basis: str = "eigh") -> None:
        self.basis = check_option("basis", basis, REFRESHES)
        super().__init__(every, Damped.WHOLE, refines=basis == "qr")

"""EKFAC: the eigenbasis of a layer's factors, with the gradient's second moments in it.

With U_A and U_G the eigenvectors of the averages A and G, and S = E[(U_Gᵀ ∇W_n U_A)²] elementwise,
the block takes M to U_G [S ⊙ (U_Gᵀ M U_A)] U_Aᵀ (George et al. 2018). S is the diagonal of E[∇∇ᵀ]
in that basis: no other diagonal there is as close to it in the Frobenius norm, that of A ⊗ G, which
is λ_G λ_Aᵀ, included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from ..model.factors import EigenbasisFactors, Factors, KroneckerFactors
from ..model.moments import SampledFactors
from ..parts.block import Damped, Factorisation, Made, Rounds, Views, in_rounds
from ..parts.eigen import Symmetric
from ..parts.state import Shaped, Spec
from .kronecker_block import MatrixBlock

if TYPE_CHECKING:
    from ...compiler.curvature.blocks import KroneckerLayer

# The curvatures of this structure by name, and the kind of the factors that each gathers.
EKFAC = {"ekfac": "kfac", "ekfac-empirical": "empirical", "ekfac-kflr": "kflr"}


class EigenbasisBlock(MatrixBlock):
    """A block that is diagonal in the eigenbasis of a layer's factors.

    A factorisation keeps nothing: basis and moments are all that a solve needs, as they are now.

    Args:
        described: which parameters they are, and the layer's groups and taps.
        refines: whether a basis is refined by QR where there is one, not computed anew.
    """

    def __init__(self, described: KroneckerLayer, refines: bool) -> None:
        super().__init__(described)
        self.refines = refines

    @property
    def factors(self) -> EigenbasisFactors:
        """The averages A and G, the basis and the second moments in it."""
        mine, kernel = self.tensors, self.described.kernel
        bases = mine["basis_A"], mine["basis_G"]
        return EigenbasisFactors(mine["A"], mine["G"], *bases, mine["S"], kernel, self.homogeneous)

    def spec(self, views: Views, dtype: torch.dtype) -> Mapping[str, Spec]:
        """Returns the specification of A and U_A, D×D, of G and U_G, O×O, and of S, O×D."""
        lead, d, o = self.sizes(views)
        a, g, s = (Shaped((*lead, *shape), dtype) for shape in ((d, d), (o, o), (o, d)))
        return {"A": a, "G": g, "basis_A": a, "basis_G": g, "S": s}

    def average(self, new: Factors, weight: float) -> None:
        """Averages the factors and S in the basis that there is, see `averaging`."""
        in_rounds([self.averaging(new, weight, False)])

    def averaging(self, new: Factors, weight: float, anew: bool) -> Rounds[None]:
        """Averages the factors, then takes the basis anew if it is due, then averages S in it."""
        new = cast("SampledFactors", new)
        first = not self.is_filled
        if first:
            self._take(_in_identity(new.pair))
        else:
            super().average(new.pair, weight)
        mine, weight = self.tensors, 1.0 if first else weight
        if anew or first:
            known = mine if self.refines and not first else {}
            a, g = yield [Symmetric(mine[x], basis=known.get(f"basis_{x}")) for x in ("A", "G")]
            if a is not None and g is not None:  # otherwise the basis stays: any will do
                if weight < 1.0:  # otherwise nothing is left of S
                    mine["S"] = self._turned(a.vectors, g.vectors)
                mine["basis_A"], mine["basis_G"] = a.vectors, g.vectors
        moments = new.moments(mine["basis_A"], mine["basis_G"])
        yield []  # until every layer has its basis
        mine["S"] = torch.lerp(mine["S"], moments(), weight)

    def _turned(self, basis_a: Tensor, basis_g: Tensor) -> Tensor:
        """Returns S in another basis: the diagonal there of what the block is."""
        mine = self.tensors
        turn_a, turn_g = basis_a.mT @ mine["basis_A"], basis_g.mT @ mine["basis_G"]
        return turn_g.square_() @ mine["S"] @ turn_a.square_().mT

    def _in_basis(self, m: Tensor, factor: Tensor) -> Tensor:
        """Returns M with its elements in the basis multiplied by a factor each."""
        basis_a, basis_g = self.tensors["basis_A"], self.tensors["basis_G"]
        return basis_g @ ((basis_g.mT @ m @ basis_a) * factor) @ basis_a.mT

    @property
    def mean_diagonal(self) -> Tensor:
        """The mean of S: a trace is the same in every basis."""
        return self.tensors["S"].mean(dtype=torch.float64)

    def mv(self, m: Tensor) -> Tensor:
        """Returns the product U_G [S ⊙ (U_Gᵀ M U_A)] U_Aᵀ."""
        return self._in_basis(m, self.tensors["S"])

    def factorise(self, damping: float, form: Damped) -> Made:
        """Returns a factorisation without tensors."""
        return Factorisation(form), 0

    def extremes(self, factorisation: Factorisation, damping: float) -> Tensor | None:
        """Returns the extremes of the second moments where γ is 0; they are never negative."""
        return torch.stack(self.tensors["S"].aminmax()) if damping == 0.0 else None

    def raise_damping(
        self, damping: float, lowest: float, largest: float
    ) -> tuple[float, int] | None:
        """Raises γ above rounding where the lowest moment is not."""
        limits = torch.finfo(self.tensors["S"].dtype)
        floor = max(limits.eps * largest, limits.tiny)
        return (damping, 0) if lowest > floor else (10 * floor, 1)

    def solve(self, factorisation: Factorisation, damping: float, m: Tensor) -> Tensor:
        """Returns the solution U_G [(U_Gᵀ M U_A) / (S + γ)] U_Aᵀ, for every form of the damping."""
        return self._in_basis(m, (self.tensors["S"] + damping).reciprocal_())

    def factorisation_spec(
        self, form: Damped, views: Views, dtype: torch.dtype
    ) -> Mapping[str, Spec]:
        """Returns nothing to be checked: no tensors are kept."""
        return {}


def _in_identity(pair: KroneckerFactors) -> dict[str, Tensor]:
    """Returns the first averages, with the identity for a basis and S of zeros."""
    a, g = pair.tensors.values()
    basis_a, basis_g = (
        torch.eye(x.shape[-1], dtype=x.dtype, device=x.device).expand_as(x).clone() for x in (a, g)
    )
    moments = torch.zeros_like(g[..., :1]).expand(*g.shape[:-1], a.shape[-1]).clone()
    return {"A": a, "G": g, "basis_A": basis_a, "basis_G": basis_g, "S": moments}

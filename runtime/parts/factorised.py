"""One side of a Kronecker product plus a multiple of the identity, factorised once and applied.

A side is a symmetric matrix, or U Uᵀ of low rank given by its root U; either may have groups on a
leading axis. What a factorisation keeps are named tensors: they are saved as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..model.factors import KroneckerFactors, MeanFactors
from .state import OneOf, Shaped

Saved = dict[str, Tensor]
RANKS = (1, 2)  # of U Uᵀ where the mean of the inputs stands for A


def mean_diagonal(factors: KroneckerFactors | MeanFactors) -> tuple[Tensor, Tensor]:
    """Tr A/dim A and tr G/dim G, one per group, in float64."""
    if isinstance(factors, MeanFactors):
        root = factors.root.double()
        of_a = root.square().sum((-2, -1)) / root.shape[-2]
    else:
        of_a = _mean_diagonal(factors.A_stored)
    return of_a, _mean_diagonal(factors.G)


def _mean_diagonal(factor: Tensor) -> Tensor:
    return factor.diagonal(dim1=-2, dim2=-1).double().mean(-1)


def _cholesky(factor: Tensor, damping: Tensor) -> Tensor | None:
    """Lower Cholesky factor of factor + damping·I (one per group); None where it has none."""
    damped = factor.clone()
    damped.diagonal(dim1=-2, dim2=-1).add_(damping.to(factor.dtype).unsqueeze(-1))
    lower, info = torch.linalg.cholesky_ex(damped)
    return None if bool(info.any()) or not bool(torch.isfinite(lower).all()) else lower


def factorise(factors: KroneckerFactors | MeanFactors, on_a: Tensor, on_g: Tensor) -> Saved | None:
    """Cholesky factors of A + on_a·I and G + on_g·I; None where either has none.

    For A = U Uᵀ it is the small matrix on_a·I + UᵀU that is factorised (Woodbury; Sherman and
    Morrison where U is a column, EA-CG's eq. 13).
    """
    if (lower_g := _cholesky(factors.G, on_g)) is None:
        return None
    if isinstance(factors, KroneckerFactors):
        lower_a = _cholesky(factors.A_stored, on_a)
        return None if lower_a is None else {"A": lower_a, "G": lower_g}
    root = factors.root
    core = _cholesky(root.mT @ root, on_a)
    if core is None or not bool((on_a > 0).all()):
        return None
    damping = on_a.to(root.dtype).reshape(*on_a.shape, 1, 1)
    return {"root": root, "core": core, "damping": damping, "G": lower_g}


def factorised_spec(lead: tuple[int, ...], d: int, o: int, dtype: torch.dtype) -> OneOf:
    """What `factorise` keeps of factors D×D and O×O, for `state.check_state`."""
    g = {"G": Shaped((*lead, o, o), dtype)}
    low_rank = [
        {
            "root": Shaped((*lead, d, rank), dtype),
            "core": Shaped((*lead, rank, rank), dtype),
            "damping": Shaped((*lead, 1, 1), dtype),
        }
        for rank in RANKS
    ]
    return OneOf(({"A": Shaped((*lead, d, d), dtype), **g}, *({**k, **g} for k in low_rank)))


def solve(saved: Saved, m: Tensor) -> Tensor:
    """(G + …)⁻¹ M (A + …)⁻¹ from what `factorise` kept."""
    right = torch.cholesky_solve(m, saved["G"])
    if "A" in saved:
        return torch.cholesky_solve(right.mT, saved["A"]).mT
    root = saved["root"]
    inner = torch.cholesky_solve((right @ root).mT, saved["core"]).mT
    return (right - inner @ root.mT) / saved["damping"]


def diagonalise(factors: KroneckerFactors | MeanFactors) -> Saved | None:
    """Eigenvalues and orthonormal eigenvectors of both sides; for U Uᵀ only those of its range."""
    try:
        values_g, vectors_g = torch.linalg.eigh(factors.G)
        if isinstance(factors, KroneckerFactors):
            values_a, vectors_a = torch.linalg.eigh(factors.A_stored)
        else:
            vectors_a, singular, _ = torch.linalg.svd(factors.root, full_matrices=False)
            values_a = singular.square()
    except RuntimeError:  # torch.linalg.LinAlgError: no convergence, or values not finite
        return None
    saved = {"values_A": values_a, "A": vectors_a, "values_G": values_g, "G": vectors_g}
    return saved if all(bool(torch.isfinite(t).all()) for t in saved.values()) else None


def diagonalised_spec(lead: tuple[int, ...], d: int, o: int, dtype: torch.dtype) -> OneOf:
    """What `diagonalise` keeps of factors D×D and O×O, for `state.check_state`."""
    g = {"values_G": Shaped((*lead, o), dtype), "G": Shaped((*lead, o, o), dtype)}
    ranks = (d, *RANKS)
    of_a = (
        {"values_A": Shaped((*lead, r), dtype), "A": Shaped((*lead, d, r), dtype)} for r in ranks
    )
    return OneOf(tuple({**a, **g} for a in of_a))


def spectrum(saved: Saved) -> Tensor:
    """Eigenvalues of A ⊗ G, O×D in the eigenvectors' order; 0 is one more where A is singular."""
    return saved["values_G"].unsqueeze(-1) * saved["values_A"].unsqueeze(-2)


def solve_spectrum(saved: Saved, damping: float, m: Tensor) -> Tensor:
    """X of G X A + γX = M: four products, six where A has only its range."""
    vectors_a, vectors_g = saved["A"], saved["G"]
    turned = vectors_g.mT @ m @ vectors_a
    inside = vectors_g @ (turned / (spectrum(saved) + damping)) @ vectors_a.mT
    if vectors_a.shape[-2] == vectors_a.shape[-1]:
        return inside
    return inside + (m - (m @ vectors_a) @ vectors_a.mT) / damping

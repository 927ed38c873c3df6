"""Eigenvectors of many symmetric matrices: equal shapes in one call, failures in one transfer.

Where a basis is known already, it may be refined: one step of orthogonal iteration, two products
and a QR decomposition, takes it closer to the eigenvectors (SOAP, Vyas et al. 2024, algorithm 4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..reading import read
from .cholesky import LARGE, is_failure

REFRESHES = ("eigh", "qr")  # how eigenvectors are computed when they have been known before


class Symmetric(NamedTuple):
    """A symmetric matrix S that is to be diagonalised.

    Attributes:
        matrix: S, or a root R of S = R Rᵀ; one per group on a leading axis, if any.
        is_root: whether it is the root.
        basis: orthonormal vectors to be refined, or None for eigenvectors; a root has these.
    """

    matrix: Tensor
    is_root: bool = False
    basis: Tensor | None = None


class Spectrum(NamedTuple):
    """The eigenvalues and eigenvectors of a symmetric matrix, or Rayleigh quotients in a basis.

    Attributes:
        values: the eigenvalues or quotients; those of the range, where a root was given.
        vectors: the orthonormal eigenvectors, or the basis, in columns.
    """

    values: Tensor
    vectors: Tensor


def diagonalise(problems: Sequence[Symmetric]) -> list[Spectrum | None]:
    """Returns the spectrum of each matrix; None where one is not finite, or was not found.

    Examples:
        >>> import torch
        >>> from newtriton.runtime.parts.eigen import Symmetric, diagonalise
        >>> [found] = diagonalise([Symmetric(torch.diag(torch.tensor([3.0, 1.0])))])
        >>> found.values
        tensor([1., 3.])
    """
    if not problems:
        return []
    alike: dict[tuple[object, ...], list[int]] = {}
    for i, (matrix, is_root, basis) in enumerate(problems):
        alone = i if matrix.shape[-1] > LARGE else None
        key = matrix.shape, matrix.dtype, is_root, basis is None, alone
        alike.setdefault(key, []).append(i)
    spectra = [_spectra([problems[i] for i in places]) for places in alike.values()]
    extents = read(*map(_extents, spectra))
    result: list[Spectrum | None] = [None] * len(problems)
    for places, (values, vectors), found in zip(alike.values(), spectra, extents, strict=True):
        for i, *spectrum, extent in zip(places, values, vectors, found, strict=True):
            if math.isfinite(extent):  # copies: products round as addresses are aligned
                result[i] = Spectrum(*(x.clone() if len(places) > 1 else x for x in spectrum))
    return result


def _extents(spectrum: Spectrum) -> Tensor:
    """Returns a number for each matrix of a stack, which is finite where its spectrum is one.

    No element of orthonormal vectors exceeds 1: where one does, nothing was found.
    """
    values, vectors = (part.flatten(1).abs().amax(1) for part in spectrum)
    return torch.where(vectors < 2.0, values, math.nan)


def _spectra(problems: Sequence[Symmetric]) -> Spectrum:
    """Returns the spectra of matrices of one shape, stacked; NaN where one was not found."""
    matrices = torch.stack([problem.matrix for problem in problems])
    bases = [problem.basis for problem in problems if problem.basis is not None]
    try:
        if problems[0].is_root:
            return _of_roots(matrices)
        if bases:
            return _refined(matrices, torch.stack(bases))
        return Spectrum(*torch.linalg.eigh(matrices))
    except RuntimeError as error:  # no convergence, or values that are not finite
        if not is_failure(error):
            raise
        if len(problems) > 1:
            apart = [_spectra([problem]) for problem in problems]
            return Spectrum(*map(torch.cat, zip(*apart, strict=True)))
        rank = min(matrices.shape[-2:])
        vectors = torch.full_like(matrices[..., :rank], math.nan)
        return Spectrum(vectors[..., 0, :], vectors)


def _of_roots(roots: Tensor) -> Spectrum:
    """Returns the spectrum of R Rᵀ in the range of R, whose product is never formed."""
    vectors, singular, _ = torch.linalg.svd(roots, full_matrices=False)
    return Spectrum(singular.square(), vectors)


def _refined(matrices: Tensor, bases: Tensor) -> Spectrum:
    """Returns U ← QR(S U), columns of U by falling quotients uᵀSu, and the new quotients.

    In that order the leading columns span what converges first, whatever follows.
    """
    products = matrices @ bases
    order = (bases * products).sum(-2).argsort(-1, descending=True)
    vectors = torch.linalg.qr(products.gather(-1, order.unsqueeze(-2).expand_as(products))).Q
    return Spectrum((vectors * (matrices @ vectors)).sum(-2), vectors)

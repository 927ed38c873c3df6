"""Both edges of a symmetric operator's spectrum, by block Lanczos with full reorthogonalisation.

scipy's eigsh finds a Hessian's edges in as many products. At the zeros in which a Gauss–Newton
matrix ends it does not converge, its criterion being relative to each eigenvalue, and copies of a
multiple one it owes to rounding. Here residuals are measured by the largest eigenvalue, the width
of the block shows copies, one Krylov space serves both ends, and all stays on the model's device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from .tables import table

PASSES = 3  # of orthogonalisation; two suffice, one more for columns that were drawn anew


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues θ of a symmetric matrix A at both ends, from the outside inwards.

    Attributes:
        smallest: the k smallest, ascending.
        largest: the k largest, descending.
        smallest_residuals: ‖Av − θv‖ of the smallest, with unit vectors v.
        largest_residuals: ‖Av − θv‖ of the largest.
        products: how many products with A it took.
        converged: whether all residuals are within the tolerance.
        dtype: of the products.
    """

    smallest: tuple[float, ...]
    largest: tuple[float, ...]
    smallest_residuals: tuple[float, ...]
    largest_residuals: tuple[float, ...]
    products: int
    converged: bool
    dtype: torch.dtype = torch.float64

    def __str__(self) -> str:
        """Returns a table with a row for each pair of eigenvalues, and the state below."""
        rows = [["", "smallest", "residual", "largest", "residual"]]
        ends = (self.smallest, self.smallest_residuals, self.largest, self.largest_residuals)
        for i, (low, r_low, high, r_high) in enumerate(zip(*ends, strict=True), 1):
            rows.append([str(i), f"{low:.6g}", f"{r_low:.0e}", f"{high:.6g}", f"{r_high:.0e}"])
        state = f"converged after {self.products} products"
        if not self.converged:
            finer = "" if self.dtype is torch.float64 else "compile with dtype=torch.float64, "
            way = f"{finer}allow more products by limit=, or larger residuals by tolerance="
            state = f"not {state}: {way}"
        return f"{table(rows)}\n{state}"


def _extension(basis: Tensor, new: Tensor, generator: torch.Generator) -> Tensor:
    """Returns orthonormal columns outside `basis` that span what `new` adds.

    Where it adds nothing they are random.

    Args:
        basis: orthonormal columns, n×m.
        new: other columns, n×b with m + b ≤ n.
        generator: what random columns are drawn from.
    """
    eps = torch.finfo(new.dtype).eps
    for _ in range(PASSES):
        before = float(new.norm(dim=0).max())
        new, r = torch.linalg.qr(new - basis @ (basis.mT @ new))
        weak = r.diagonal().abs() <= 100 * eps * before
        new[:, weak] = _random(len(new), int(weak.sum()), new, generator)
    return new


def _random(n: int, columns: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Returns random columns of norm about 1, n×columns."""
    drawn = torch.randn(n, columns, generator=generator, dtype=like.dtype, device="cpu")
    return drawn.to(like.device) / n**0.5


def spectrum_edges(
    product: Callable[[Tensor], Tensor],
    like: Tensor,
    k: int,
    *,
    tolerance: float,
    limit: int,
    basis_size: int,
    seed: int = 0,
) -> Spectrum:
    """Finds the k smallest and k largest eigenvalues, multiple ones included.

    A block of k columns is multiplied again and again; Ritz values and residuals are those of the
    whole basis. A full basis is restarted from its outermost Ritz vectors, half as many as it has
    columns (Wu & Simon 2000), which loses nothing of what they are within the Krylov space.

    Args:
        product: the map v ↦ A v, symmetric.
        like: a vector of A's size n, dtype and device.
        k: how many eigenvalues at each end, at most n; also the width of the block, so that of a
            multiple eigenvalue k copies are seen.
        tolerance: the largest residual allowed, as a share of the largest |θ|.
        limit: the number of products after which to stop.
        basis_size: the number of columns kept, each with its product; raised to 8k.
        seed: the seed of the first block.

    Raises:
        NewtritonError: a product is not finite.
    """
    n, generator = len(like), torch.Generator("cpu").manual_seed(seed)
    size = min(n, max(basis_size, 8 * k))
    basis, image = like.new_empty(n, 0), like.new_empty(n, 0)
    block = _extension(basis, _random(n, k, like, generator), generator)
    products = 0
    while True:
        block_image = torch.stack([product(v) for v in block.unbind(1)], 1)
        products += block.shape[1]
        basis, image = torch.cat([basis, block], 1), torch.cat([image, block_image], 1)
        if basis.shape[1] < n:
            block = _extension(basis, block_image[:, : n - basis.shape[1]], generator)
        if basis.shape[1] + block.shape[1] <= size and products < limit:
            continue
        projected = basis.mT @ image
        if not bool(torch.isfinite(projected).all()):
            raise NewtritonError("a product was not finite: there are no eigenvalues")
        values, vectors = torch.linalg.eigh((projected + projected.mT) / 2)
        outer = torch.cat([vectors[:, :k], vectors[:, -k:].flip(1)], 1)
        theta = torch.cat([values[:k], values[-k:].flip(0)])
        residuals = (image @ outer - (basis @ outer) * theta).norm(dim=0)
        small = float(residuals.max()) <= tolerance * float(values.abs().max())
        converged = small or basis.shape[1] == n
        if converged or products >= limit:
            low, high = (tuple(x.tolist()) for x in theta.split(k))
            low_residuals, high_residuals = (tuple(x.tolist()) for x in residuals.split(k))
            ends = low, high, low_residuals, high_residuals
            return Spectrum(*ends, products, converged, like.dtype)
        outermost = torch.cat([vectors[:, : size // 4], vectors[:, -(size // 4) :]], 1)
        basis, image = basis @ outermost, image @ outermost

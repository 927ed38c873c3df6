"""Both edges of the spectrum of the Hessian or the Gauss–Newton matrix, at one linearization."""

from __future__ import annotations

from ...compiler.graph.calls import checked
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_count, check_number, check_seed
from ..aten.switches import switches
from ..model.linearized import Linearized
from .lanczos import Spectrum, spectrum_edges
from .matrices import TrainedMatrix


@checked
def spectrum(
    lin: Linearized,
    matrix: str = "hessian",
    k: int = 3,
    *,
    tolerance: float = 1e-5,
    limit: int = 1000,
    basis: int = 80,
    seed: int = 0,
) -> Spectrum:
    """Finds both ends of the spectrum of the Hessian or the Gauss–Newton matrix of h.

    Weight decay is in them, as in `hvp` and `ggnvp`, and frozen parameters are not. An eigenvalue
    is off by no more than its residual r, and by about r²/gap where it stands apart. The method is
    block Lanczos with thick restarts (Wu & Simon 2000).

    Args:
        lin: the point, and the batch or the data, see `LinearizedData`.
        matrix: "hessian" or "ggn".
        k: how many eigenvalues at each end; of a multiple one k copies are seen.
        tolerance: the largest residual allowed, as a share of the largest |θ|.
        limit: the number of products after which to stop.
        basis: the number of vectors kept, each with its product; at least 8k are.
        seed: the seed of the first vectors.

    Returns:
        the eigenvalues and their residuals; `print` shows them as a table.

    Raises:
        NewtritonError: an option is unknown or none that there can be, the loss has no Gauss–Newton
            matrix, or a product is not finite.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> model = nt.compile(nt.Linear(2, bias=False), input_shape=(1,), loss=nt.MSELoss())
        >>> lin = model.linearize(torch.full((4, 1), 3.0), torch.zeros(4, 2))
        >>> found = nt.spectrum(lin, k=2)  # of 2 x² I
        >>> found.converged, [round(value) for value in found.largest]
        (True, [18, 18])
    """
    a = TrainedMatrix(lin, matrix)
    k = check_count("k", k)
    if k > len(a):
        raise NewtritonError(f"k is {k}: the model has {len(a)} parameters that are trained")
    with switches(lin.model.device):
        return spectrum_edges(
            a,
            a.like,
            k,
            tolerance=check_number("tolerance", tolerance, 0.0, below=1.0),
            limit=check_count("limit", limit),
            basis_size=check_count("basis", basis),
            seed=check_seed(seed),
        )

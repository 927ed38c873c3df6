"""Errors of curvature approximations by layer, and edges of spectra, at one linearization.

Layers go by the prefix of their parameters' names, `0` for `0.weight` and `0.bias`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...compiler.curvature.factors import KINDS
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_count, check_number, check_option
from ...compiler.programs import MATRICES
from ..model.linearization import Linearization
from ..model.model import Model
from ..optimizers.registry import CURVATURES
from ..parts.matrix_free import MatrixFree
from ..parts.protocols import Curvature
from .lanczos import Spectrum, spectrum_edges
from .tables import table

OF = ("bias", "weight", "layer")
Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LayerErrors:
    """‖C_l − |H_l|‖_F by approximation and layer, see `layer_errors`.

    of: which parameters of a layer. norms: ‖|H_l|‖_F by layer. absolute: the errors.
    """

    of: str
    norms: Mapping[str, float]
    absolute: Mapping[str, Mapping[str, float]]

    @property
    def relative(self) -> dict[str, dict[str, float]]:
        """Errors as shares of the norms; NaN where a norm is 0."""
        return {
            name: {layer: _share(e, self.norms[layer]) for layer, e in errors.items()}
            for name, errors in self.absolute.items()
        }

    @property
    def totals(self) -> dict[str, float]:
        """Of all layers' blocks together: the root of the sum of squares."""
        return {name: math.hypot(*errors.values()) for name, errors in self.absolute.items()}

    def __str__(self) -> str:
        """Errors, each with its share of the norm; the last row is of all layers together."""
        total = math.hypot(*self.norms.values())
        rows = [[self.of, "‖|H|‖", *self.absolute]]
        for layer, norm in self.norms.items():
            rows.append(_row(shown(layer), norm, [e[layer] for e in self.absolute.values()]))
        return table([*rows, _row("total", total, list(self.totals.values()))])


def _row(name: str, norm: float, errors: Sequence[float]) -> list[str]:
    return [name, f"{norm:.2e}", *(f"{e:.2e} {_share(e, norm):5.0%}" for e in errors)]


def _share(error: float, norm: float) -> float:
    return error / norm if norm else math.nan


def layer_errors(
    lin: Linearization,
    approximations: Sequence[str] | Mapping[str, Curvature] | None = None,
    *,
    of: str = "bias",
    limit: int = 4096,
) -> LayerErrors:
    """‖C_l − |H_l|‖_F for every layer l (Chen, Chou & Chang 2018, Tables 2–5).

    H_l is the layer's block of the data term's Hessian, |H_l| has the absolute values of its
    eigenvalues, C_l is the same block of an approximation. Blocks are made by a product for each of
    their columns.

    Args:
        lin: the point and the batch.
        approximations: names, see `SecondOrder`, each made for this batch alone; or curvatures by
            names of your own, as they stand after their last update. By default all kinds of
            Kronecker factors that the loss has, and "ggn".
        of: "bias", the block of the layer's bias, as in the paper; "weight"; or "layer" for all of
            its parameters. Layers without are left out.
        limit: widest block that is made.

    Raises:
        NewtritonError: a block is wider than `limit`, or an option is unknown.
    """
    check_option("of", of, OF)
    check_count("limit", limit)
    layout = lin.model.layout
    chosen: dict[str, Tensor] = {}
    for layer, names in layout.layers.items():
        taken = [n for n in names if of in ("layer", n.rpartition(".")[2])]
        if taken:
            chosen[layer] = layout.places(taken).to(lin.model.device)
    if not chosen:
        raise NewtritonError(f"no layer has a {of}: use of='layer'")
    for layer, places in chosen.items():
        if len(places) > limit:
            raise NewtritonError(
                f"of={of!r} in layer {shown(layer)!r} has {len(places)} parameters, above the "
                f"limit of {limit}: raise it, or take of='bias' or a smaller network"
            )
    if approximations is None:
        approximations = [*filter(lin.programs.offers, (*KINDS, "ggn"))]
    if not isinstance(approximations, Mapping):
        approximations = {name: _made(lin, name) for name in approximations}
    hessian = updated(MatrixFree(lin.model, "hessian"), lin)
    norms: dict[str, float] = {}
    absolute: dict[str, dict[str, float]] = {name: {} for name in approximations}
    for layer, places in chosen.items():
        values, vectors = torch.linalg.eigh(_block(hessian.mv, places, lin.model))
        expected = (vectors * values.abs()) @ vectors.mT
        norms[layer] = float(expected.norm())
        for name, curvature in approximations.items():
            error = _block(curvature.mv, places, lin.model) - expected
            absolute[name][layer] = float(error.norm())
    return LayerErrors(of, norms, absolute)


def shown(layer: str) -> str:
    """A layer's name; that of a network of one layer is empty."""
    return layer or "(net)"


def _made(lin: Linearization, name: str) -> Curvature:
    """The named curvature of this batch alone."""
    check_option("curvature", name, tuple(CURVATURES))
    return updated(CURVATURES[name](lin.model), lin)


def updated(curvature: Curvature, lin: Linearization) -> Curvature:
    """The curvature, moved to `lin`; an error where it is not finite there."""
    if not curvature.update(lin):
        raise NewtritonError(f"the curvature {curvature.name!r} is not finite at these parameters")
    return curvature


def _block(product: Product, places: Tensor, model: Model) -> Tensor:
    """The rows and columns `places` of a symmetric operator."""
    columns = torch.empty(len(places), len(places), dtype=model.dtype, device=model.device)
    for column, place in enumerate(places.tolist()):
        unit = torch.zeros_like(model.params)
        unit[place] = 1.0
        columns[:, column] = product(unit)[places]
    if not bool(torch.isfinite(columns).all()):
        raise NewtritonError("the curvature is not finite at these parameters")
    return (columns + columns.mT) / 2


def spectrum(
    lin: Linearization,
    matrix: str = "hessian",
    k: int = 3,
    *,
    tolerance: float = 1e-5,
    limit: int = 1000,
    basis: int = 80,
    seed: int = 0,
) -> Spectrum:
    """The k smallest and k largest eigenvalues of the Hessian or the Gauss–Newton matrix of h.

    Weight decay is in them, as in `hvp` and `ggnvp`. An eigenvalue is off by no more than its
    residual r, and by about r²/gap where it stands apart.

    Args:
        lin: the point and the batch.
        matrix: "hessian" or "ggn".
        k: how many at each end; of a multiple eigenvalue k copies are seen.
        tolerance: of the residuals, as a share of the largest |θ|.
        limit: products after which to stop.
        basis: vectors kept, each with its product; at least 8k are.
        seed: of the first vectors.
    """
    check_option("matrix", matrix, MATRICES)
    if check_count("k", k) > lin.model.layout.numel:
        raise NewtritonError(f"k is {k}: the model has {lin.model.layout.numel} parameters")
    return spectrum_edges(
        lin.hvp if matrix == "hessian" else lin.ggnvp,
        lin.model.params,
        k,
        tolerance=check_number("tolerance", tolerance, 0.0, below=1.0),
        limit=check_count("limit", limit),
        basis_size=check_count("basis", basis),
        seed=seed,
    )

"""What papers print of a curvature: its errors by layer, its updates' alignment, spectrum edges.

All of it is of the matrices at one linearization. Layers go by the prefix of their parameters'
names, `0` for `0.weight` and `0.bias`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compiler.errors import NewtritonError
from ..compiler.factors import KINDS
from ..compiler.programs import CURVATURES as MATRICES
from .checks import check_count, check_number, check_option
from .combinations import check_combination
from .conjugate_gradients import Stop, conjugate_gradients
from .lanczos import Spectrum, spectrum_edges
from .linearization import Linearization
from .matrix_free import MatrixFree
from .model import Model
from .named import CURVATURES, parts
from .parts import Curvature
from .tables import table
from .vectors import inner

OF = ("bias", "weight", "layer")
EXACT_BLOCKS = "exact, by layer"
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
            rows.append(_row(_shown(layer), norm, [e[layer] for e in self.absolute.values()]))
        return table([*rows, _row("total", total, list(self.totals.values()))])


def _row(name: str, norm: float, errors: Sequence[float]) -> list[str]:
    return [name, f"{norm:.2e}", *(f"{e:.2e} {_share(e, norm):5.0%}" for e in errors)]


def _share(error: float, norm: float) -> float:
    return error / norm if norm else math.nan


def layer_errors(
    lin: Linearization,
    approximations: Sequence[str] | Mapping[str, Curvature] = (*KINDS, "ggn"),
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
            names of your own, as they stand after their last update.
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
            chosen[layer] = torch.cat([torch.arange(layout.numel)[layout.slices[n]] for n in taken])
    if not chosen:
        raise NewtritonError(f"no layer has a {of}: use of='layer'")
    for layer, places in chosen.items():
        if len(places) > limit:
            raise NewtritonError(
                f"of={of!r} in layer {_shown(layer)!r} has {len(places)} parameters, above the "
                f"limit of {limit}: raise it, or take of='bias' or a smaller network"
            )
    if not isinstance(approximations, Mapping):
        approximations = {name: _made(lin, name) for name in approximations}
    hessian = _updated(MatrixFree(lin.model, "hessian"), lin)
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


def _made(lin: Linearization, name: str) -> Curvature:
    """The named curvature of this batch alone."""
    check_option("curvature", name, tuple(CURVATURES))
    return _updated(CURVATURES[name](lin.model), lin)


def _updated(curvature: Curvature, lin: Linearization) -> Curvature:
    if not curvature.update(lin):
        raise NewtritonError(f"the curvature {curvature.name!r} is not finite at these parameters")
    return curvature


def _block(product: Product, places: Tensor, model: Model) -> Tensor:
    """The rows and columns `places` of a symmetric operator."""
    places = places.to(model.device)
    columns = torch.empty(len(places), len(places), dtype=model.dtype, device=model.device)
    for column, place in enumerate(places.tolist()):
        unit = torch.zeros_like(model.params)
        unit[place] = 1.0
        columns[:, column] = product(unit)[places]
    if not bool(torch.isfinite(columns).all()):
        raise NewtritonError("the curvature is not finite at these parameters")
    return (columns + columns.mT) / 2


@dataclass(frozen=True)
class Alignment:
    """Cosines of updates with exact Gauss–Newton updates, see `alignment`.

    damping: γ. whole: by update, with that of the whole matrix; "exact, by layer" is that of the
    block diagonal. layers: by update and layer, with the layer's own exact update.
    residuals: ‖(G + (γ+λ)I)d + g‖/‖g‖ of the exact ones, "whole" and by layer.
    """

    damping: float
    whole: Mapping[str, float]
    layers: Mapping[str, Mapping[str, float]]
    residuals: Mapping[str, float]

    def __str__(self) -> str:
        rows = [["cosine with exact GN", *self.whole, "residual"]]
        for layer in next(iter(self.layers.values())):
            cosines = [by_layer[layer] for by_layer in self.layers.values()]
            rows.append(
                [_shown(layer), *(f"{c:.4f}" for c in cosines), f"{self.residuals[layer]:.0e}"]
            )
        cosines = [f"{c:.4f}" for c in self.whole.values()]
        return table([*rows, ["whole", *cosines, f"{self.residuals['whole']:.0e}"]])


def alignment(
    lin: Linearization,
    updates: Sequence[str] | Mapping[str, Curvature | Tensor] = KINDS,
    *,
    solver: str = "kfi",
    damping: float = 1e-2,
    tolerance: float = 1e-8,
    limit: int = 2000,
) -> Alignment:
    """Cosines of updates with d = −(G + (γ+λ)I)⁻¹g (Botev, Ritter & Barber 2017, figures 5–7).

    A layer's part of an update is compared with the exact one of the layer's own diagonal block,
    the whole with that of the whole matrix; both are found by conjugate gradients.

    Args:
        lin: the point and the batch.
        updates: names of curvatures, see `SecondOrder`, solved with `solver`; or by names of your
            own curvatures that have been updated, and flat vectors, which count as updates s.
        solver: its name, see `SecondOrder`.
        damping: γ, of the exact updates and of the solver's.
        tolerance: of the exact updates' residuals.
        limit: iterations for each of them; the residuals say what was reached.
    """
    damping = check_number("damping", damping, 0.0)
    model, layout, g = lin.model, lin.model.layout, lin.gradient
    strength, stop = damping + model.weight_decay, Stop(limit, tolerance)
    ggn = _updated(MatrixFree(model, product="r-operator"), lin)

    def exact(names: Sequence[str]) -> tuple[Tensor, float]:
        """The update of the parameters `names` alone, and its residual."""
        mask = torch.zeros_like(g)
        for name in names:
            mask[layout.slices[name]] = 1.0
        b = mask * g

        def product(v: Tensor) -> Tensor:
            return ggn.mv(v).add_(v, alpha=strength).mul_(mask)

        x = conjugate_gradients(product, b, stop).x
        norm = float(b.norm())
        return -x, float((product(x) - b).norm()) / norm if norm else 0.0

    found = {layer: exact(names) for layer, names in layout.layers.items()}
    whole, residual = exact(list(layout.slices))
    blocks = torch.stack([d for d, _ in found.values()]).sum(0)
    steps = {**_steps(lin, updates, solver, strength), EXACT_BLOCKS: blocks}
    layers = {
        name: {
            layer: _cosine(
                *(torch.cat([v[layout.slices[n]] for n in names]) for v in (step, blocks))
            )
            for layer, names in layout.layers.items()
        }
        for name, step in steps.items()
    }
    return Alignment(
        damping,
        {name: _cosine(step, whole) for name, step in steps.items()},
        layers,
        {**{layer: r for layer, (_, r) in found.items()}, "whole": residual},
    )


def _steps(
    lin: Linearization,
    updates: Sequence[str] | Mapping[str, Curvature | Tensor],
    solver: str,
    strength: float,
) -> dict[str, Tensor]:
    """The updates as flat vectors."""
    given = updates if isinstance(updates, Mapping) else {name: name for name in updates}
    steps: dict[str, Tensor] = {}
    for name, update in given.items():
        if isinstance(update, Tensor):
            steps[name] = lin.model.layout.check(update, f"the update {name!r}")
            continue
        curvature, by, rule = parts(lin.model, update, solver, "trust-region", strength)
        check_combination(curvature, by, rule, "additive")
        if isinstance(update, str):
            _updated(curvature, lin)
        solution = by.solve(curvature, strength, lin.gradient)
        if solution.status.failed:
            raise NewtritonError(f"the update {name!r}: {solution.status.value}")
        steps[name] = -solution.x
    return steps


def _cosine(u: Tensor, v: Tensor) -> float:
    """⟨u, v⟩/(‖u‖‖v‖); NaN where either is zero."""
    norms = math.sqrt(inner(u, u) * inner(v, v))
    return inner(u, v) / norms if norms else math.nan


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
    tolerance = check_number("tolerance", tolerance, 0.0, below=1.0)
    sizes = check_count("limit", limit), check_count("basis", basis)
    return spectrum_edges(
        lin.hvp if matrix == "hessian" else lin.ggnvp,
        lin.model.params,
        k,
        tolerance=tolerance,
        limit=sizes[0],
        basis_size=sizes[1],
        seed=seed,
    )


def _shown(layer: str) -> str:
    """A layer's name; that of a network of one layer is empty."""
    return layer or "(net)"

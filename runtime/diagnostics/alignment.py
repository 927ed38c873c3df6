"""How well updates agree with exact Gauss–Newton updates, by layer and as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...compiler.curvature.factors import KINDS
from ...compiler.graph.calls import checked
from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.options import check_mapping, check_names, check_number
from ..curvatures.matrix_free import MatrixFree
from ..model.linearized import Linearized
from ..optimizers.combinations import check_combination
from ..optimizers.registry import resolve
from ..parts.protocols import Curvature
from ..solvers.cg import Stop, conjugate_gradients
from ..vectors import System, inner
from .errors import shown, updated
from .linearized_data import check_linearized
from .tables import table

EXACT_BLOCKS = "exact, by layer"


@dataclass(frozen=True)
class Alignment:
    """What `alignment` found: cosines of updates with exact Gauss–Newton updates.

    Attributes:
        damping: γ of the exact updates.
        whole: cosines with the exact update of the whole matrix, by update; "exact, by layer" is
            the update of the block diagonal.
        layers: cosines of a layer's part with the layer's own exact update, by update and layer.
        residuals: ‖(G + (γ+λ)I)d + g‖/‖g‖ of the exact updates d, by layer and for "whole".
    """

    damping: float
    whole: Mapping[str, float]
    layers: Mapping[str, Mapping[str, float]]
    residuals: Mapping[str, float]

    def __str__(self) -> str:
        """Returns a table with a row for each layer and the whole at the end."""
        rows = [["cosine with exact GN", *self.whole, "residual"]]
        for layer, residual in self.residuals.items():
            cosines = [
                whole if layer == "whole" else self.layers[name][layer]
                for name, whole in self.whole.items()
            ]
            rows.append([shown(layer), *(f"{c:.4f}" for c in cosines), f"{residual:.0e}"])
        return table(rows)


@checked
def alignment(
    lin: Linearized,
    updates: Sequence[str] | Mapping[str, Curvature | Tensor] | None = None,
    *,
    solver: str = "kfi",
    damping: float = 1e-2,
    tolerance: float = 1e-8,
    limit: int = 2000,
) -> Alignment:
    """Computes cosines of updates with d = −(G + (γ+λ)I)⁻¹g, the exact Gauss–Newton update.

    G is the data term's Gauss–Newton matrix, g the gradient of h, λ the model's weight decay
    (Botev, Ritter & Barber 2017, figures 5–7).

    A layer's part of an update is compared with the exact one of the layer's own diagonal block,
    the whole with that of the whole matrix; both are found by conjugate gradients.

    Args:
        lin: the point, and the batch or the data, see `LinearizedData`.
        updates: names of curvatures, see `SecondOrder`, solved with `solver`; or by names of your
            own curvatures that have been updated, and flat vectors, which count as updates s. By
            default all kinds of Kronecker factors that the loss has.
        solver: the name of the solver, see `SecondOrder`.
        damping: γ ≥ 0 of the exact updates and of the solver's.
        tolerance: the residual at which an exact update is good enough.
        limit: the number of iterations for each of them; the residuals say what was reached.

    Returns:
        the cosines; `print` shows them as a table.

    Raises:
        NewtritonError: an option is unknown or none that there can be, a curvature does not go with
            the solver or is not finite, or the loss has no Gauss–Newton matrix.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> model = nt.compile(nt.Linear(2), (3,), nt.CrossEntropyLoss(), dtype=torch.float64)
        >>> x = torch.eye(3, dtype=torch.float64)
        >>> lin = model.linearize(x[:1], torch.tensor([0]))
        >>> found = nt.alignment(lin, ("kflr",), solver="eigen", damping=0.1)
        >>> round(found.whole["kflr"], 6)  # one sample of a linear network: the factors are exact
        1.0
    """
    check_linearized(lin)
    damping = check_number("damping", damping, 0.0)
    model, layout, g = lin.model, lin.model.layout, lin.gradient
    strength, stop = damping + model.weight_decay, Stop(limit, tolerance)
    ggn = updated(MatrixFree(model, product="r-operator"), lin)

    def exact(places: Tensor) -> tuple[Tensor, float]:
        """Returns the update of the elements at `places` alone, and its residual."""
        mask = torch.zeros_like(g)
        mask[places] = 1.0
        b = mask * g

        def product(v: Tensor) -> Tensor:
            return ggn.mv(v).add_(v, alpha=strength).mul_(mask)

        x = conjugate_gradients(product, System(b), stop, model.vectors).x
        norm = float(b.norm())
        return -x, float((product(x) - b).norm()) / norm if norm else 0.0

    layers = model.layers.items()
    places = {layer: layout.places(names).to(g.device) for layer, names in layers}
    found = {layer: exact(at) for layer, at in places.items()}
    whole, residual = exact(torch.arange(layout.numel, device=g.device))
    blocks = torch.stack([d for d, _ in found.values()]).sum(0)
    if updates is None:
        updates = [*filter(lin.programs.offers, KINDS)]
    steps = {**_steps(lin, updates, solver, strength), EXACT_BLOCKS: blocks}
    cosines = {
        name: {layer: _cosine(step[at], blocks[at]) for layer, at in places.items()}
        for name, step in steps.items()
    }
    return Alignment(
        damping,
        {name: _cosine(step, whole) for name, step in steps.items()},
        cosines,
        {**{layer: r for layer, (_, r) in found.items()}, "whole": residual},
    )


def _steps(
    lin: Linearized,
    updates: Sequence[str] | Mapping[str, Curvature | Tensor],
    solver: str,
    strength: float,
) -> dict[str, Tensor]:
    """Returns the updates as flat vectors, by name."""
    if isinstance(updates, Mapping):
        given: Mapping[str, Curvature | Tensor | str] = check_mapping("updates", updates)
    else:
        given = {name: name for name in check_names("updates", updates)}
    steps: dict[str, Tensor] = {}
    for name, update in given.items():
        if isinstance(update, Tensor):
            steps[name] = lin.model.layout.check(update, f"the update {quoted(name)}")
            continue
        curvature, by, rule = resolve(lin.model, update, solver, "trust-region", strength)
        check_combination(curvature, by, rule, "additive", lin.model.criterion)
        if isinstance(update, str):
            updated(curvature, lin)
        solution = by.solve(curvature, strength, lin.gradient)
        if solution.status.failed:
            raise NewtritonError(f"the update {quoted(name)}: {solution.status.value}")
        steps[name] = -solution.x
    return steps


def _cosine(u: Tensor, v: Tensor) -> float:
    """Returns ⟨u, v⟩/(‖u‖‖v‖); NaN where either is zero."""
    norms = math.sqrt(inner(u, u) * inner(v, v))
    return inner(u, v) / norms if norms else math.nan

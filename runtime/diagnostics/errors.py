"""Errors of curvature approximations by layer, at one linearization.

Layers go by the prefix of their parameters' names, `0` for `0.weight` and `0.bias`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...compiler.curvature.factors import KINDS
from ...compiler.graph.calls import checked
from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.options import check_count, check_mapping, check_names, check_option
from ..aten.switches import switches
from ..curvatures.matrix_free import MatrixFree
from ..model.linearized import Linearized
from ..optimizers.registry import CURVATURES
from ..parts.protocols import Curvature, check_curvature
from .linearized_data import check_linearized
from .tables import table

OF = ("bias", "weight", "layer")
Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LayerErrors:
    """What `layer_errors` found.

    Attributes:
        of: which parameters of a layer the blocks belong to.
        norms: ‖|H_l|‖_F by layer l.
        absolute: the errors ‖C_l − |H_l|‖_F by approximation C and layer l.
    """

    of: str
    norms: Mapping[str, float]
    absolute: Mapping[str, Mapping[str, float]]

    @property
    def relative(self) -> dict[str, dict[str, float]]:
        """The errors as shares of the norms; NaN where a norm is 0."""
        return {
            name: {layer: _share(e, self.norms[layer]) for layer, e in errors.items()}
            for name, errors in self.absolute.items()
        }

    @property
    def totals(self) -> dict[str, float]:
        """The errors of all layers' blocks together, by approximation."""
        return {name: math.hypot(*errors.values()) for name, errors in self.absolute.items()}

    def __str__(self) -> str:
        """Returns a table of the errors and their shares of the norms, with totals at the end."""
        total = math.hypot(*self.norms.values())
        rows = [[self.of, "‖|H|‖", *self.absolute]]
        for layer, norm in self.norms.items():
            rows.append(_row(shown(layer), norm, [e[layer] for e in self.absolute.values()]))
        return table([*rows, _row("total", total, list(self.totals.values()))])


def _row(name: str, norm: float, errors: Sequence[float]) -> list[str]:
    """Returns a row of the table."""
    return [name, f"{norm:.2e}", *(f"{e:.2e} {_share(e, norm):5.0%}" for e in errors)]


def _share(error: float, norm: float) -> float:
    """Returns error/norm, NaN where the norm is 0."""
    return error / norm if norm else math.nan


@checked
def layer_errors(
    lin: Linearized,
    approximations: Sequence[str] | Mapping[str, Curvature] | None = None,
    *,
    of: str = "bias",
    limit: int = 4096,
) -> LayerErrors:
    """Computes ‖C_l − |H_l|‖_F for every layer l (Chen, Chou & Chang 2018, Tables 2–5).

    H_l is the layer's block of the data term's Hessian, |H_l| has the absolute values of its
    eigenvalues, C_l is the same block of an approximation. Of the Hessian and of Gauss–Newton
    matrices only what lies above a layer is worked through, see `Linearization.block`.

    Args:
        lin: the point, and the batch or the data, see `LinearizedData`.
        approximations: names, see `SecondOrder`, each made for this batch alone; or curvatures by
            names of your own, as they stand after their last update. By default all kinds of
            Kronecker factors that the loss has, and "ggn".
        of: "bias", the block of the layer's bias, as in the paper; "weight"; or "layer" for all of
            its parameters. Layers without such parameters are left out.
        limit: the widest block that is made.

    Returns:
        the errors and norms by layer; `print` shows them as a table.

    Raises:
        NewtritonError: a block is wider than `limit`, an option is unknown, no layer has such
            parameters, or a curvature is not finite.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> train, test = nt.digits()
        >>> net = nt.models.mlp((8,))
        >>> model = nt.compile(net, (1, 8, 8), nt.CrossEntropyLoss(), dtype=torch.float64)
        >>> lin = model.linearize(test.x[:32].double(), test.y[:32])
        >>> errors = nt.layer_errors(lin, ("kflr", "ggn"))
        >>> list(errors.norms), errors.relative["kflr"]["3"] < 1e-12  # exact for the last bias
        (['1', '3'], True)
    """
    check_linearized(lin)
    check_option("of", of, OF)
    limit = check_count("limit", limit)
    layout = lin.model.layout
    chosen: dict[str, list[str]] = {}
    for layer, names in lin.model.layers.items():
        taken = [n for n in names if of in ("layer", n.rpartition(".")[2])]
        if taken:
            chosen[layer] = taken
    if not chosen:
        raise NewtritonError(f"no layer has a {of}: use of='layer'")
    for layer, names in chosen.items():
        if (size := len(layout.places(names))) > limit:
            raise NewtritonError(
                f"of={of!r} in layer {shown(layer)!r} has {size} parameters, above the "
                f"limit of {limit}: raise it, or take of='bias' or a smaller network"
            )
    if approximations is None:
        approximations = [*filter(lin.programs.offers, (*KINDS, "ggn"))]
    if isinstance(approximations, Mapping):
        approximations = check_mapping("approximations", approximations)
        for name, curvature in approximations.items():
            check_curvature(f"the approximation {quoted(name)}", curvature)
    else:
        names = check_names("approximations", approximations)
        approximations = {name: _made(lin, name) for name in names}
    hessian = updated(MatrixFree(lin.model, "hessian"), lin)
    norms: dict[str, float] = {}
    absolute: dict[str, dict[str, float]] = {name: {} for name in approximations}
    for layer, names in chosen.items():
        with switches(lin.model.device):
            values, vectors = torch.linalg.eigh(_block(hessian, names))
            expected = (vectors * values.abs()) @ vectors.mT
            norms[layer] = float(expected.norm())
            for name, curvature in approximations.items():
                absolute[name][layer] = float((_block(curvature, names) - expected).norm())
    return LayerErrors(of, norms, absolute)


def shown(layer: str) -> str:
    """Returns a layer's name as tables have it; that of a network of one layer is empty."""
    return layer or "(net)"


def _made(lin: Linearized, name: str) -> Curvature:
    """Returns the named curvature of this batch alone."""
    check_option("curvature", name, tuple(CURVATURES))
    return updated(CURVATURES[name](lin.model), lin)


def updated(curvature: Curvature, lin: Linearized) -> Curvature:
    """Updates the curvature at `lin` and returns it.

    Raises:
        NewtritonError: it is not finite there.
    """
    if not curvature.update(lin):
        raise NewtritonError(f"the curvature {curvature.name!r} is not finite at these parameters")
    return curvature


def _block(curvature: Curvature, names: Sequence[str]) -> Tensor:
    """Returns the rows and columns of a curvature that belong to a layer's parameters.

    Raises:
        NewtritonError: they are not finite.
    """
    model = curvature.model
    places = model.layout.places(names).to(model.device)
    if isinstance(curvature, MatrixFree) and curvature.lin is not None:
        columns = curvature.lin.block(names, curvature.kind)
    elif curvature.blocks is not None:
        columns = curvature.blocks.submatrix(places, model.params)
    else:
        columns = _columns(curvature.mv, places, model.params)
    if not bool(torch.isfinite(columns).all()):
        raise NewtritonError("the curvature is not finite at these parameters")
    return (columns + columns.mT) / 2


def _columns(product: Product, places: Tensor, like: Tensor) -> Tensor:
    """Returns the rows and columns `places` of an operator, by a product for each column."""
    columns = []
    for place in places.tolist():
        unit = torch.zeros_like(like)
        unit[place] = 1.0
        columns.append(product(unit)[places])
    return torch.stack(columns, 1)

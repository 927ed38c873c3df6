"""The density of a spectrum by stochastic Lanczos quadrature."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...compiler.graph.calls import checked
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import (
    check_count,
    check_members,
    check_number,
    check_option,
    check_seed,
)
from ...compiler.programs import MATRICES
from ..aten.switches import switches
from ..charting.saving import save
from ..charting.spectra import draw_spectra, picture
from ..disk import read_json, unwritable
from ..model.linearized import Linearized
from ..paths import path_of
from .matrices import TrainedMatrix, signs
from .tables import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

REACH = 6.0  # standard deviations beyond the outermost nodes, where a Gaussian has ended
BINS = 12  # rows of the table
REST = {"products": int, "exact": bool, "matrix": str}  # of what is saved


@dataclass(frozen=True)
class Density:
    """What `density` found: φ(t) = mean over v of Σ_i w_i N(t; θ_i, σ²), which integrates to 1.

    Attributes:
        nodes: θ, a row for each random vector v; the eigenvalues where they are exact.
        weights: w, likewise; each row sums to 1.
        width: σ, the standard deviation of a Gaussian.
        products: how many products with the matrix it took.
        exact: whether the nodes are all eigenvalues.
        matrix: "hessian" or "ggn".
    """

    nodes: Tensor
    weights: Tensor
    width: float
    products: int
    exact: bool
    matrix: str = "hessian"

    @property
    def range(self) -> tuple[float, float]:
        """The interval outside of which there is nothing."""
        beyond = REACH * self.width
        return float(self.nodes.min()) - beyond, float(self.nodes.max()) + beyond

    def grid(self, points: int = 1000) -> Tensor:
        """Returns points at equal distances over the range, at which to look at the density."""
        return torch.linspace(*self.range, check_count("points", points, 2), dtype=torch.float64)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the density at points t, and its standard error, which is 0 where it is exact."""
        scale = self.width * math.sqrt(2.0 * math.pi)
        z = (t.double().reshape(-1, 1, 1) - self.nodes) / self.width
        return _mean((self.weights * torch.exp(-0.5 * z.square()) / scale).sum(2), t.shape)

    def share(self, low: float, high: float) -> tuple[float, float]:
        """Returns the share of the spectrum in an interval, and its standard error."""
        ends = torch.tensor([low, high], dtype=torch.float64).reshape(-1, 1, 1)
        below = torch.special.ndtr((ends - self.nodes) / self.width)
        share, error = _mean((self.weights * (below[1] - below[0])).sum(1)[None], torch.Size())
        return float(share), float(error)

    def plot(self, path: str | Path | None = None, axes: Axes | None = None) -> Figure | SubFigure:
        """Draws the density on a logarithmic axis, in the style of reports.

        Args:
            path: where to save the picture (the ending chooses the format); None saves nothing.
            axes: Matplotlib's axes to draw on, in a figure of yours; None makes a figure.

        Returns:
            Matplotlib's figure; what is made here belongs to no window.

        Raises:
            NewtritonError: the file cannot be written, has an unknown ending, or is given with
                axes, whose figure is yours to save.
        """
        file = None if path is None else path_of("path", path, "file")
        if axes is not None:
            if file is not None:
                raise NewtritonError("path goes without axes: save the figure that they are in")
            drawn = check_members("axes", axes, ("plot", "set_yscale"), "Matplotlib's axes")
            draw_spectra(drawn, [self])
            return drawn.figure
        figure = picture([self])
        if file is not None:
            save(figure, file)
        return figure

    def save(self, path: str | Path) -> None:
        """Writes it into a file of JSON: `spectrum.json` in the folder of a run is in its report.

        Raises:
            NewtritonError: the file cannot be written.
        """
        path = path_of("path", path, "file")
        numbers = {"nodes": self.nodes.tolist(), "weights": self.weights.tolist()}
        try:
            path.write_text(json.dumps(vars(self) | numbers) + "\n", encoding="utf-8")
        except OSError as error:
            raise unwritable(path, error) from error

    @classmethod
    def load(cls, path: str | Path) -> Density:
        """Reads what `save` wrote.

        Raises:
            NewtritonError: the file is another one.
        """
        path = path_of("path", path, "file")
        try:
            found = dict(read_json(path))
            nodes, weights = (_matrix(found.pop(name)) for name in ("nodes", "weights"))
            check_option("matrix", found["matrix"], tuple(MATRICES))
            number = check_number("width", found["width"], above=0.0)
            if nodes.shape != weights.shape or found.keys() != {"width", *REST}:
                raise ValueError("its parts do not fit together")
            rest = {name: kind(found[name]) for name, kind in REST.items()}
            return cls(nodes, weights, number, **rest)
        except (ValueError, TypeError, KeyError) as error:
            raise NewtritonError(
                f"{path} is no spectrum that Density.save wrote: {error}"
            ) from error

    def __str__(self) -> str:
        """Returns a table of the share of the eigenvalues in equal intervals."""
        ends = torch.linspace(*self.range, BINS + 1, dtype=torch.float64).tolist()
        rows = [["from", "to", "share", "error"]]
        for low, high in pairwise(ends):
            share, error = self.share(low, high)
            rows.append([f"{low:.3g}", f"{high:.3g}", f"{share:.2%}", f"{error:.0e}"])
        kind = "exact" if self.exact else f"{len(self.nodes)} random vectors"
        return f"{table(rows)}\n{kind}, σ = {self.width:.2g}, {self.products} products"


def _mean(values: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Returns the mean over random vectors, the last axis, and its standard error."""
    count = values.shape[-1]
    error = values.std(-1) / math.sqrt(count) if count > 1 else torch.zeros_like(values[..., 0])
    return values.mean(-1).reshape(shape), error.reshape(shape)


def _matrix(rows: object) -> Tensor:
    """Returns rows of finite numbers as a tensor.

    Raises:
        ValueError: they are none.
    """
    found = torch.tensor(rows, dtype=torch.float64)
    if found.dim() != 2 or not found.numel() or not found.isfinite().all():
        raise ValueError("it has no rows of numbers")
    return found


@checked
def density(
    lin: Linearized,
    matrix: str = "hessian",
    *,
    vectors: int = 10,
    steps: int = 60,
    width: float | None = None,
    seed: int = 0,
) -> Density:
    """Computes the density of the spectrum of the Hessian or the Gauss–Newton matrix of h.

    Weight decay is in them, as in `hvp` and `ggnvp`, and frozen parameters are not. Each random
    vector v gives by Lanczos' method, orthogonalised against all it has found, the Gauss quadrature
    of vᵀf(A)v/‖v‖², whose nodes are smoothed by Gaussians (Lin, Saad & Yang 2016; Ghorbani,
    Krishnan & Xiao 2019). A matrix of no more rows than there may be products is made, and its
    eigenvalues are exact.

    Args:
        lin: the point, and the batch or the data, see `LinearizedData`.
        matrix: "hessian" or "ggn".
        vectors: how many random vectors, ≥ 2, whose spread tells the error.
        steps: the products for each, ≥ 2.
        width: σ > 0 of the Gaussians; a hundredth of the spectrum's width unless given.
        seed: the seed of the random signs.

    Returns:
        the density, to be called at points; `print` shows shares of the spectrum as a table, `plot`
        draws it.

    Raises:
        NewtritonError: an option is unknown or none that there can be, the loss has no Gauss–Newton
            matrix, or a product is not finite.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> model = nt.compile(nt.Linear(2, bias=False), input_shape=(1,), loss=nt.MSELoss())
        >>> lin = model.linearize(torch.full((4, 1), 3.0), torch.zeros(4, 2))
        >>> found = nt.density(lin, width=0.1)  # of 2 x² I
        >>> share, error = found.share(17.0, 19.0)
        >>> round(share, 6), found.exact
        (1.0, True)
    """
    vectors, steps = check_count("vectors", vectors, 2), check_count("steps", steps, 2)
    if width is not None:
        check_number("width", width, above=0.0)
    seed = check_seed(seed)
    a = TrainedMatrix(lin, matrix)
    exact = len(a) <= vectors * steps
    with switches(a.like.device):
        if exact:
            nodes = torch.linalg.eigvalsh(a.dense()).double().cpu()[None]
            weights = torch.full_like(nodes, 1.0 / len(a))
        else:
            starts = signs(a.like, vectors, torch.Generator().manual_seed(seed))
            nodes, weights = _quadratures(a, starts, steps)
    if width is None:
        largest = float(nodes.abs().max())
        width = 0.01 * (float(nodes.max() - nodes.min()) or largest or 1.0)
    return Density(nodes, weights, float(width), a.products, exact, matrix)


def _quadratures(a: TrainedMatrix, starts: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Returns nodes and weights of each column's Gauss quadrature; all go on side by side."""
    spaces = [_Krylov(v) for v in starts.unbind(1)]
    while going := [space for space in spaces if not space.ends and space.size < steps]:
        products = a.columns(torch.stack([space.last for space in going], 1))
        for space, product in zip(going, products.unbind(1), strict=True):
            space.extend(product)
    found = [space.quadrature(steps) for space in spaces]
    return torch.stack([nodes for nodes, _ in found]), torch.stack([w for _, w in found])


class _Krylov:
    """A Krylov space in the making, by Lanczos' method.

    Args:
        v: the vector that it starts from.

    Attributes:
        last: the last vector of its orthonormal basis, whose product is wanted.
        ends: whether products lead no further.
    """

    def __init__(self, v: Tensor) -> None:
        self.last, self.ends = v / v.norm(), False
        self._basis = self.last[:, None]
        self._diagonal, self._beside = list[float](), list[float]()

    @property
    def size(self) -> int:
        """How many products have been taken in."""
        return len(self._diagonal)

    def extend(self, product: Tensor) -> None:
        """Takes in the product with the last vector, orthogonalised twice against all."""
        self._diagonal.append(float(torch.dot(self.last, product)))
        before, basis = float(product.norm()), self._basis
        for _ in range(2):
            product = product - basis @ (basis.mT @ product)
        length = float(product.norm())
        self.ends = length <= 100 * torch.finfo(product.dtype).eps * before
        if not self.ends:
            self._beside.append(length)
            self.last = product / length
            self._basis = torch.cat([basis, self.last[:, None]], 1)

    def quadrature(self, count: int) -> tuple[Tensor, Tensor]:
        """Returns nodes and weights; `count` of them, nodes of weight 0 filling them up."""
        size, beside = self.size, torch.tensor(self._beside[: self.size - 1], dtype=torch.float64)
        projected = torch.tensor(self._diagonal, dtype=torch.float64).diag()
        projected += beside.diag(1) + beside.diag(-1) if size > 1 else 0.0
        values, rotated = torch.linalg.eigh(projected)
        nodes, weights = values[-1].repeat(count), torch.zeros(count, dtype=torch.float64)
        nodes[:size], weights[:size] = values, rotated[0].square()
        return nodes, weights

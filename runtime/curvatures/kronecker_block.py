"""Blocks that are Kronecker products A ⊗ G: of two full factors, or with a mean in place of A.

A block is a pair of sides. Its part of a vector is M of O×D: weights in rows, the bias as last
column, unless it stands apart as a block of its own (Chen, Chou & Chang 2018, eqs. 8 and 10).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from ...compiler.curvature.blocks import MAX_FACTOR, KroneckerLayer
from ...kernels.memory import empty
from ...kernels.products import times_transposed
from ..model.factors import Factors, KroneckerFactors, MeanFactors
from ..parts.block import RETRIES, Block, Damped, Factorisation, Made, Rounds, Views, in_rounds
from ..parts.state import Shaped, Spec
from ..parts.tags import Tag
from .sides import (
    Diagonal,
    Full,
    Homogeneous,
    HomogeneousDiagonal,
    LowRank,
    One,
    Side,
    balance,
    spectrum,
)


class MatrixBlock(Block):
    """A block on a layer's weights and bias as a matrix M: all that does not depend on what it is.

    Args:
        described: which parameters they are, and the layer's groups and taps.
    """

    tags = frozenset({Tag.SEMIDEFINITE})

    def __init__(self, described: KroneckerLayer) -> None:
        super().__init__(described.layer)
        self.described, self.names = described, described.names

    @property
    def homogeneous(self) -> bool:
        """Whether the layer has a bias, the last column of M."""
        return self.described.bias is not None

    def _matrix(self, views: Views) -> Tensor:
        """Returns the weights laid out as M; a view where their elements lie so."""
        layer = self.described
        weight = views[layer.weight]
        for name, argument in layer.views:
            weight = weight.reshape(argument) if name == "reshape" else weight.permute(argument)
        lead = (layer.groups,) if layer.groups > 1 else ()
        rows = weight.shape[0] if layer.rows is None else layer.rows
        m = weight.reshape(*lead, rows // layer.groups, -1)
        return m.mT if layer.transposed else m

    def _as_weights(self, m: Tensor, weight: Tensor) -> Tensor:
        """Returns the elements of M in the shape of the weights, which `_matrix` undoes."""
        shapes = [tuple(weight.shape)]
        for name, argument in self.described.views:
            moved = argument if name == "reshape" else tuple(shapes[-1][i] for i in argument)
            shapes.append(moved)
        m = (m.mT if self.described.transposed else m).reshape(shapes[-1])
        for (name, argument), shape in zip(self.described.views[::-1], shapes[-2::-1], strict=True):
            back = [argument.index(i) for i in range(len(argument))] if name == "transpose" else ()
            m = m.permute(back) if back else m.reshape(shape)
        return m

    def read(self, views: Views) -> Tensor:
        """Returns M, O×D (groups×O/g×D), the bias as last column; a view where there is none."""
        m, bias = self._matrix(views), self.described.bias
        if bias is None:
            return m
        whole = empty((*m.shape[:-1], m.shape[-1] + 1), m.dtype, m.device)
        return torch.cat([m, views[bias].reshape(*m.shape[:-1], 1)], -1, out=whole)

    def write(self, views: Views, m: Tensor) -> None:
        """Writes M into weight and bias."""
        layer = self.described
        weight = views[layer.weight]
        columns = m.shape[-1] - self.homogeneous
        if any(name == "transpose" for name, _ in layer.views):
            weight.copy_(self._as_weights(m[..., :columns], weight))
        else:
            self._matrix(views).copy_(m[..., :columns])
        if layer.bias is not None:
            views[layer.bias].view(m.shape[:-1]).copy_(m[..., columns])

    def sizes(self, views: Views) -> tuple[tuple[int, ...], int, int]:
        """Returns the factors' leading axis (the groups, where there are several), D and O."""
        shape = self.read(views).shape
        return tuple(shape[:-2]), shape[-1], shape[-2]


class KroneckerProduct(MatrixBlock):
    """A block A ⊗ G: all that does not depend on what A is.

    Args:
        described: which parameters they are, and the layer's groups and taps.
        apart: whether the bias, where there is one, is a block of its own.
        max_factor: the most rows of a factor that is kept as a matrix.

    Attributes:
        of_bias: the block of a bias that stands apart, or None.
        inverted: the factors that are inverted.
    """

    inverted: ClassVar[tuple[str, ...]] = ("A", "G")

    def __init__(
        self, described: KroneckerLayer, apart: bool = False, max_factor: int = MAX_FACTOR
    ) -> None:
        bias = described.bias if apart else None
        super().__init__(described if bias is None else replace(described, bias=None))
        self.max_factor = max_factor
        self.of_bias = None if bias is None else BiasBlock(self, bias)

    @property
    def operators(self) -> tuple[Block, ...]:
        """The block itself, and that of a bias that stands apart."""
        return (self,) if self.of_bias is None else (self, self.of_bias)

    def average(self, new: Factors, weight: float) -> None:
        """Moves the averages towards new factors, those of the weights where the bias is apart."""
        if self.of_bias is not None:
            new = cast("KroneckerFactors | MeanFactors", new).of_weights
        super().average(new, weight)

    def _is_diagonal(self, name: str) -> bool:
        """Whether a factor's diagonal alone is kept."""
        return self.described.is_diagonal(self.tensors[name].dim())

    @property
    def diagonal(self) -> tuple[str, ...]:
        """The names of the factors of which the diagonal alone is kept."""
        kept = [name for name in ("A", "G") if name in self.tensors]
        return tuple(name for name in kept if self._is_diagonal(name))

    def _factor_spec(self, name: str, size: int, lead: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of a factor of a size."""
        looked_up = name == "A" and self.described.looks_up
        gathered = size + (name == "A" and self.of_bias is not None)  # with the 1 of the bias
        return (*lead, size) if looked_up or gathered > self.max_factor else (*lead, size, size)

    @property
    @abstractmethod
    def factors(self) -> KroneckerFactors | MeanFactors:
        """What stands for A, and G."""

    @property
    @abstractmethod
    def a(self) -> Side:
        """The side of the inputs, D×D."""

    @property
    def g(self) -> Side:
        """The side of the outputs' gradients, O×O."""
        return (Diagonal if self._is_diagonal("G") else Full)(self.tensors["G"], "G")

    @property
    def mean_diagonal(self) -> Tensor:
        """The product of both sides' means, averaged over the groups."""
        return (self.a.mean_diagonal * self.g.mean_diagonal).mean()

    def operations(self, views: Views) -> int:
        """Returns twice the cube of the rows of each matrix that is kept, for its inverse."""
        lead, *sizes = self.sizes(views)
        known = zip(("A", "G"), sizes, strict=True)
        kept = [self._factor_spec(name, n, lead) for name, n in known if name in self.inverted]
        matrices = [shape for shape in kept if not self.described.is_diagonal(len(shape))]
        return sum(2 * math.prod(shape) * shape[-1] for shape in matrices)

    def mv(self, m: Tensor) -> Tensor:
        """Returns the product G M A."""
        return self._times_gradients(self.factors.times_inputs(m))

    def _times_gradients(self, m: Tensor) -> Tensor:
        """Returns the product G M."""
        g = self.tensors["G"]
        return g.unsqueeze(-1) * m if self._is_diagonal("G") else g @ m

    def submatrix(self, m: Tensor, at: Tensor) -> Tensor:
        """Returns the rows and columns of A ⊗ G that belong to some elements of M."""
        rows, columns = m.shape[-2:]
        groups, i, j = at // (rows * columns), at // columns % rows, at % columns
        together = groups.unsqueeze(1) == groups
        return self.g.elements(groups, i) * self.a.elements(groups, j) * together

    def factorise(self, damping: float, form: Damped) -> Made:
        """Factorises the block alone, see `factorising`."""
        return in_rounds([self.factorising(damping, form)])[0]

    def factorising(
        self, damping: float, form: Damped, last: Factorisation | None = None
    ) -> Rounds[Made]:
        """Inverts both damped sides, or computes their eigenvectors for `Damped.WHOLE`.

        A pair that is not positive definite is tried again with ten times the damping γ, and with
        no less than what stands to the factors as rounding error does.
        """
        if form is Damped.WHOLE:
            bases = {} if last is None else last.tensors
            both = self.a, self.g
            asked = [side.symmetric(bases.get(side.name)) for side in both]
            answers = iter((yield [*asked[0], *asked[1]]))
            a, g = (
                side.spectrum(next(answers) if problems else None)
                for side, problems in zip(both, asked, strict=True)
            )
            return None if a is None or g is None else (Factorisation(form, a | g), 0)
        balanced = form is Damped.BALANCED
        sides = a, g = self.a, self.g
        pi = balance(a, g)
        pi = pi if balanced else torch.ones_like(pi)
        strength: float | Tensor = math.sqrt(damping) if balanced else damping
        growth = math.sqrt(10.0) if balanced else 10.0
        for retry in range(RETRIES + 1):
            dampings = pi * strength, strength / pi
            systems = [s.system(d) for s, d in zip(sides, dampings, strict=True)]
            inverses = iter((yield [*systems[0], *systems[1]]))
            of_a, of_g = (
                side.saved(next(inverses) if system else None, damping)
                for side, system, damping in zip(sides, systems, dampings, strict=True)
            )
            if of_a is not None and of_g is not None:
                return Factorisation(form, of_a | of_g), retry
            strength = self._rounding().clamp(min=growth * strength)
        return None

    def _rounding(self) -> Tensor:
        """Returns the √γ whose square is to A ⊗ G as rounding error: the start where γ is 0.

        A smaller one would let the rounding of gradients outweigh them. Where a factor is 0 the
        gradient is 0 too, and any √γ that suits the other factor will do.
        """
        a, g = self.a.mean_diagonal.abs().max(), self.g.mean_diagonal.abs().max()
        size = torch.where(a * g > 0, (a * g).sqrt(), torch.maximum(a, g))
        return math.sqrt(torch.finfo(self.tensors["G"].dtype).eps) * size.where(size > 0, 1.0)

    def extremes(self, factorisation: Factorisation, damping: float) -> Tensor | None:
        """Returns the extremes of the eigenvalues of A ⊗ G, where both were diagonalised."""
        if factorisation.form is not Damped.WHOLE:
            return None
        values = spectrum(factorisation.tensors)
        lowest = values.min()
        if _has_null_space(factorisation.tensors):
            lowest = lowest.clamp(max=0.0)
        return torch.stack([lowest, values.abs().max()])

    def raise_damping(
        self, damping: float, lowest: float, largest: float
    ) -> tuple[float, int] | None:
        """Raises γ tenfold until all eigenvalues of A ⊗ G + γI are above rounding."""
        limits = torch.finfo(self.tensors["G"].dtype)
        floor = max(limits.eps * largest, limits.tiny)
        for retry in range(RETRIES + 1):
            if lowest + damping > (floor if retry else 0.0):
                return damping, retry
            damping = 10 * max(damping, floor)
        return None

    def solve(self, factorisation: Factorisation, damping: float, m: Tensor) -> Tensor:
        """Returns the solution X of G X A = M, damped in the factorisation's form."""
        if factorisation.form is Damped.WHOLE:
            return _solve_in_eigenbasis(factorisation.tensors, damping, m)
        turned = self._solve_inputs(factorisation.tensors, m)
        inverse = factorisation.tensors["G_inverse"]
        if self.described.is_diagonal(inverse.dim()):
            return inverse.unsqueeze(-1) * turned.mT
        return times_transposed(inverse, turned)

    @abstractmethod
    def _solve_inputs(self, tensors: Mapping[str, Tensor], m: Tensor) -> Tensor:
        """Returns the product (A + …)⁻¹ Mᵀ from what the side of the inputs kept."""

    def _diagonalised_spec(
        self, views: Views, dtype: torch.dtype, rank: int | None = None
    ) -> Mapping[str, Spec]:
        """Returns the specification of what `Damped.WHOLE` keeps for A of a rank, D by default."""
        lead, d, o = self.sizes(views)
        shapes = {"A": self._factor_spec("A", d, lead), "G": self._factor_spec("G", o, lead)}
        if rank is not None:
            shapes["A"] = (*lead, d, rank)
        values = {"A": d if rank is None else rank, "G": o}
        specs = {f"values_{name}": Shaped((*lead, values[name]), dtype) for name in shapes}
        matrices = {n: s for n, s in shapes.items() if not self.described.is_diagonal(len(s))}
        return specs | {name: Shaped(shape, dtype) for name, shape in matrices.items()}


def _has_null_space(tensors: Mapping[str, Tensor]) -> bool:
    """Whether only the range of A has been diagonalised."""
    if "A" not in tensors:
        return False
    rows, columns = tensors["A"].shape[-2:]
    return rows > columns


def _solve_in_eigenbasis(tensors: Mapping[str, Tensor], damping: float, m: Tensor) -> Tensor:
    """Solves G X A + γX = M: four products, six where A has only its range, fewer for diagonals."""
    vectors_a, vectors_g = tensors.get("A"), tensors.get("G")
    turned = m if vectors_g is None else vectors_g.mT @ m
    turned = turned if vectors_a is None else turned @ vectors_a
    inside = turned / (spectrum(tensors) + damping)
    inside = inside if vectors_g is None else vectors_g @ inside
    if vectors_a is None:
        return inside
    inside = inside @ vectors_a.mT
    if not _has_null_space(tensors):
        return inside
    return inside + (m - (m @ vectors_a) @ vectors_a.mT) / damping


class KroneckerBlock(KroneckerProduct):
    """A block A ⊗ G with A = E[ā āᵀ] in full."""

    @property
    def a(self) -> Side:
        """The side of the inputs, in (tap, channel) order."""
        apart = self.relative and self.homogeneous
        if self._is_diagonal("A"):
            return (HomogeneousDiagonal if apart else Diagonal)(self.tensors["A"], "A")
        return (Homogeneous if apart else Full)(self.tensors["A"], "A")

    def mean_square(self, views: Views) -> Tensor:
        """Returns τ², a bias being a weight of an input of the others' size."""
        squares = self.read(views).double().square()
        if self.homogeneous and self.relative:
            squares[..., -1] /= self.a.mean_diagonal.unsqueeze(-1)
        return squares.mean()

    @property
    def factors(self) -> KroneckerFactors:
        """The averages A and G."""
        tensors = self.tensors
        return KroneckerFactors(
            tensors["A"], tensors["G"], self.described.kernel, self.homogeneous, self.diagonal
        )

    def spec(self, views: Views, dtype: torch.dtype) -> Mapping[str, Spec]:
        """Returns the specification of A, D×D, and G, O×O, or of their diagonals."""
        lead, *sizes = self.sizes(views)
        sides = zip(("A", "G"), sizes, strict=True)
        return {name: Shaped(self._factor_spec(name, n, lead), dtype) for name, n in sides}

    def factorisation_spec(
        self, form: Damped, views: Views, dtype: torch.dtype
    ) -> Mapping[str, Spec]:
        """Returns the shapes of the inverses, or of eigenvalues and eigenvectors."""
        if form is Damped.WHOLE:
            return self._diagonalised_spec(views, dtype)
        return {f"{name}_inverse": shape for name, shape in self.spec(views, dtype).items()}

    def _solve_inputs(self, tensors: Mapping[str, Tensor], m: Tensor) -> Tensor:
        inverse = tensors["A_inverse"]
        if self.described.is_diagonal(inverse.dim()):
            return (m * inverse.unsqueeze(-2)).mT
        return times_transposed(inverse, m)


class MeanBlock(KroneckerProduct):
    """A block A ⊗ G with E[ā]E[ā]ᵀ in place of A (Chen, Chou & Chang 2018, eq. 11b).

    Args:
        described: which parameters they are, and the layer's groups and taps.
        apart: whether the bias, where there is one, is a block of its own.
        max_factor: the most rows of a factor that is kept as a matrix.
    """

    tags = KroneckerProduct.tags | {Tag.MEANS}
    inverted = ("G",)

    @property
    def a(self) -> LowRank:
        """The side of the inputs, by its root."""
        return LowRank(self.factors.root)

    def mv(self, m: Tensor) -> Tensor:
        """Returns the product G (M U) Uᵀ, whose factors with U are vectors: O² + 2·O·D products."""
        root = self.factors.root
        return self._times_gradients(m @ root) @ root.mT

    @property
    def factors(self) -> MeanFactors:
        """The mean of the inputs, and G."""
        mean, g = self.tensors["mean"], self.tensors["G"]
        kernel, diagonal = self.described.kernel, self.diagonal
        return MeanFactors(mean, g, kernel, self.homogeneous, diagonal)

    def spec(self, views: Views, dtype: torch.dtype) -> Mapping[str, Spec]:
        """Returns the specification of the mean, D without the 1, and of G, O×O."""
        lead, d, o = self.sizes(views)
        mean = Shaped((*lead, d - self.homogeneous), dtype)
        return {"mean": mean, "G": Shaped(self._factor_spec("G", o, lead), dtype)}

    def factorisation_spec(
        self, form: Damped, views: Views, dtype: torch.dtype
    ) -> Mapping[str, Spec]:
        """Returns the shapes of what Woodbury's inverse needs, or of A's range."""
        if form is Damped.WHOLE:
            return self._diagonalised_spec(views, dtype, rank=1)
        lead, d, o = self.sizes(views)
        return {
            "root": Shaped((*lead, d, 1), dtype),
            "core_inverse": Shaped((*lead, 1, 1), dtype),
            "damping": Shaped((*lead, 1, 1), dtype),
            "G_inverse": Shaped(self._factor_spec("G", o, lead), dtype),
        }

    def _solve_inputs(self, tensors: Mapping[str, Tensor], m: Tensor) -> Tensor:
        root = tensors["root"]
        inner = tensors["core_inverse"] @ (root.mT @ m.mT)
        return (m.mT - root @ inner) / tensors["damping"]


class BiasBlock(KroneckerProduct):
    """The block G of a bias that stands apart (Chen, Chou & Chang 2018, eqs. 8 and 10a).

    G is that of the weights' block, which keeps its average. Being one matrix, G + γI is what every
    form of the damping makes of it.

    Args:
        weights: the block A ⊗ G of the layer's weights.
        bias: the name of the bias.
    """

    inverted = ("G",)

    def __init__(self, weights: KroneckerProduct, bias: str) -> None:
        groups = weights.described.groups
        described = KroneckerLayer(bias, bias, None, groups, (1, 1))
        super().__init__(described, max_factor=weights.max_factor)
        self.weights = weights

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Returns G, the weights' average."""
        return {"G": self.weights.tensors["G"]}

    @property
    def is_filled(self) -> bool:
        """Whether there is a G."""
        return self.weights.is_filled

    @property
    def factors(self) -> KroneckerFactors:
        """The number 1 for A, and G."""
        g, groups = self.tensors["G"], self.described.groups
        one = g.new_ones((groups, 1, 1) if groups > 1 else (1, 1))
        return KroneckerFactors(one, g, (1, 1), False, self.diagonal)

    def share(self, damping: float) -> float:
        """Returns what a damping is in the layer's blocks."""
        return self.weights.share(damping)

    @property
    def a(self) -> One:
        """The side of the input 1."""
        return One(self.factors.A_stored[..., 0])

    def _rounding(self) -> Tensor:
        """Returns the γ that stands to G as rounding error does."""
        size = self.g.mean_diagonal.abs().max()
        return torch.finfo(self.tensors["G"].dtype).eps * size.where(size > 0, 1.0)

    def factorising(
        self, damping: float, form: Damped, last: Factorisation | None = None
    ) -> Rounds[Made]:
        """Inverts G + γI, or computes the eigenvectors of G for `Damped.WHOLE`."""
        joined = form if form is Damped.WHOLE else Damped.FACTORS
        made = yield from super().factorising(damping, joined, last)
        return None if made is None else (replace(made[0], form=form), made[1])

    def spec(self, views: Views, dtype: torch.dtype) -> Mapping[str, Spec]:
        """Returns nothing to be checked: no average is kept."""
        return {}

    def factorisation_spec(
        self, form: Damped, views: Views, dtype: torch.dtype
    ) -> Mapping[str, Spec]:
        """Returns the shape of the inverse, or of eigenvalues and eigenvectors."""
        if form is Damped.WHOLE:
            specs = self._diagonalised_spec(views, dtype)
            return {name: spec for name, spec in specs.items() if name != "A"}
        lead, _, o = self.sizes(views)
        return {"G_inverse": Shaped(self._factor_spec("G", o, lead), dtype)}

    def _solve_inputs(self, tensors: Mapping[str, Tensor], m: Tensor) -> Tensor:
        return m.mT

"""A curvature block as an operator, and the block-diagonal operator that is made of them.

A block C_l acts on its layer's part of a flat vector, which it reads as a tensor M (O×D for a
Kronecker product, flat for a diagonal one) and writes back. A structure (Kronecker product, mean of
the inputs, diagonal, an eigenbasis) is one class: solvers ask it for products, factorisations and
solves, and curvatures for averages and states; neither needs to know which one it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ...kernels.memory import empty_like
from ..aten.switches import switches
from ..model.factors import DiagonalFactors, Factors
from .cholesky import System, inverses
from .eigen import Symmetric, diagonalise
from .state import Shaped, Spec, Undo, copied, held_attributes
from .tags import Tag

if TYPE_CHECKING:
    from ...compiler.curvature.blocks import DiagonalLayer
    from ..inputs.layout import Layout
    from ..parallel.owners import Owners

RETRIES = 10  # how often a factorisation or a solve is tried again, each with more damping

Views = Mapping[str, Tensor]  # a flat vector's parts by parameter, in the model's own shapes


class Damped(Enum):
    """How a damping γ joins a Kronecker product; blocks of other structures add γI."""

    WHOLE = "A ⊗ G + γI"
    BALANCED = "(A + π√γ I) ⊗ (G + √γ/π I)"
    FACTORS = "(A + γI) ⊗ (G + γI)"


@dataclass(frozen=True)
class Factorisation:
    """What a block keeps in order to solve, valid until it is factorised again.

    Attributes:
        form: how the damping joins the block.
        tensors: named tensors that a state saves as they are; a diagonal block needs none.
    """

    form: Damped
    tensors: dict[str, Tensor] = field(default_factory=dict)


Made = tuple[Factorisation, int] | None  # a factorisation, and how often γ was raised for it
T = TypeVar("T")
Problem: TypeAlias = System | Symmetric
# It asks for inverses and spectra, is sent them or None, and returns what it made of them.
Rounds: TypeAlias = Generator[list[Problem], list[Any], T]


def in_rounds(blocks: Sequence[Rounds[T]]) -> list[T]:
    """Runs many blocks' work together: in each round all problems that they ask to be solved.

    The first round is the last one but for blocks that need more damping.
    """
    made: dict[int, T] = {}
    answers: dict[int, list[Any] | None] = dict.fromkeys(range(len(blocks)))
    while answers:
        asked: dict[int, list[Problem]] = {}
        for i, answer in answers.items():
            try:
                asked[i] = blocks[i].send(answer)  # type: ignore[arg-type]
            except StopIteration as end:
                made[i] = end.value
        solved = _solved([problem for problems in asked.values() for problem in problems])
        answers = {i: [next(solved) for _ in problems] for i, problems in asked.items()}
    return [made[i] for i in range(len(blocks))]


def _solved(problems: Sequence[Problem]) -> Iterator[Any]:
    """Yields the inverse or the spectrum of each, or None, in their order."""
    inverted = iter(inverses([each for each in problems if isinstance(each, System)]))
    spectra = iter(diagonalise([each for each in problems if isinstance(each, Symmetric)]))
    for problem in problems:
        yield next(inverted if isinstance(problem, System) else spectra)


class Block(ABC):
    """One layer's block of a curvature, kept as an average of factors.

    Args:
        layer: the layer's name.

    Attributes:
        layer: the layer's name.
        names: the names of the parameters that it is about.
        relative: whether dampings have no unit, see `curvatures.units`.
        unit: what a damping is measured in; 1 for dampings in the curvature's own units.
        decay: the part of a damping that has no unit: weight decay.
        tags: what may be relied on, e.g. `Tag.DIAGONAL`; see also `BlockDiagonal.tags`.
    """

    tags: ClassVar[frozenset[Tag]]
    names: tuple[str, ...]

    def __init__(self, layer: str) -> None:
        self.layer = layer
        self.relative, self.unit, self.decay = False, 1.0, 0.0
        self._tensors: dict[str, Tensor] = {}

    # --- what it keeps ---

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Returns the averages by name.

        Raises:
            NewtritonError: nothing has been gathered yet.
        """
        self._check_filled()
        return self._tensors

    def _check_filled(self) -> None:
        if not self._tensors:
            raise NewtritonError("the curvature has no factors yet: call curvature.update(lin)")

    @property
    def operators(self) -> tuple[Block, ...]:
        """The operators that it consists of, no two of them coupled: itself alone."""
        return (self,)

    @property
    def is_filled(self) -> bool:
        """Whether factors have been gathered or loaded."""
        return bool(self._tensors)

    @property
    @abstractmethod
    def factors(self) -> Factors:
        """Returns the averages as the user knows them; they share their memory with the block."""

    def average(self, new: Factors, weight: float) -> None:
        """Moves the averages towards new factors, F ← F + weight·(F_new − F).

        The first factors are taken over as they are. Averages are replaced by new tensors, so that
        an error leaves all of them as they were, see `hold`.
        """
        known, found = self._tensors, new.tensors
        if known:
            moved = {
                name: torch.lerp(known[name], tensor, weight, out=empty_like(tensor))
                for name, tensor in found.items()
            }
            found = {**known, **moved}
        self._take(found)

    def averaging(self, new: Factors, weight: float, anew: bool) -> Rounds[None]:
        """Averages as `average` does, in rounds with other blocks: see `in_rounds`.

        Args:
            new: the new factors.
            weight: their weight.
            anew: whether structures that keep a basis of their factors take it anew.
        """
        yield from ()
        self.average(new, weight)

    def hold(self) -> Undo:
        """Returns what puts averages and unit back to what they are now."""
        return held_attributes(self, "_tensors", "unit")

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over copies of averages that were saved; none leaves the block empty."""
        self._take(copied(dict(tensors)))

    def _take(self, tensors: dict[str, Tensor]) -> None:
        """Makes tensors the averages."""
        self._tensors = tensors

    @abstractmethod
    def spec(self, views: Views, dtype: torch.dtype) -> Mapping[str, Spec]:
        """Returns the specification of the averages, for `state.check_state`."""

    def share(self, damping: float) -> float:
        """Returns what a damping γ + η is in the block, γ·unit + η."""
        if not self.relative:
            return damping
        decay = min(damping, self.decay)
        return (damping - decay) * self.unit + decay

    # --- its place in a flat vector ---

    @abstractmethod
    def read(self, views: Views) -> Tensor:
        """Returns the block's part M of a flat vector."""

    @abstractmethod
    def write(self, views: Views, m: Tensor) -> None:
        """Writes M back into a flat vector."""

    def mean_square(self, views: Views) -> Tensor:
        """Returns the mean square τ² of a vector's part, a scalar in float64, unread."""
        return self.read(views).square().mean(dtype=torch.float64)

    # --- the operator ---

    @property
    @abstractmethod
    def mean_diagonal(self) -> Tensor:
        """The mean of the diagonal of C, a scalar in float64, unread."""

    @abstractmethod
    def mv(self, m: Tensor) -> Tensor:
        """Returns the product C M."""

    def submatrix(self, m: Tensor, at: Tensor) -> Tensor:
        """Returns the rows and columns of C that belong to some elements of M.

        Args:
            m: a part M of a vector, for its shape, dtype and device.
            at: the places of the elements in M, flattened.
        """
        columns = []
        for place in at.tolist():
            unit = torch.zeros_like(m)
            unit.view(-1)[place] = 1.0
            columns.append(self.mv(unit).reshape(-1)[at])
        return torch.stack(columns, 1)

    @abstractmethod
    def factorise(self, damping: float, form: Damped) -> Made:
        """Factorises the block for solves with a damping γ.

        Returns:
            what has to be kept, and how often the damping had to be raised for it; None where no
            damping serves. For `Damped.WHOLE` the result does not depend on the damping.
        """

    def factorising(
        self, damping: float, form: Damped, last: Factorisation | None = None
    ) -> Rounds[Made]:
        """Factorises as `factorise` does, in rounds with other blocks: see `in_rounds`.

        Structures that need inverses or spectra ask for them; the others are made at once.

        Args:
            damping: γ.
            form: how it joins the block.
            last: a factorisation of earlier averages, whose eigenvectors are to be refined.
        """
        yield from ()
        return self.factorise(damping, form)

    def operations(self, views: Views) -> int:
        """Returns how many operations a factorisation for one more damping takes, at leading order.

        Args:
            views: a flat vector's parts, for their shapes.
        """
        return 0

    def extremes(self, factorisation: Factorisation, damping: float) -> Tensor | None:
        """Returns the lowest eigenvalue and the largest |λ|, unread; None where γ will do."""
        return None

    def raise_damping(
        self, damping: float, lowest: float, largest: float
    ) -> tuple[float, int] | None:
        """Raises a damping to what a solve needs, where there are `extremes`.

        Args:
            damping: γ.
            lowest: the block's lowest eigenvalue.
            largest: its largest |λ|.

        Returns:
            the damping, and how often it was raised; None where none serves.
        """
        return damping, 0

    @abstractmethod
    def solve(self, factorisation: Factorisation, damping: float, m: Tensor) -> Tensor:
        """Returns the solution X of (C + γI) X = M, γ joined to C in the factorisation's form."""

    @abstractmethod
    def factorisation_spec(
        self, form: Damped, views: Views, dtype: torch.dtype
    ) -> Mapping[str, Spec]:
        """Returns the specification of a factorisation's tensors, for `state.check_state`."""


class DiagonalBlock(Block):
    """The block diag(d) of parameters that enter by a broadcast, a layer's in one flat part.

    Args:
        described: which parameters they are.
    """

    tags = frozenset({Tag.SEMIDEFINITE, Tag.DIAGONAL})

    def __init__(self, described: DiagonalLayer) -> None:
        super().__init__(described.layer)
        self.names = described.names
        self._diagonal = torch.empty(0)

    def _take(self, tensors: dict[str, Tensor]) -> None:
        """Lays the averages into one flat tensor d; those by name are its views."""
        super()._take(tensors)
        if tensors:
            self._diagonal = self.read(tensors)
            parts = self._parts(self._diagonal, tensors)
            self._tensors = dict(zip(self.names, parts, strict=True))

    def hold(self) -> Undo:
        """Returns what puts averages and unit back to what they are now."""
        return held_attributes(self, "_tensors", "_diagonal", "unit")

    @property
    def diagonal(self) -> Tensor:
        """Returns d, the averages of all parameters one after another.

        Raises:
            NewtritonError: nothing has been gathered yet.
        """
        self._check_filled()
        return self._diagonal

    def _parts(self, flat: Tensor, like: Views) -> list[Tensor]:
        """The parameters' parts of a flat tensor, each in its shape."""
        parts = torch.split_with_sizes(flat, [like[name].numel() for name in self.names])
        return [part.view_as(like[n]) for n, part in zip(self.names, parts, strict=True)]

    @property
    def factors(self) -> DiagonalFactors:
        """Returns the diagonal by parameter."""
        return DiagonalFactors(self.tensors)

    def spec(self, views: Views, dtype: torch.dtype) -> Mapping[str, Spec]:
        """Returns a tensor of each parameter's shape and the given dtype."""
        return {name: Shaped(tuple(views[name].shape), dtype) for name in self.names}

    def read(self, views: Views) -> Tensor:
        """Returns the parameters, flattened one after another."""
        return torch.cat([views[name].reshape(-1) for name in self.names])

    def write(self, views: Views, m: Tensor) -> None:
        """Writes the parameters back."""
        for name, part in zip(self.names, self._parts(m, views), strict=True):
            views[name].copy_(part)

    @property
    def mean_diagonal(self) -> Tensor:
        """The mean of d."""
        return self.diagonal.mean(dtype=torch.float64)

    def mv(self, m: Tensor) -> Tensor:
        """Returns the product d ⊙ m."""
        return self.diagonal * m

    def submatrix(self, m: Tensor, at: Tensor) -> Tensor:
        """Returns the diagonal matrix of some elements of d."""
        return self.diagonal[at].diag()

    def factorise(self, damping: float, form: Damped) -> Made:
        """Returns a factorisation without tensors: the averages are all that a solve needs."""
        return Factorisation(form), 0

    def solve(self, factorisation: Factorisation, damping: float, m: Tensor) -> Tensor:
        """Returns the quotient m / (d + γ), of the averages as they are now.

        Without damping no d counts for less than the largest one's rounding error.
        """
        if damping > 0.0:
            return m / (self.diagonal + damping)
        limits = torch.finfo(m.dtype)
        least = (limits.eps * self.diagonal.amax()).clamp(min=limits.tiny)
        return m / torch.maximum(self.diagonal, least)

    def factorisation_spec(
        self, form: Damped, views: Views, dtype: torch.dtype
    ) -> Mapping[str, Spec]:
        """Returns nothing to be checked: no tensors are kept."""
        return {}


@dataclass(frozen=True)
class BlockDiagonal:
    """The operator diag(C_1, …, C_L) on flat vectors, 0 for parameters that belong to no block.

    Attributes:
        layout: where the parameters lie in a flat vector.
        blocks: the operators, one per layer or several.
        gathered: how often the blocks' averages have been refreshed.
        burning_in: whether the averages are still settling, so that each refresh counts.
        owners: which ranks hold which blocks; None where this process has all. Whatever is
            computed of all blocks, all ranks compute together.
    """

    layout: Layout
    blocks: tuple[Block, ...]
    gathered: int
    burning_in: bool
    owners: Owners | None = None

    @property
    def held(self) -> tuple[Block, ...]:
        """The blocks that this rank holds: all of them, but for `owners`."""
        if self.owners is None:
            return self.blocks
        return tuple(block for block in self.blocks if self.owners.hold(block.names))

    def agree(self, *numbers: float) -> list[list[float]]:
        """Returns what each rank has of some numbers that follow from the blocks it holds."""
        return [[*numbers]] if self.owners is None else self.owners.agree(*numbers)

    @property
    def tags(self) -> frozenset[Tag]:
        """What holds of the whole: some tags of all blocks, others of any."""
        tags = {Tag.BLOCKS}
        if all(Tag.SEMIDEFINITE in block.tags for block in self.blocks):
            tags.add(Tag.SEMIDEFINITE)
        if any(Tag.MEANS in block.tags for block in self.blocks):
            tags.add(Tag.MEANS)
        return frozenset(tags)

    def parts(self, v: Tensor) -> list[Tensor]:
        """Returns the part M of a flat vector of each block that is held."""
        views = self.layout.views(v)
        return [block.read(views) for block in self.held]

    def assembled(self, parts: Iterable[Tensor], like: Tensor) -> Tensor:
        """Returns the flat vector that has these parts, and those that other ranks give."""
        result = empty_like(like)
        views = self.layout.views(result)
        names = [name for block in self.blocks for name in block.names]
        if sum(views[name].numel() for name in names) < result.numel():
            result.zero_()
        for block, m in zip(self.held, parts, strict=True):
            block.write(views, m)
        if self.owners is not None:
            self.owners.give({name: views[name] for name in names})
        return result

    def apply(self, v: Tensor, function: Callable[[Block, Tensor], Tensor]) -> Tensor:
        """Returns the flat vector of `function(block, M)` over all blocks, M their parts of v."""
        return self.assembled(map(function, self.held, self.parts(v)), v)

    def submatrix(self, places: Tensor, like: Tensor) -> Tensor:
        """Returns the rows and columns that belong to some elements of a flat vector.

        Args:
            places: the places of the elements.
            like: a flat vector of the same dtype and device.
        """
        rows = torch.full((self.layout.numel,), -1, device=like.device)
        rows[places] = torch.arange(len(places), device=like.device)
        result = like.new_zeros((len(places), len(places)))
        for block, m, of_m in zip(self.held, self.parts(like), self.parts(rows), strict=True):
            flat = of_m.reshape(-1)
            at = (flat >= 0).nonzero().squeeze(1)
            if len(at):
                own = flat[at]
                result[own.unsqueeze(1), own] = block.submatrix(m, at)
        return result if self.owners is None else self.owners.all_sum(result)

    def mv(self, v: Tensor) -> Tensor:
        """Returns the product with a flat vector."""
        with switches(v.device):
            return self.apply(v, lambda block, m: block.mv(m))

"""Block-diagonal Kronecker curvature with a moving average, gathered every few updates.

During burn-in factors are gathered at each update and averaged plainly, so that the average starts
without bias; then F ← θF + (1 − θ)F_batch (Martens & Grosse 2015, section 5).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...compiler.curvature.adjoints import MAX_COPIES
from ...compiler.curvature.blocks import (
    MAX_FACTOR,
    SHARINGS,
    DiagonalLayer,
    KroneckerLayer,
    blocks,
)
from ...compiler.curvature.factors import KINDS, Wanted
from ...compiler.curvature.recursion import RECURSIVE, check_pos_eig
from ...compiler.graph.calls import checked
from ...compiler.graph.errors import MissingRule, NewtritonError
from ...compiler.graph.options import (
    check_count,
    check_flag,
    check_number,
    check_option,
)
from ...compiler.graph.program import Output, Program
from ..footprint import META
from ..model.factors import Factors
from ..model.linearized import Linearized
from ..model.model import Model, check_model
from ..parallel.owners import LIGHT, Owners, placed
from ..parts.block import Block, BlockDiagonal, DiagonalBlock, in_rounds
from ..parts.eigen import REFRESHES
from ..parts.state import (
    Elsewhere,
    Maybe,
    Number,
    Random,
    Shaped,
    Spec,
    State,
    Undo,
    all_of,
    copied,
    held_attributes,
    held_generator,
    seeded,
)
from ..parts.tags import Tag
from ..pieces.gathering import Asked
from ..reading import all_finite
from ..remaking import Remade
from .ekfac import EKFAC, EigenbasisBlock
from .kronecker_block import KroneckerBlock, MeanBlock
from .units import units

STRUCTURES = (*KINDS, *EKFAC)
INPUTS = ("gram", "mean", "mean-first")


class KroneckerCurvature(Remade):
    """The curvature C ≈ blockdiag(A ⊗ G), diagonal where parameters have no Kronecker rule.

    Of kind "ekfac" its blocks are diagonal in the eigenbasis of A ⊗ G, with the second moments of
    the gradient there in place of the eigenvalues, gathered as the factors are (George et al.
    2018).

    Args:
        model: the model whose curvature it is.
        kind: the kind of factors, see `Linearization.kronecker_factors`; or "ekfac",
            "ekfac-empirical" or "ekfac-kflr", which gather "kfac", "empirical" or "kflr".
        samples: label draws per input, ≥ 1.
        moving_average: θ of the averages, 0 ≤ θ < 1.
        every: updates between two gatherings after burn-in, ≥ 1.
        burn_in: the first updates, each of them gathered, ≥ 0.
        seed: the seed of the labels that are drawn.
        inputs: "gram" keeps A; "mean" the mean of each layer's inputs, E[a]E[a]ᵀ standing for A
            (EA-CG, eq. 11b); "mean-first" does so in the first layer alone (eq. 13).
        apart: whether each bias is a block of its own, G beside A ⊗ G of the weights, as in EA-CG
            (eqs. 8 and 10); not of the "ekfac" kinds.
        layers: the layers that C is about, each of which must have a block; C is 0 for the others.
            None stands for all layers.
        refresh: gatherings between two eigenbases after burn-in, ≥ 1.
        relative: whether a damping is relative to curvature and parameters, see `units`.
        basis: "eigh" for a new eigenbasis each time, or "qr" to refine the last one, see `Eigen`.
        sharing: what becomes of a layer's positions, "expand" or "reduce", see
            `Linearization.kronecker_factors`.
        max_factor: the most rows of a factor that is kept as a matrix; of a larger one the diagonal
            is kept.
        max_copies: the most backward copies of kinds with a root of B.
        pos_eig: the γ ≤ 0 of Pos-Eig in "pch-1" and "pch-2", which multiplies negative eigenvalues
            (EA-CG, eq. 8); None for the kind's own, −1 and 0.

    Attributes:
        name: the kind as it was given.
        kind: the kind of the factors that are gathered.
        means: the layers that keep the mean of their inputs.
        updates: how many updates there have been.
        gathered: how often the averages have been refreshed.
        owners: which ranks hold which layers, see `nt.DataParallel`; None where there are no ranks.
        unseen: 1/N, N being the samples in the averages: Σ w²/n over batches of n samples with the
            weights w (Kish 1965).

    Raises:
        NewtritonError: an option is unknown or out of its range, a name is of no layer, or there
            would be too many copies.
        MissingRule: a layer has no block, or the network is no chain and the kind needs one.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> curvature = nt.KroneckerCurvature(model, "kflr", moving_average=0.9)
        >>> curvature.update(model.linearize(torch.eye(3), torch.arange(3)))
        True
        >>> curvature.mv(torch.ones_like(model.params)).shape, list(curvature.factors)
        (torch.Size([12]), [''])
    """

    preconditioner = None

    @checked
    @torch.inference_mode(False)
    def __init__(
        self,
        model: Model,
        kind: str = "kfac",
        *,
        samples: int = 1,
        moving_average: float = 0.95,
        every: int = 1,
        burn_in: int = 1,
        seed: int = 0,
        inputs: str = "gram",
        apart: bool = False,
        layers: Collection[str] | None = None,
        refresh: int = 1,
        relative: bool = False,
        basis: str = "eigh",
        sharing: str = "expand",
        max_factor: int = MAX_FACTOR,
        max_copies: int = MAX_COPIES,
        pos_eig: float | None = None,
    ) -> None:
        check_model(model)
        check_option("kind", kind, STRUCTURES)
        check_option("inputs", inputs, INPUTS if kind in KINDS else INPUTS[:1])
        check_option("basis", basis, REFRESHES)
        check_option("sharing", sharing, SHARINGS)
        self.options: dict[str, Any] = {
            "sharing": sharing,
            "max_factor": check_count("max_factor", max_factor),
            "max_copies": check_count("max_copies", max_copies),
            "pos_eig": check_pos_eig(kind, pos_eig),
        }
        self.model, self.samples = model, check_count("samples", samples)
        self.name, self.kind = kind, EKFAC.get(kind, kind)
        self.refresh, self.basis = check_count("refresh", refresh), basis
        self.moving_average = check_number("moving_average", moving_average, 0.0, below=1.0)
        self.every = check_count("every", every)
        self.burn_in = check_count("burn_in", burn_in, 0)
        if check_flag("apart", apart) and kind in EKFAC:
            raise NewtritonError(
                f"apart is True: {kind!r} keeps weight and bias in one basis, take 'kfac' or leave "
                "it out"
            )
        self.generator = seeded(model, seed)
        self.layers = None
        if layers is not None:
            self.layers = frozenset(model.layout.check_layers("layers", layers))
            if frozen := self.layers - model.layers.keys():
                raise NewtritonError(f"layers names {min(frozen)!r}, which is frozen: leave it out")
            if not self.layers:
                raise NewtritonError("layers is empty: name at least one, or leave it out")
            blocks(model.programs[True].traced, self.layers)  # it refuses what has none
        described = _described(model, self.layers)
        names = [b.layer for b in described if isinstance(b, KroneckerLayer) and b.plain]
        self.means = {"gram": [], "mean": names, "mean-first": names[:1]}[inputs]
        eigenbasis = basis if kind in EKFAC else None
        self.relative = check_flag("relative", relative)
        self._structure = model, self.means, apart, eigenbasis, self.layers, max_factor
        self._blocks = self._empty_blocks()
        self.owners = self._owners()
        self.updates = self.gathered = 0
        self.unseen = 0.0
        if self.kind in (*RECURSIVE, "kflr") and model.programs[True].offers(self.kind):
            self._check_network()
        # New memory costs a CPU as much as what is written to it; a GPU's allocator keeps it.
        kept = model.device.type == "cpu" and (self.owners is None or self.owners.everything)
        self._memory = dict[Output, Tensor]() if kept else None

    @property
    def tags(self) -> frozenset[Tag]:
        """What a solver may rely on, which follows from the blocks."""
        return self.blocks.tags

    @property
    def burning_in(self) -> bool:
        """Whether the last refresh belongs to the burn-in."""
        return self.updates <= self.burn_in

    @property
    def blocks(self) -> BlockDiagonal:
        """The blocks as an operator, as they are now."""
        return self._operator(self._blocks)

    def _empty_blocks(self) -> dict[str, Block]:
        """Returns a new block for each layer."""
        blocks = operators(*self._structure)
        for block in blocks.values():
            block.decay, block.relative = self.model.weight_decay, self.relative
        return blocks

    def _owners(self) -> Owners | None:
        """Returns which ranks hold which layers, by the work that inverses of their factors are.

        Raises:
            NewtritonError: every rank needs all factors.
        """
        if self.model.parallel is None:
            return None
        grid, views = self.model.parallel.grid, self.model.layout.views(self.model.params)
        if self.name in EKFAC and not grid.row.alone:
            raise NewtritonError(
                f"curvature {self.name!r} turns each rank's gradients into every layer's basis, so "
                f"that all ranks hold all of them; memory is {self.model.parallel.memory!r}: take "
                "DataParallel(memory='replicated'), or the curvature 'kfac'"
            )
        costs = {
            layer: LIGHT + sum(each.operations(views) for each in block.operators)
            for layer, block in self._blocks.items()
        }
        columns = placed(costs, grid.row.size)
        of_names = {
            name: columns[layer]
            for layer, block in self._blocks.items()
            for each in block.operators
            for name in each.names
        }
        return Owners(grid, of_names)

    @property
    def _held(self) -> dict[str, Block]:
        """The blocks that this rank holds."""
        blocks, owners = self._blocks.items(), self.owners
        return {layer: b for layer, b in blocks if owners is None or owners.hold(b.names)}

    def _operator(self, blocks: Mapping[str, Block]) -> BlockDiagonal:
        """Returns blocks as an operator."""
        found = tuple(each for block in blocks.values() for each in block.operators)
        known = self.gathered, self.burning_in, self.owners
        return BlockDiagonal(self.model.layout, found, *known)

    @property
    def sketch(self) -> BlockDiagonal:
        """The blocks as they will be, of tensors without memory."""
        layout, blocks = self.model.layout, self._empty_blocks()
        views = layout.views(torch.empty_like(self.model.params, device=META))
        for block in blocks.values():
            shapes = block.spec(views, self.model.dtype).items()
            block.load(
                {
                    name: torch.empty([n or 0 for n in spec.shape], dtype=spec.dtype, device=META)
                    for name, spec in shapes
                    if isinstance(spec, Shaped)
                }
            )
        return self._operator(blocks)

    @property
    def factors(self) -> dict[str, Factors]:
        """The averages by layer, of those that this rank holds; nothing before the first update."""
        return {layer: b.factors for layer, b in self._blocks.items() if b.is_filled}

    def _check_network(self) -> None:
        """Checks that the network has the factors: it is a chain, or takes few enough copies.

        Raises:
            MissingRule: it is no chain; the error names the kinds of factors that it has.
            NewtritonError: it takes too many copies.
        """
        try:
            self.programs(self.model, 1)
        except MissingRule as error:
            named = ", ".join(repr(kind) for kind in KINDS if self._has_factors(kind))
            instead = f"take factors of the kind {named}, or" if named else "take"
            raise MissingRule(
                f"curvature {self.name!r}: {error}. For this network {instead} the curvature 'ggn' "
                "or 'hessian' with solver='truncated-cg'"
            ) from error

    def _has_factors(self, kind: str) -> bool:
        """Whether loss and network have factors of a kind for the layers."""
        try:
            self.model.programs[True].factors(kind, layers=self.layers, **self.options)
        except NewtritonError:
            return False
        return True

    def update(self, lin: Linearized) -> bool:
        """Gathers factors where that is due; returns False where they are not finite.

        Factors that are not finite are left out, and the averages stay as they were.
        """
        if self._is_due and not self._gather(lin, self.updates < self.burn_in):
            return False
        self.updates += 1
        return True

    @property
    def _is_due(self) -> bool:
        """Whether the next update gathers."""
        burning_in = self.updates < self.burn_in
        return burning_in or self.updates % self.every == 0 or not self.is_filled

    def asks(self) -> Asked | None:
        """Returns what the next update asks of a linearization; None where nothing is due."""
        return Asked(self._wanted, self.generator) if self._is_due else None

    @property
    def _wanted(self) -> Wanted:
        """The statistics that are gathered."""
        means, per_sample = frozenset(self.means), self.name in EKFAC
        return Wanted(self.kind, self.samples, means, self.layers, per_sample, **self.options)

    def bootstrap(self, lin: Linearized) -> bool:
        """Takes a batch into the plain average that the first update will find; see `update`."""
        return self._gather(lin, plain=True)

    @property
    def is_filled(self) -> bool:
        """Whether factors have been gathered or loaded."""
        held = self._held.values()
        return any(block.is_filled for block in held) or (not held and self.gathered > 0)

    def _gather(self, lin: Linearized, plain: bool) -> bool:
        """Gathers factors into the averages, plain or moving; returns False if not finite."""
        filled = self.is_filled
        named = {"means": self.means, "layers": self.layers, "per_sample": self.name in EKFAC}
        named |= {"owners": self.owners}
        memory = self._memory if filled else None  # the first factors become the averages
        drawn = self.kind, self.samples, self.generator
        new = lin.kronecker_factors(*drawn, **named, memory=memory, **self.options)
        new = {layer: new[layer] for layer in self._held if layer in new}
        finite = not new or all_finite([t for f in new.values() for t in f.tensors.values()])
        if self.owners is not None and not self.owners.everything:
            finite = all(all(numbers) for numbers in self.owners.agree(finite))
        if not finite:
            return False
        weight = 1.0 / (self.gathered + 1) if plain else 1.0 - self.moving_average
        anew = plain or self.gathered % self.refresh == 0
        in_rounds([self._blocks[layer].averaging(f, weight, anew) for layer, f in new.items()])
        self.gathered += 1
        weight = weight if filled else 1.0
        self.unseen = (1.0 - weight) ** 2 * self.unseen + weight**2 / lin.batch
        if self.relative:
            views = self.model.layout.views(self.model.params)
            self._measure_in(units([*self._blocks.values()], views, self.owners))
        return True

    def _measure_in(self, found: Mapping[str, float]) -> None:
        """Makes numbers the units of dampings, by layer."""
        for layer, block in self._blocks.items():
            block.unit = found[layer]

    def programs(self, model: Model, batch: int) -> Sequence[Program]:
        """Returns the program of the factors."""
        return [model.programs[True].statistics(self._wanted)]

    def mv(self, v: Tensor) -> Tensor:
        """Returns C v for a flat vector, block by block: G V A, or d ⊙ v on diagonal ones.

        Raises:
            NewtritonError: the curvature has not been updated yet.
        """
        return self.blocks.mv(v)

    def state_spec(self) -> Mapping[str, Spec]:
        """Returns the specification of averages by layer, counts and the generator."""
        model = self.model
        views = model.layout.views(model.params)
        held = self._held
        layers = {
            layer: block.spec(views, model.dtype) if layer in held else Elsewhere()
            for layer, block in self._blocks.items()
        }
        counts = {"updates": Number(int, 0), "gathered": Number(int, 0)}
        known = dict.fromkeys(self._blocks, Number(float, 0.0))
        return {
            "factors": Maybe(layers),
            **counts,
            "units": known,
            "unseen": Number(float, 0.0),
            "generator": Random(self.generator),
        }

    def state_dict(self) -> State:
        """Returns averages, counts and the generator: what the coming updates depend on.

        Of ranks that hold some of the layers each returns the averages of those.
        """
        filled = {layer: b for layer, b in self._blocks.items() if b.is_filled}
        return {
            "factors": {layer: copied(block.tensors) for layer, block in filled.items()},
            "updates": self.updates,
            "gathered": self.gathered,
            "units": {layer: block.unit for layer, block in self._blocks.items()},
            "unseen": self.unseen,
            "generator": self.generator.get_state(),
        }

    def hold(self) -> Undo:
        """Returns what puts averages, counts and the generator back to what they are now."""
        return all_of([
            held_attributes(self, "updates", "gathered", "unseen"),
            held_generator(self.generator),
            *(block.hold() for block in self._blocks.values()),
        ])  # fmt: skip

    def load_state_dict(self, state: State) -> None:
        """Restores what `state_dict` gave, bit for bit."""
        self.updates, self.gathered = state["updates"], state["gathered"]
        self.generator.set_state(state["generator"].cpu().contiguous())
        self.unseen = state["unseen"]
        self._measure_in(state["units"])
        for layer, block in self._held.items():
            block.load(state["factors"][layer] if state["factors"] else {})


def _described(
    model: Model, layers: Collection[str] | None
) -> list[KroneckerLayer | DiagonalLayer]:
    """Returns what describes the layers that get a block, all of them for None."""
    return model.blocks if layers is None else model.blocks_of(layers)


def operators(
    model: Model,
    means: list[str],
    apart: bool,
    basis: str | None = None,
    layers: Collection[str] | None = None,
    max_factor: int = MAX_FACTOR,
) -> dict[str, Block]:
    """Returns an empty block for each layer: the one place that chooses its structure.

    Args:
        model: the model, which describes its layers' parameters.
        means: the layers that keep the mean of their inputs.
        apart: whether each bias is a block of its own.
        basis: how the eigenbasis of the others is refreshed; None where they keep none.
        layers: the layers that get a block; None for all.
        max_factor: the most rows of a factor that is kept as a matrix; of a product with a larger
            one there is no eigenbasis.
    """
    result: dict[str, Block] = {}
    for described in _described(model, layers):
        if not isinstance(described, KroneckerLayer):
            result[described.layer] = DiagonalBlock(described)
        elif described.layer in means:
            result[described.layer] = MeanBlock(described, apart, max_factor)
        elif basis is not None and described.plain and described.size <= max_factor:
            result[described.layer] = EigenbasisBlock(described, refines=basis == "qr")
        else:
            result[described.layer] = KroneckerBlock(described, apart, max_factor)
    return result

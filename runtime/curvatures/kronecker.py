"""Block-diagonal Kronecker curvature with a moving average, gathered every few updates.

During burn-in factors are gathered at each update and averaged plainly, so that the average starts
without bias; then F ← θF + (1 − θ)F_batch (Martens & Grosse 2015, section 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ...compiler.curvature.factors import KINDS, KroneckerLayer
from ...compiler.graph.options import check_count, check_flag, check_number, check_option
from ...compiler.graph.program import Output, Program
from ..model.factors import Factors
from ..model.linearization import Linearization
from ..model.model import Model
from ..parts.block import Block, BlockDiagonal, DiagonalBlock
from ..parts.state import Maybe, Number, Random, Spec, State, copied, seeded
from ..parts.tags import Tag
from ..reading import all_finite
from .kronecker_block import KroneckerBlock, MeanBlock

INPUTS = ("gram", "mean", "mean-first")


class KroneckerCurvature:
    """The curvature C ≈ blockdiag(A ⊗ G), diagonal where parameters have no Kronecker rule.

    Args:
        model: the model whose curvature it is.
        kind: the kind of factors, see `Linearization.kronecker_factors`.
        samples: label draws per input, ≥ 1.
        moving_average: θ of the averages, 0 ≤ θ < 1.
        every: updates between two gatherings after burn-in, ≥ 1.
        burn_in: the first updates, each of them gathered, ≥ 0.
        seed: the seed of the labels that are drawn.
        inputs: "gram" keeps A; "mean" the mean of each layer's inputs, E[a]E[a]ᵀ standing for A
            (EA-CG, eq. 11b); "mean-first" does so in the first layer alone (eq. 13).
        apart: whether the bias is uncoupled from the weights where the mean is kept.

    Attributes:
        means: the layers that keep the mean of their inputs.
        updates: how many updates there have been.
        gathered: how often the averages have been refreshed.
    """

    preconditioner = None

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
    ) -> None:
        check_option("kind", kind, KINDS)
        check_option("inputs", inputs, INPUTS)
        self.model, self.kind, self.samples = model, kind, check_count("samples", samples)
        self.moving_average = check_number("moving_average", moving_average, 0.0, below=1.0)
        self.every = check_count("every", every)
        self.burn_in = check_count("burn_in", burn_in, 0)
        check_flag("apart", apart)
        self.generator = seeded(model, seed)
        layers = [b.layer for b in model.blocks if isinstance(b, KroneckerLayer)]
        self.means = {"gram": [], "mean": layers, "mean-first": layers[:1]}[inputs]
        self._blocks = operators(model, self.means, apart)
        self.updates = self.gathered = 0
        # New memory costs a CPU as much as what is written to it; a GPU's allocator keeps it.
        self._memory = dict[Output, Tensor]() if model.device.type == "cpu" else None

    @property
    def name(self) -> str:
        """The kind of the factors."""
        return self.kind

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
        return BlockDiagonal(
            self.model.layout, tuple(self._blocks.values()), self.gathered, self.burning_in
        )

    @property
    def factors(self) -> dict[str, Factors]:
        """The averages by layer; nothing before the first update."""
        return {layer: b.factors for layer, b in self._blocks.items() if b.is_filled}

    def update(self, lin: Linearization) -> bool:
        """Gathers factors where that is due; returns False where they are not finite.

        Factors that are not finite are left out, and the averages stay as they were.
        """
        filled = any(block.is_filled for block in self._blocks.values())
        if self.updates < self.burn_in or self.updates % self.every == 0 or not filled:
            memory = self._memory if filled else None  # the first factors become the averages
            new = lin.kronecker_factors(self.kind, self.samples, self.generator, self.means, memory)
            if not all_finite([t for f in new.values() for t in f.tensors.values()]):
                return False
            burning_in = self.updates < self.burn_in
            weight = 1.0 / (self.gathered + 1) if burning_in else 1.0 - self.moving_average
            for layer, factors in new.items():
                self._blocks[layer].average(factors, weight)
            self.gathered += 1
        self.updates += 1
        return True

    def programs(self, model: Model, batch: int) -> Sequence[Program]:
        """Returns the program of the factors."""
        return [model.programs[True].factors(self.kind, self.samples, frozenset(self.means))]

    def mv(self, v: Tensor) -> Tensor:
        """Returns C v for a flat vector: G V A per layer, d ⊙ v on diagonal blocks.

        Raises:
            NewtritonError: the curvature has not been updated yet.
        """
        return self.blocks.mv(v)

    def state_spec(self) -> Mapping[str, Spec]:
        """Returns the specification of averages by layer, counts and the generator."""
        model = self.model
        views = model.layout.views(model.params)
        layers = {layer: b.spec(views, model.dtype) for layer, b in self._blocks.items()}
        counts = {"updates": Number(int, 0), "gathered": Number(int, 0)}
        return {"factors": Maybe(layers), **counts, "generator": Random(self.generator)}

    def state_dict(self) -> State:
        """Returns averages, counts and the generator: what the coming updates depend on."""
        filled = {layer: b for layer, b in self._blocks.items() if b.is_filled}
        return {
            "factors": {layer: copied(block.tensors) for layer, block in filled.items()},
            "updates": self.updates,
            "gathered": self.gathered,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restores what `state_dict` gave, bit for bit."""
        self.updates, self.gathered = state["updates"], state["gathered"]
        self.generator.set_state(state["generator"].cpu())
        for layer, block in self._blocks.items():
            block.load(state["factors"][layer] if state["factors"] else {})


def operators(model: Model, means: list[str], apart: bool) -> dict[str, Block]:
    """Returns an empty block for each layer: the one place that chooses its structure.

    Args:
        model: the model, which describes its layers' parameters.
        means: the layers that keep the mean of their inputs.
        apart: whether the bias is uncoupled from the weights in those.
    """
    result: dict[str, Block] = {}
    for described in model.blocks:
        if not isinstance(described, KroneckerLayer):
            result[described.layer] = DiagonalBlock(described)
        elif described.layer in means:
            result[described.layer] = MeanBlock(described, apart)
        else:
            result[described.layer] = KroneckerBlock(described)
    return result

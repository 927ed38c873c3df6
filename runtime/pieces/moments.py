"""Second moments in the eigenbases of all layers, in one pass over the pieces of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ...compiler.curvature.blocks import KroneckerLayer
from ...compiler.curvature.factors import LayerAdjoints, LayerInputs
from ...compiler.graph.program import Input, Program
from ..model.factors import KroneckerFactors
from ..model.moments import SampledFactors
from .cut import CutBatch


class Moments:
    """Gathers what layers ask for, and goes through the pieces when the first one needs it.

    Args:
        cut: the batch.
        program: gives the samples of the layers, on a piece.
        noise: the random numbers of labels that are drawn.
        weight: what makes a sum over squared adjoints the second moment.
    """

    def __init__(
        self, cut: CutBatch, program: Program, noise: Mapping[Input, Tensor], weight: float
    ) -> None:
        self.cut, self.program, self.noise, self.weight = cut, program, noise, weight
        self._asked: dict[str, tuple[PiecewiseFactors, Tensor, Tensor]] = {}
        self._found: dict[str, Tensor] = {}

    def ask(self, factors: PiecewiseFactors, basis_a: Tensor, basis_g: Tensor) -> None:
        """Notes what will be asked of a layer."""
        self._asked[factors.described.layer] = factors, basis_a, basis_g

    def of(self, layer: str) -> Tensor:
        """Returns the second moments of a layer that has asked."""
        if layer not in self._found:
            self._pass()
        return self._found.pop(layer)

    def _pass(self) -> None:
        asked, self._asked = self._asked, {}
        for start, count in self.cut.pieces():
            found = self.cut.run_on(self.program, start, count, self.noise)
            for layer, (factors, basis_a, basis_g) in asked.items():
                samples = found[LayerInputs(layer)], found[LayerAdjoints(layer)]
                part = SampledFactors(factors.pair, factors.described, *samples, self.weight)
                moments = part.second_moments(basis_a, basis_g)
                self._found[layer] = self._found[layer].add_(moments) if start else moments
        if self.cut.share is not None:
            self.cut.share.ranks.sum_(*(self._found[layer] for layer in asked))


@dataclass(frozen=True)
class PiecewiseFactors:
    """The factors of one layer of a batch in pieces: `SampledFactors` that keep no samples.

    Attributes:
        pair: the factors A and G.
        described: which parameters they are, and a convolution's window.
        passes: the second moments of all layers.
    """

    pair: KroneckerFactors
    described: KroneckerLayer
    passes: Moments

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Both factors, and a number which no second moment exceeds."""
        pair, program = self.pair.tensors, self.passes.program
        rows = program.outputs[LayerAdjoints(self.described.layer)].type.numel(1)
        traces = [x.diagonal(dim1=-2, dim2=-1).sum() for x in pair.values()]
        return {**pair, "bound": self.passes.cut.batch * rows * traces[0] * traces[1]}

    def moments(self, basis_a: Tensor, basis_g: Tensor) -> Callable[[], Tensor]:
        """Returns what gives the second moments when all layers have asked for theirs."""
        self.passes.ask(self, basis_a, basis_g)
        return partial(self.passes.of, self.described.layer)

"""Factors of a batch in pieces: sums over all of it, and what follows from the sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ...compiler.curvature.adjoints import Noise, random_numbers
from ...compiler.curvature.blocks import KroneckerLayer
from ...compiler.curvature.factors import LayerInputs, Wanted
from ...compiler.graph.program import Input, Output, Program
from ..model.factors import Factors, KroneckerFactors
from ..model.statistics import factors_of
from ..model.wanted import described, drawn, own_samples
from .cut import CutBatch
from .moments import Moments, PiecewiseFactors


class Asked(NamedTuple):
    """What a call of `kronecker_factors` asks for.

    Attributes:
        wanted: the statistics.
        generator: of the random numbers; the global one for None.
    """

    wanted: Wanted
    generator: torch.Generator | None


class Gathering:
    """The factors of a batch in pieces, in as many passes as there are sums of sums.

    Random numbers are drawn for the whole batch. A generator moves on when the factors are taken,
    so that those which nobody takes leave it as it was.

    Args:
        cut: the batch.
        asked: what is asked for.

    Attributes:
        asked: the same.
        given: the random numbers, and all sums so far.
        first: the program of the first pass, if any is needed.
    """

    def __init__(self, cut: CutBatch, asked: Asked) -> None:
        self.cut, self.asked = cut, asked
        self._staged = cut.programs.staged(replace(asked.wanted, per_sample=False))
        self.given: dict[Input, Tensor] = {}
        self._left = [*self._staged.sums]
        self._generator = generator = _copied(asked.generator)
        wanted, traced = asked.wanted, cut.programs.traced
        for key, leaf in random_numbers(traced, wanted.kind, wanted.samples).items():
            found = drawn(cut.model, leaf, cut.batch, generator)
            self.given[key] = own_samples(leaf, found, cut.share)

    @property
    def first(self) -> Program | None:
        """The program of the pass that comes next."""
        return self._left[0] if self._left else None

    def take(self, found: Mapping[Output, Tensor]) -> None:
        """Takes in what a pass has given."""
        for key in self._left.pop(0).outputs if self._left else ():
            assert isinstance(key, Input)
            self.given[key] = found[key]

    def factors(self) -> dict[str, Factors]:
        """Returns the factors by layer, after the passes that are left."""
        while self._left:
            self.take(self.cut.run(self._left[0], self.given))
        if self._generator is not None and self.asked.generator is not None:
            self.asked.generator.set_state(self._generator.get_state())
        model, staged, wanted = self.cut.model, self._staged, self.asked.wanted
        found: dict[Output, Tensor] = {key: self.given[s] for key, s in staged.known.items()}
        if staged.rest.outputs:
            feed = model.standing() | self.cut.numbers | self.given
            found |= model.runner.run(staged.rest, 1, feed)
        pairs = factors_of(described(model, wanted), found)
        return self._with_samples(pairs) if wanted.per_sample else pairs

    def _with_samples(self, pairs: dict[str, Factors]) -> dict[str, Factors]:
        """Returns factors that bring their samples, which a pass of its own goes through."""
        model, wanted = self.cut.model, self.asked.wanted
        program = self.cut.programs.samples(wanted)
        noise: dict[Input, Tensor] = {k: x for k, x in self.given.items() if isinstance(k, Noise)}
        moments = Moments(self.cut, program, noise, wanted.weight(self.cut.batch))
        for block in described(model, wanted):
            pair, sampled = pairs[block.layer], LayerInputs(block.layer) in program.outputs
            if sampled and isinstance(block, KroneckerLayer) and isinstance(pair, KroneckerFactors):
                pairs[block.layer] = PiecewiseFactors(pair, block, moments)
        return pairs


def _copied(generator: torch.Generator | None) -> torch.Generator | None:
    """Returns a generator that draws what another will."""
    if generator is None:
        return None
    copy = torch.Generator(generator.device)
    return copy.set_state(generator.get_state())

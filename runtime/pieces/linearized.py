"""A network linearized on a batch in pieces: what a `Linearization` is on a whole one.

The first pass gives loss, gradient and, where they are asked for, the sums that factors follow
from. A later call is another pass, which runs the network again on each piece.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from ...compiler.curvature.factors import Wanted
from ...compiler.graph.program import Input, Output, Program
from ...compiler.language.trees import Tree, mapped
from ...compiler.parts import PartPrograms
from ...compiler.values import Gradient, Hvp, Losses, Outputs
from ..inputs.watch import Watch, own
from ..model.factors import Factors
from ..model.linearization import Linearization, check_product, watched
from ..model.model import Model
from ..model.objective import completed
from ..parallel.owners import Owners
from ..parallel.ranks import Ranks
from .cut import CutBatch
from .gathering import Asked, Gathering


class LinearizedPieces(Linearization[Model]):
    """A `Linearization` whose memory is that of a piece of its batch.

    Args:
        model: the model.
        x: the inputs.
        y: the labels.
        size: how many samples a piece has.
        training: whether elements drop out.
        asked: the factors that will be asked for first; they are then gathered in the first pass.
        fits: raises an error where pieces do not fit into memory.
        order: see `Model.linearize`.

    Raises:
        NewtritonError: data or labels are not what the network and its loss take, or samples are
            mixed.
    """

    programs: PartPrograms

    def __init__(
        self,
        model: Model,
        x: Tree,
        y: Tensor,
        size: int,
        training: bool = True,
        asked: Asked | None = None,
        fits: Callable[[], object] = lambda: None,
        order: Tensor | None = None,
    ) -> None:
        x, y = mapped(own, x), own(y)
        self._cut = cut = CutBatch(model, x, y, size, training, training, fits, order)
        self.model, self.programs, self.training = model, cut.programs, training
        self.batch, self.vectors, self.statistics = cut.batch, model.vectors, {}
        self._together, self._share, self._ranks = size, cut.share, Ranks(None)  # `cut` sums
        self._here, self._most = cut.here, cut.here if cut.share is None else cut.share.most
        self._watch = Watch(watched(model, x, y, training))
        self._ready = None if asked is None else Gathering(cut, asked)
        program, given = cut.programs.linearize, dict[Input, Tensor]()
        if self._ready is not None and self._ready.first is not None:
            program, given = cut.programs.linearize_with(self._ready.first), self._ready.given
        self.gradient, out = model.layout.target(Gradient, program.outputs, model.params)
        found = cut.run(program, given, out)
        if self._ready is not None:
            self._ready.take(found)
        self.outputs, self._labels = found[Outputs()], cut.labels
        h = completed(model, self.gradient, *cut.measured(found[Losses()]))
        self.loss, self.objective = h.loss, h.objective
        self.count = float(cut.count if h.counted is None else h.counted)

    @property
    def passes(self) -> int:
        """How often all pieces have been gone through."""
        return self._cut.passes

    def _run(
        self,
        program: Program,
        given: Mapping[Input, Tensor] | None = None,
        out: Mapping[Output, Tensor] | None = None,
    ) -> dict[Output, Tensor]:
        """A program's outputs, in a pass over all pieces."""
        self._check_fresh()
        return self._cut.run(program, given, out)

    def data_product(
        self,
        v: Tensor,
        curvature: str = "hessian",
        product: str = "r-operator",
        *,
        by_layer: bool = False,
    ) -> Tensor:
        """Returns C v, see `Linearization.data_product`; no Jacobian of all samples is stored."""
        check_product(curvature, product)
        return super().data_product(v, curvature, by_layer=by_layer)

    def _by_layer(self, key: Callable[[str], Output], program: Program, v: Tensor) -> Tensor:
        """Σ_l P_l C P_l v, in one pass."""
        curvature = "hessian" if key is Hvp else "ggn"
        return self._product(key, self.programs.by_layer(curvature), v)

    def forms_of_each(self, spans: Sequence[Sequence[Tensor]], curvature: str) -> list[Tensor]:
        """Returns the forms of each span of directions, see `quadratic_forms`, in one pass."""
        vs = [self._vector(v) for span in spans for v in span]
        widths = tuple(map(len, spans))
        two = self.model.two_products(self._most)
        found = self._run(self.programs.spans(widths, curvature, two), self._directions(vs))
        ends = accumulate(widths, initial=0)
        return [self._matrix(found, span, first) for span, first in zip(spans, ends, strict=False)]

    def _factors(
        self,
        wanted: Wanted,
        generator: torch.Generator | None,
        memory: dict[Output, Tensor] | None,
        owners: Owners | None,
    ) -> dict[str, Factors]:
        """Returns the factors that are wanted, from the first pass where they were asked for.

        They are summed for all ranks, whoever owns them.
        """
        self._check_fresh()
        ready, self._ready = self._ready, None
        asked = Asked(wanted, generator)
        if ready is None or ready.asked != asked:
            ready = Gathering(self._cut, asked)
        return ready.factors()

"""Factors of a batch: what is asked for, the labels that are drawn, statistics of all ranks."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from ...compiler.curvature.blocks import SHARINGS, DiagonalLayer, KroneckerLayer
from ...compiler.curvature.factors import (
    KINDS,
    Diagonal,
    GradientsGram,
    InputsGram,
    InputsMean,
    Wanted,
)
from ...compiler.curvature.recursion import check_pos_eig
from ...compiler.graph.ir import Node, Op, batch_axis, concrete
from ...compiler.graph.options import check_count, check_flag, check_option
from ...compiler.graph.program import Output, Program
from ...compiler.programs import Programs
from ..inputs.layout import Layout
from ..parallel.owners import Owners
from ..parallel.ranks import Ranks
from ..parallel.share import Share
from .compiled import Compiled
from .statistics import is_symmetric

GRAMS = Op.GRAM, Op.PATCH_GRAM  # ops whose values are large and share no memory


def check_wanted(
    layout: Layout,
    kind: str,
    samples: int,
    means: Collection[str],
    layers: Collection[str] | None,
    per_sample: bool,
    *,
    sharing: str,
    max_factor: int,
    max_copies: int,
    pos_eig: float | None,
) -> Wanted:
    """Returns which factors a call of `Linearization.kronecker_factors` asks for.

    Raises:
        NewtritonError: an option is unknown or out of its range, or there is no such layer.
    """
    check_option("kind", kind, KINDS)
    check_count("samples", samples)
    check_option("sharing", sharing, SHARINGS)
    limits = {"max_factor": check_count("max_factor", max_factor)}
    limits["max_copies"] = check_count("max_copies", max_copies)
    gamma = check_pos_eig(kind, pos_eig)

    def known(what: str, names: object) -> frozenset[str]:
        return frozenset(layout.check_layers(what, names))

    return Wanted(
        kind,
        samples,
        known("means", means),
        None if layers is None else known("layers", layers),
        check_flag("per_sample", per_sample),
        sharing=sharing,
        pos_eig=gamma,
        **limits,
    )


def described(model: Compiled, wanted: Wanted) -> list[KroneckerLayer | DiagonalLayer]:
    """Returns the blocks of which there are factors."""
    return model.blocks if wanted.layers is None else model.blocks_of(wanted.layers)


def drawn(model: Compiled, node: Node, batch: int, generator: torch.Generator | None) -> Tensor:
    """Returns the uniform or normal random numbers that a leaf stands for."""
    draw = torch.rand if model.criterion.noise == "uniform" else torch.randn
    device = model.device if generator is None else generator.device
    shape = concrete(node.shape, batch)
    return draw(shape, generator=generator, dtype=model.dtype, device=device).to(model.device)


def own_samples(node: Node, drawn: Tensor, share: Share | None) -> Tensor:
    """Returns the random numbers of the samples that are here, of those of the whole batch."""
    axis = batch_axis(node.shape)
    if share is None or axis is None:
        return drawn
    times = node.shape[axis].times
    if share.order is None or not share.here:
        return drawn.narrow(axis, times * (share.first if share.here else 0), times * share.run)
    inside = torch.arange(times, device=drawn.device)  # the positions of a sample
    rows = share.order.to(drawn.device).unsqueeze(1) * times + inside
    return drawn.index_select(axis, rows.flatten())


def sum_statistics(
    model: Compiled,
    programs: Programs,
    program: Program,
    found: Mapping[Output, Tensor],
    ranks: Ranks,
    owners: Owners | None = None,
) -> None:
    """Sums over ranks, in place, what each contributes to statistics; no tensor twice.

    Args:
        model: the model.
        programs: those that the linearization is of.
        program: what gave the statistics.
        found: its results.
        ranks: the ranks, as one takes part that has so many samples.
        owners: the ranks that alone get the sums of a layer; None for all.
    """
    if model.parallel is None:
        return
    parts, about = programs.parts(program), dict[int, list[Output]]()
    for key in program.outputs:
        if key in parts:
            about.setdefault(id(found[key]), []).append(key)
    blocks = {block.layer: block for block in model.known_blocks}
    order = [keys[0] for keys in about.values()]
    symmetric = [key for key in order if is_symmetric(blocks, key, found[key])]
    flat = [key for key in order if key not in symmetric]
    numbers, matrices = ([found[key] for key in keys] for keys in (flat, symmetric))
    if owners is None or owners.everything:
        ranks.sum_(*numbers, symmetric=matrices, dtype=model.parallel.dtype)
        return
    ranks.silence(*numbers, *matrices)
    names = [
        {_parameter(blocks, key) for key in about[id(found[first])]}
        for first in (*flat, *symmetric)
    ]
    owners.sum_(*numbers, symmetric=matrices, dtype=model.parallel.dtype, names=names)


def _parameter(blocks: Mapping[str, KroneckerLayer | DiagonalLayer], key: Output) -> str:
    """Returns a parameter of the layer that a statistic is about."""
    if isinstance(key, Diagonal):
        return key.parameter
    assert isinstance(key, (InputsGram, InputsMean, GradientsGram))
    return blocks[key.layer].names[0]

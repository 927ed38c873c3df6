"""From the statistics that a program has computed to the factors of every layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from ...compiler.curvature.blocks import DiagonalLayer, KroneckerLayer
from ...compiler.curvature.factors import (
    Diagonal,
    GradientsGram,
    InputsGram,
    InputsMean,
    LayerAdjoints,
    LayerInputs,
)
from ...compiler.graph.program import Output
from ..parallel.ranks import Ranks
from .factors import DiagonalFactors, Factors, KroneckerFactors, MeanFactors
from .moments import SampledFactors


def factors_of(
    blocks: Iterable[KroneckerLayer | DiagonalLayer],
    found: Mapping[Output, Tensor],
    weight: float = 1.0,
    ranks: Ranks | None = None,
    samples: int | None = None,
) -> dict[str, Factors]:
    """Returns factors by layer.

    Args:
        blocks: the layers of a network.
        found: the statistics of these layers.
        weight: what makes a sum over squared adjoints a second moment, where there are samples.
        ranks: those that have other samples, if any.
        samples: how many samples all ranks have.
    """
    found, result = _apart(found), dict[str, Factors]()
    for block in blocks:
        if isinstance(block, KroneckerLayer):
            pair, inputs = _pair(block, found), found.get(LayerInputs(block.layer))
            if inputs is not None and isinstance(pair, KroneckerFactors):
                adjoints = found[LayerAdjoints(block.layer)]
                pair = SampledFactors(pair, block, inputs, adjoints, weight, ranks, samples)
            result[block.layer] = pair
        else:
            diagonal = {name: found[Diagonal(name)] for name in block.names}
            result[block.layer] = DiagonalFactors(diagonal)
    return result


def is_symmetric(
    blocks: Mapping[str, KroneckerLayer | DiagonalLayer], key: Output, found: Tensor
) -> bool:
    """Whether a statistic is a symmetric matrix, or a stack of them: no vector, and no diagonal."""
    if not isinstance(key, (InputsGram, GradientsGram)):
        return False
    block = blocks[key.layer]
    return isinstance(block, KroneckerLayer) and not block.is_diagonal(found.dim())


def variances(statistics: Mapping[str, Tensor]) -> list[Tensor]:
    """Returns the variances of a batch: where its statistics are not finite, these are not."""
    return [x for name, x in statistics.items() if name.endswith("running_var")]


def _pair(block: KroneckerLayer, found: Mapping[Output, Tensor]) -> KroneckerFactors | MeanFactors:
    """Returns a layer's pair, with A or the mean of its inputs, whichever was found."""
    g, homogeneous = found[GradientsGram(block.layer)], block.bias is not None
    mean = found.get(InputsMean(block.layer))
    if mean is None:
        a = found[InputsGram(block.layer)]
        both = {"A": a, "G": g}
        diagonal = tuple(name for name, side in both.items() if block.is_diagonal(side.dim()))
        return KroneckerFactors(a, g, block.kernel, homogeneous, diagonal)
    lead = (block.groups,) if block.groups > 1 else ()
    diagonal = ("G",) if block.is_diagonal(g.dim()) else ()
    mean = mean.reshape(*lead, -1)
    return MeanFactors(mean, g, block.kernel, homogeneous, diagonal=diagonal)


def _apart(found: Mapping[Output, Tensor]) -> dict[Output, Tensor]:
    """Returns the same tensors, none of them twice: layers that share one get a copy each."""
    result: dict[Output, Tensor] = {}
    seen: set[int] = set()
    for key, tensor in found.items():
        result[key] = tensor.clone() if id(tensor) in seen else tensor
        seen.add(id(tensor))
    return result

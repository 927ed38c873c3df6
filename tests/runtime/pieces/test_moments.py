"""Second moments in eigenbases, of all layers in one pass over the pieces."""

from __future__ import annotations

import pytest
import torch

from newtriton.runtime.model.moments import SampledFactors
from newtriton.runtime.pieces.linearized import LinearizedPieces
from newtriton.runtime.pieces.moments import PiecewiseFactors

from .cases import CASES


@pytest.mark.parametrize("kind", ["kfac", "empirical", "kflr"])
@pytest.mark.parametrize("name", ["images", "ignored", "sequences, some ignored"])
def test_moments_are_those_of_the_batch(name: str, kind: str) -> None:
    case = CASES[name]
    model, batch = case.model(), case.batch(8)
    whole = model.linearize(*batch)
    with model.dropout.kept():
        pieces = LinearizedPieces(model, *batch, 3)
    found, expected = (
        lin.kronecker_factors(kind, 1, torch.Generator().manual_seed(2), per_sample=True)
        for lin in (pieces, whole)
    )
    before, later = pieces.passes, {}
    bases = {}
    for layer, factors in found.items():
        assert isinstance(factors, PiecewiseFactors)
        pair = factors.pair
        bases[layer] = [torch.linalg.eigh(x).eigenvectors for x in (pair.A_stored, pair.G)]
        later[layer] = factors.moments(*bases[layer])
    assert pieces.passes == before
    for layer, moments in later.items():
        factors = expected[layer]
        assert isinstance(factors, SampledFactors)
        torch.testing.assert_close(
            moments(), factors.second_moments(*bases[layer]), rtol=1e-11, atol=1e-18
        )
        bounds = [each.tensors["bound"] for each in (found[layer], factors)]
        assert float(bounds[0]) >= 0.99 * float(bounds[1]), "no moment exceeds either"
    assert pieces.passes == before + 1

"""Factors in pieces: what the first pass gathers, and the generators of labels."""

from __future__ import annotations

import torch

from newtriton.compiler.curvature.factors import Wanted
from newtriton.runtime.pieces.gathering import Asked
from newtriton.runtime.pieces.linearized import LinearizedPieces

from .cases import CASES


def linearized(asked: Asked | None) -> LinearizedPieces:
    case = CASES["weighted"]
    return LinearizedPieces(case.model(), *case.batch(8), 3, asked=asked)


def test_what_is_asked_for_comes_with_the_gradient() -> None:
    asked = Asked(Wanted("kfac", samples=2), torch.Generator().manual_seed(0))
    pieces = linearized(asked)
    assert pieces.passes == 1
    found = pieces.kronecker_factors("kfac", 2, asked.generator)
    assert pieces.passes == 1
    alone = linearized(None)
    again = alone.kronecker_factors("kfac", 2, torch.Generator().manual_seed(0))
    assert alone.passes == 2
    for layer, factors in found.items():
        for name, value in factors.tensors.items():
            assert torch.equal(value, again[layer].tensors[name])


def test_what_is_asked_for_comes_once_and_to_those_who_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    pieces = linearized(Asked(Wanted("kfac"), generator))
    pieces.kronecker_factors("kfac", 2, generator)
    assert pieces.passes == 2, "two draws are another question"
    pieces = linearized(Asked(Wanted("kfac"), generator))
    first, second = (pieces.kronecker_factors("kfac", 1, generator) for _ in range(2))
    assert pieces.passes == 2
    assert not torch.equal(first["0"].tensors["G"], second["0"].tensors["G"]), "other labels"


def test_a_generator_moves_on_when_factors_are_taken() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    pieces = linearized(Asked(Wanted("kfac"), generator))
    assert torch.equal(generator.get_state(), before)
    pieces.kronecker_factors("kfac", 1, generator)
    assert not torch.equal(generator.get_state(), before)


def test_without_a_generator_labels_are_drawn_from_the_global_one() -> None:
    torch.manual_seed(4)
    whole = CASES["weighted"].model().linearize(*CASES["weighted"].batch(8))
    expected = whole.kronecker_factors("kfac")["0"].tensors["G"]
    torch.manual_seed(4)
    found = linearized(None).kronecker_factors("kfac")["0"].tensors["G"]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)

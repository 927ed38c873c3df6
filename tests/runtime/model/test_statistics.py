"""Factors from statistics: each layer gets its own, of the kind that was found."""

from __future__ import annotations

import torch

import newtriton as nt
from newtriton.compiler.curvature.factors import (
    Diagonal,
    DiagonalLayer,
    GradientsGram,
    InputsGram,
    InputsMean,
    KroneckerLayer,
)
from newtriton.compiler.graph.program import Output
from newtriton.runtime.model.statistics import factors_of

LINEAR = KroneckerLayer("0", "0.weight", "0.bias", groups=1, kernel=(1, 1))
CONV = KroneckerLayer("1", "1.weight", None, groups=2, kernel=(3, 2))
NORM = DiagonalLayer("2", ("2.weight", "2.bias"))


def test_a_pair_of_grams() -> None:
    a, g = torch.rand(4, 4), torch.rand(2, 2)
    found = factors_of([LINEAR], {InputsGram("0"): a, GradientsGram("0"): g})["0"]
    assert isinstance(found, nt.KroneckerFactors)
    assert torch.equal(found.A_stored, a) and torch.equal(found.G, g)
    assert (found.kernel, found.homogeneous) == ((1, 1), True)


def test_means_take_the_place_of_grams_where_they_were_found() -> None:
    mean, g = torch.rand(12), torch.rand(2, 3, 3)
    found = factors_of([CONV], {InputsMean("1"): mean, GradientsGram("1"): g})["1"]
    assert isinstance(found, nt.MeanFactors)
    assert torch.equal(found.mean, mean.view(2, 6))  # a row per group
    assert (found.kernel, found.homogeneous) == ((3, 2), False)


def test_diagonals_by_parameter() -> None:
    parts = {name: torch.rand(3) for name in NORM.names}
    found = factors_of([NORM], {Diagonal(name): x for name, x in parts.items()})["2"]
    assert isinstance(found, nt.DiagonalFactors)
    assert all(torch.equal(found.tensors[name], x) for name, x in parts.items())


def test_layers_that_share_a_statistic_get_a_copy_each() -> None:
    shared = torch.rand(4, 4)
    other = KroneckerLayer("3", "3.weight", "3.bias", groups=1, kernel=(1, 1))
    statistics: dict[Output, torch.Tensor] = {
        InputsGram("0"): shared, GradientsGram("0"): torch.eye(2),
        InputsGram("3"): shared, GradientsGram("3"): torch.eye(2),
    }  # fmt: skip
    found = factors_of([LINEAR, other], statistics)
    first, second = (found[name].tensors["A"] for name in ("0", "3"))
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()
    assert shared.data_ptr() in (first.data_ptr(), second.data_ptr())

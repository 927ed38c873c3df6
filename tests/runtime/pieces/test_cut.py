"""Batches that are cut: pieces, numbers of the whole batch, sums and rows."""

from __future__ import annotations

import pytest
import torch

from newtriton.compiler.values import Losses, Normaliser, RandomNumbers, Samples
from newtriton.runtime.pieces.cut import CutBatch

from .cases import CASES


@pytest.mark.parametrize(("size", "expected"), [(3, [3, 3, 2]), (4, [4, 4]), (9, [8])])
def test_pieces_follow_each_other_and_the_last_may_be_smaller(
    size: int, expected: list[int]
) -> None:
    case = CASES["weighted"]
    cut = CutBatch(case.model(), *case.batch(8), size)
    pieces = [*cut.pieces()]
    assert [count for _, count in pieces] == expected
    assert [start for start, _ in pieces] == [sum(expected[:i]) for i in range(len(expected))]
    assert cut.passes == 1 and cut.is_cut == (len(expected) > 1)


@pytest.mark.parametrize("name", ["weighted", "ignored", "sequences"])
def test_programs_divide_by_the_numbers_of_the_whole_batch(name: str) -> None:
    case = CASES[name]
    model, (x, y) = case.model(), case.batch(8)
    cut = CutBatch(model, x, y, 3)
    assert float(cut.numbers[Samples()]) == 8.0
    assert float(cut.numbers[Normaliser()]) == float(model.count(y)) == float(cut.count)


def test_rows_are_put_together_and_what_drops_out_is_that_of_the_batch() -> None:
    case = CASES["images"]
    model, (x, y) = case.model(), case.batch(8)
    model.linearize(x, y)
    whole = model.dropout(model.runner.context(8))
    cut = CutBatch(model, x, y, 3)
    losses = cut.run(cut.programs.evaluate)[Losses()]
    assert losses.shape == (8,)
    assert float(cut.measured(losses)[1][0]) == pytest.approx(model.objective(x, y), rel=1e-14)
    for key, numbers in whole.items():
        assert isinstance(key, RandomNumbers)
        parts = [
            model.dropout(model.runner.context(count), model.dropout.now.at(start, count))[key]
            for start, count in cut.pieces()
        ]
        assert torch.equal(torch.cat(parts), numbers)


def test_samples_from_all_over_the_data_keep_what_drops_out() -> None:
    model = CASES["images"].model()
    places = torch.tensor([5, 2, 7, 1])
    with model.dropout.kept(places):
        whole, drawn = model.dropout(model.runner.context(4)), model.dropout.now
    parts = [model.dropout(model.runner.context(2), drawn.at(start, 2)) for start in (0, 2)]
    for key, numbers in whole.items():
        assert torch.equal(torch.cat([part[key] for part in parts]), numbers)

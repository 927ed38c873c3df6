"""What PyTorch's operators move and hold is what they must read and write."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from newtriton.bench.sequences.counting import Moved

BYTES = 4


def vector(*shape: int) -> Tensor:
    return torch.ones(shape, device="meta")


@pytest.mark.parametrize(
    ("call", "numbers"),
    [
        (lambda x: x + x, 100 + 100),  # read once
        (lambda x: x + vector(1), 100 + 1 + 1 + 100),  # with what makes the number
        (lambda x: x.view(10, 10).t()[2:5], 0),
        (lambda x: x.add_(1.0), 100 + 100),
        (lambda x: x.zero_(), 100),
        (lambda x: vector(1).expand(100) + x, 1 + 1 + 100 + 100),
        (torch.empty_like, 0),
        (lambda x: x.view(10, 10) @ x.view(10, 10).t(), 2 * 100 + 100),
    ],
)
def test_bytes_that_are_read_and_written(call: Callable[[Tensor], Tensor], numbers: int) -> None:
    x = vector(100)
    with Moved() as found:
        call(x)
    assert found.moved == BYTES * numbers


def test_rows_that_are_looked_up_are_few() -> None:
    table, words = vector(1000, 8), torch.zeros(5, dtype=torch.int64, device="meta")
    with Moved() as found:
        nn.functional.embedding(words, table)
    assert found.moved == BYTES * (5 * 8 + 5 * 8) + 8 * 5


def test_a_loss_reads_its_labels_alone() -> None:
    z, y = vector(64, 50).requires_grad_(), torch.zeros(64, dtype=torch.int64, device="meta")
    with Moved() as found:
        loss = functional.nll_loss(z, y)
    assert found.moved < BYTES * 64
    with Moved() as found:
        loss.backward()
    assert BYTES * 64 * 50 <= found.moved < BYTES * 64 * 52 + 8 * 64


def test_what_is_held_is_what_is_alive() -> None:
    with Moved() as found:
        x = vector(100)
        for _ in range(3):
            x = x + 1.0
    assert found.held == 2 * 100 * BYTES
    assert found.now == x.nbytes

"""Runs that ranks train: saved by the first, gone on with by another number of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import newtriton as nt
from tests.runtime.parallel.workers import with_options, workers


def fitted(
    parallel: nt.DataParallel | None,
    path: str,
    epochs: int,
    resume: str,
    memory: str = "replicated",
) -> tuple[Tensor, list[float], float | None]:
    parallel = None if parallel is None else with_options(parallel, memory=memory)
    net = nt.Sequential(nt.Linear(6), nt.BatchNorm1d(), nt.Tanh(), nt.Dropout(0.1), nt.Linear(3))
    loss = nt.CrossEntropyLoss()
    model = nt.compile(net, (4,), loss, dtype=torch.float64, device="cpu", parallel=parallel)
    x = torch.randn(25, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = x[:, :3].argmax(1)
    train = nt.Batches(x, y, 10, parallel=parallel, transform=noisy)
    validation = nt.Batches(x, y, 10, shuffle=False, parallel=parallel)
    history = nt.fit(
        model, nt.FITRE(model), train, validation, epochs, progress=False, checkpoint=path,
        resume=resume,
    )  # fmt: skip
    losses = [step["loss"] for step in history.steps]
    return model.params, losses, history.epochs[-1].validation_accuracy


def noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@pytest.mark.parametrize(
    ("first", "then", "memory"),
    [(2, 3, "replicated"), (3, 0, "owned"), (0, 2, "owned"), (3, 2, "owned")],
)
def test_another_number_of_ranks_goes_on(
    tmp_path: Path, first: int, then: int, memory: str
) -> None:
    """0 stands for a process by itself."""

    def trained(size: int, *args: object) -> list[tuple[Tensor, list[float], float | None]]:
        return workers(size)(fitted, *args) if size else [fitted(None, *args)]  # type: ignore

    ((expected, losses, accuracy),) = trained(0, str(tmp_path / "whole"), 4, "never")
    trained(first, str(tmp_path / "run"), 2, "never", memory)
    for params, again, share in trained(then, str(tmp_path / "run"), 4, "auto", memory):
        assert torch.allclose(params, expected, rtol=1e-8)
        assert again == pytest.approx(losses, rel=1e-8) and share == accuracy


def refused(parallel: nt.DataParallel, path: str) -> str:
    try:
        fitted(parallel, path, 1, "never")
    except nt.NewtritonError as error:
        return str(error)
    return ""


def test_what_the_first_rank_cannot_begin_nobody_begins(tmp_path: Path) -> None:
    fitted(None, str(tmp_path), 1, "never")
    first, second = workers(2)(refused, str(tmp_path))
    assert str(tmp_path) in first
    assert second == "rank 0 could not begin the run: its own error says why"

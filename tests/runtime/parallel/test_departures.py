"""A rank that raises an error where the others do not ends what they do together, at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.runtime.model.runner import Runner

from .cases import PRESETS, compiled, part, samples
from .workers import equal_everywhere, fresh, workers

COUNT = 11
CUTS = {2: (0, 4, COUNT), 3: (0, 4, 7, COUNT)}
ODD = 1  # the rank on which something happens


class Broken(Exception):
    """An error that is none of newtriton's."""


def batch(parallel: nt.DataParallel, name: str = "chain") -> list[Tensor]:
    return [part(parallel, t, CUTS[parallel.ranks.size]) for t in samples(name, COUNT)]


def said(call: Callable[[], Any]) -> str:
    """Returns what a call raises, by its type and in words."""
    try:
        call()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


# --- an error in the middle of a step -------------------------------------------------------------


def run_failing(at: int) -> Callable[..., Any]:
    """Returns `Runner.run`, of which a call fails."""
    calls, run = iter(range(at + 1)), Runner.run

    def failing(*args: Any, **options: Any) -> Any:
        if next(calls, -1) == at:
            raise Broken("a program\nhas failed")
        return run(*args, **options)

    return failing


def stepped(parallel: nt.DataParallel, preset: str, at: int) -> tuple[str, str, bool]:
    """A step in which a program fails on one rank, the call after it, and if nothing has moved."""
    name, make = PRESETS[preset]
    parallel = fresh(parallel)
    model = compiled(name, parallel)
    optimizer, (x, y), before = make(model), batch(parallel, name), model.params.clone()
    with pytest.MonkeyPatch.context() as patch:
        if parallel.ranks.rank == ODD:
            patch.setattr(Runner, "run", run_failing(at))
        first = said(lambda: optimizer.step(x, y))
    return first, said(lambda: optimizer.step(x, y)), torch.equal(model.params, before)


@pytest.mark.parametrize("preset", ["FITRE", "KFRA", "Steihaug", "Adam"])
def test_an_error_on_one_rank_is_one_on_all(preset: str) -> None:
    for at in (0, 1, 2) if preset != "Adam" else (0,):
        found = workers(3)(stepped, preset, at)
        for rank, (first, second, unmoved) in enumerate(found):
            assert unmoved
            if rank == ODD:
                assert first.startswith("Broken")
                assert "rank 1 has raised an error, which ends the run on all: Broken" in second
                continue
            assert first == second
            assert first.startswith(
                "NewtritonError: rank 1 has raised an error, which ends the run on all: Broken: a "
                "program has failed"
            )


def between(parallel: nt.DataParallel) -> str:
    """What some of the ranks say of one that leaves before it talks to them."""
    ranks = fresh(parallel, 60.0).ranks
    if ranks.rank == 2:
        return ranks.begin() or "nothing"
    part = ranks.part(range(2), timedelta(seconds=60))
    ranks.begin()

    def call() -> None:
        with ranks.told():
            if ranks.rank == ODD:
                raise Broken("no memory")
            part.most(1)

    return said(call)


def test_an_error_in_a_call_of_some_ranks_is_one_on_these() -> None:
    first, second, _ = workers(3)(between)
    assert "rank 1 has raised an error" in first and second == "Broken: no memory"


# --- errors on all, after which all go on ---------------------------------------------------------


def spoilt(parallel: nt.DataParallel) -> tuple[list[str], bool]:
    """Errors that all ranks raise, in one place and in several; then a step."""
    model, (x, y) = compiled("chain", parallel), batch(parallel)
    optimizer = nt.FITRE(model)
    found = [said(lambda: model.linearize(x[:, :1], y)), said(lambda: optimizer.step(x, y[:1]))]
    lin = model.linearize(x, y)
    found += [said(lambda: lin.hvp(model.params[:3])), said(lambda: model.loss(x / 0.0, y))]
    optimizer.step(x, y)
    return found, equal_everywhere(parallel.ranks, model.params)


def test_ranks_that_all_raise_an_error_go_on() -> None:
    for found, equal in workers(2)(spoilt):
        assert equal and {t.split(":")[0] for t in found} == {"NewtritonError", "ShapeError"}


# --- memory ---------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[nt.Model, Tensor, Tensor], Any]] = {
    "linearize": lambda m, x, y: m.linearize(x, y),
    "gradient": lambda m, x, y: m.gradient(x, y),
    "loss": lambda m, x, y: m.loss(x, y),
    "outputs": lambda m, x, y: m(x),
    "FITRE": lambda m, x, y: nt.FITRE(m).step(x, y),
    "pieces": lambda m, x, y: nt.FITRE(m, micro_batch=2).step(x, y),
    "Adam": lambda m, x, y: nt.TorchOptimizer(m, torch.optim.Adam).step(x, y),
    "Preconditioned": lambda m, x, y: nt.Preconditioned(m, torch.optim.SGD, lr=0.1).step(x, y),
}


def refused(parallel: nt.DataParallel) -> dict[str, tuple[str, str, bool]]:
    """Calls for which one rank has no memory, and the same again where it has."""
    found = {}
    for name, call in CALLS.items():
        model, (x, y) = compiled("chain", parallel), batch(parallel)
        with pytest.MonkeyPatch.context() as patch:
            if parallel.ranks.rank == ODD:
                patch.setenv("NEWTRITON_MEMORY", "1000")
            first = said(partial(call, model, x, y))
        second = said(partial(call, model, x, y))
        found[name] = first, second, equal_everywhere(parallel.ranks, model.params)
    return found


def test_a_refusal_for_memory_is_one_on_all_after_which_they_go_on() -> None:
    for rank, found in enumerate(workers(3)(refused)):
        for first, second, equal in found.values():
            expected = "are free" if rank == ODD else "rank 1 refused its part of the batch"
            assert expected in first and second == "nothing" and equal


# --- runs -----------------------------------------------------------------------------------------


class Failing:
    """Batches of which one raises an error.

    Args:
        batches: the batches.
        error: what is raised instead of the second one.
    """

    def __init__(self, batches: list[Any], error: BaseException | None) -> None:
        self.batches, self.error = batches, error

    def __iter__(self) -> Iterator[Any]:
        yield self.batches[0]
        if self.error is not None:
            raise self.error
        yield from self.batches[1:]


def fitted(parallel: nt.DataParallel, what: str) -> str:
    """What becomes of a run in which something differs on one rank."""
    parallel = fresh(parallel)
    odd = parallel.ranks.rank == ODD
    model, pair = compiled("chain", parallel), batch(parallel)
    batches: list[Any] = [pair] * 3
    error = Broken("no such file") if odd and what == "data" else None
    if odd and what == "interrupt":
        error = KeyboardInterrupt()
    train: Any = Failing(batches[: 2 if odd and what == "number" else 3], error)
    if what == "known number":
        train = batches[: 2 if odd else 3]
    if what == "order":
        train = nt.Batches(*samples("chain", COUNT), 4, seed=int(odd), parallel=parallel)
    validation = Failing(batches, Broken("no pixel") if odd and what == "validation" else None)

    def called(history: nt.History) -> bool:
        if odd and what == "callback":
            raise Broken("nobody listens")
        return False

    optimizer = nt.KFAC(model) if odd and what == "optimizer" else nt.FITRE(model)
    if odd and what == "option":
        optimizer = nt.FITRE(model, every=7)
    epochs = 3 if odd and what == "epochs" else 2
    options: Any = {"progress": False, "callbacks": [called]}
    return said(lambda: nt.fit(model, optimizer, train, validation, epochs, **options))


LEFT = "rank 1 has raised an error, which ends the run on all: "
RUNS = {  # what happens on one rank: what it raises, and what others do
    "nothing": ("nothing", "nothing"),
    "data": ("Broken: no such file", f"{LEFT}Broken: no such file"),
    "validation": ("Broken: no pixel", f"{LEFT}Broken: no pixel"),
    "callback": ("Broken: nobody listens", f"{LEFT}Broken: nobody listens"),
    "interrupt": ("nothing", f"{LEFT}KeyboardInterrupt (what"),
    "number": ("rank 1 has fewer batches than other ranks", "rank 1 has fewer batches"),
    "known number": ("rank 1 has another number of batches", "rank 1 has another number of bat"),
    "optimizer": ("rank 1 has another optimizer than rank 0", "rank 1 has another optimizer"),
    "option": ("rank 1 has another optimizer than rank 0", "rank 1 has another optimizer"),
    "epochs": ("rank 1 has another call of fit than rank 0", "rank 1 has another call of fit"),
    "order": ("rank 1 has another order of the data", "rank 1 has another order of the data"),
}


@pytest.mark.parametrize("what", RUNS)
def test_a_run_ends_on_all_ranks(what: str) -> None:
    own, others = RUNS[what]
    for rank, text in enumerate(workers(3)(fitted, what)):
        assert (own if rank == ODD else others) in text

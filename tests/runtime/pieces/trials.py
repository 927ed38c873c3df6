"""Optimizers with `micro_batch=` beside those without: what is compared, and trials at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.runtime.curvatures.kronecker import STRUCTURES

from ...tolerances import relative_error
from .cases import CASES, Case

STEPS, EXACT = 6, 1e-12
Make = Callable[..., Any]


def of(curvature: str, solver: str, rule: str, **options: Any) -> Make:
    return lambda model, **more: nt.SecondOrder(model, curvature, solver, rule, **options, **more)


OPTIMIZERS: dict[str, Make] = {
    "FITRE": nt.FITRE,
    "FITRE's paper": lambda m, **k: nt.FITRE(m, case="subspace", noise=None, every=2, **k),
    "KFAC": nt.KFAC,
    "KFAC's paper": lambda m, **k: nt.KFAC(m, noise=None, samples=2, **k),
    "KFRA": nt.KFRA,
    "KFLR": nt.KFLR,
    "EACG": nt.EACG,
    "NewtonCG": lambda m, **k: nt.NewtonCG(m, sample=1.0, **k),
    "NewtonCG on a sample": lambda m, **k: nt.NewtonCG(m, sample=0.6, preconditioner="kfac", **k),
    "Adam": lambda m, **k: nt.TorchOptimizer(m, torch.optim.Adam, lr=0.01, **k),
    "L-BFGS": lambda m, **k: nt.TorchOptimizer(m, torch.optim.LBFGS, lr=0.1, max_iter=3, **k),
    "Preconditioned": lambda m, **k: nt.Preconditioned(m, torch.optim.SGD, lr=0.1, **k),
    "Preconditioned in part": lambda m, **k: nt.Preconditioned(
        m, torch.optim.SGD, lr=0.1, plain=["0"], clip=0.01, every=1, curvature="empirical", **k
    ),
    **{kind: of(kind, "kfi", "trust-region") for kind in STRUCTURES},
    **{kind: of(kind, "steihaug", "trust-region") for kind in ("hessian", "ggn")},
    **{
        f"{kind}-layers": of(f"{kind}-layers", "truncated-cg", "levenberg-marquardt")
        for kind in ("hessian", "ggn")
    },
}  # fmt: skip


def agree(a: Any, b: Any) -> bool:
    """Whether two fields of reports are equal, numbers to rounding."""
    if isinstance(a, float) and isinstance(b, float):
        return a == pytest.approx(b, rel=1e-9, abs=1e-13, nan_ok=True)
    return a == b


def check(
    make: Make, case: Case, samples: int = 8, size: int = 3, steps: int = STEPS, seed: int = 0
) -> None:
    """Compares steps on batches that are whole and in pieces."""
    whole, pieces = case.model(), case.model()
    first, second = make(whole), make(pieces, micro_batch=size)
    for step in range(steps):
        batch = case.batch(samples, seed=seed + step % 3)
        reports = first.step(*batch), second.step(*batch)
        for field in fields(reports[0]):
            pair = [getattr(report, field.name) for report in reports]
            assert agree(*pair), f"step {step}: {field.name} {pair}"
        assert relative_error(pieces.params, whole.params) < EXACT * (step + 1), f"step {step}"


def trial(seed: int, folder: Path) -> str:
    """A step or two of an optimizer, on batches and pieces of any size."""
    draw = Random(seed)
    name, case = draw.choice([*OPTIMIZERS]), draw.choice([*CASES])
    samples, size, steps = draw.randint(5, 12), draw.randint(1, 12), draw.randint(1, 3)
    what = f"seed {seed}: {name} on {case}, {samples} samples in pieces of {size}"
    try:
        OPTIMIZERS[name](CASES[case].model())
    except nt.NewtritonError:
        return "refused"
    try:
        check(OPTIMIZERS[name], CASES[case], samples, size, steps, seed)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from error
    return "the same" if samples > size else "taken whole"

"""What programs take on fused kernels is what `explain` says of them."""

from __future__ import annotations

import pytest

import newtriton as nt
from newtriton.bench.pages import planned
from newtriton.bench.pages.results import FOLDER, Results

from ...sources import ROOT


def test_plans_are_counted_as_explain_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    small = nt.models.small_cnn
    monkeypatch.setattr(nt.models, "vgg11", lambda: nt.Sequential(small(), nt.Linear(4)))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    net = nt.models.vgg11()
    model = nt.compile(net, (3, 32, 32), nt.CrossEntropyLoss(), backend="triton", device="cpu")
    told = {line.split("  ")[0]: line.split() for line in model.explain(planned.BATCH).splitlines()}
    counted = [line.strip("| ").split(" | ") for line in planned.planned(Results(ROOT / FOLDER))][
        2:
    ]
    for name, (_, launches, fused, moved) in zip(
        ("linearize", "quadratic(1, hessian)", "hvp"), counted, strict=True
    ):
        cells = told[name]
        assert launches.removesuffix(" more") == cells[-3]
        assert fused == f"{float(cells[-2]):,.0f}"
        assert moved == f"{float(cells[-6]):,.0f}"

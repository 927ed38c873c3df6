"""A reason is about a network's operation, or about the operation on all."""

from __future__ import annotations

import pytest

from newtriton.bench.peers import reasons
from newtriton.bench.peers.networks import NETS
from newtriton.bench.peers.problem import OPERATIONS


def test_a_network_goes_before_all(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {("", "hvp"): "Everywhere.", ("mlp", "hvp"): "Here."}
    monkeypatch.setattr(reasons, "REASONS", known)
    assert reasons.reason("mlp", "hvp", "curvlinops") == "Here."
    assert reasons.reason("vit", "hvp", "curvlinops") == "Everywhere."
    assert reasons.reason("vit", "kfac", "curvlinops") == ""
    assert reasons.reason("mlp", "hvp", "JAX") == "Here."
    assert reasons.reason("vit", "hvp", "JAX") == reasons.COMPILED


def test_reasons_are_sentences_about_what_is_measured() -> None:
    for (network, operation), sentence in reasons.REASONS.items():
        assert network in ("", *NETS)
        assert operation in OPERATIONS
        assert sentence[0].isupper()
        assert sentence.endswith(".")

"""Dropout layers: what they take, and the leaves that they make."""

from __future__ import annotations

from typing import Any

import pytest

import newtriton as nt
from newtriton.compiler.graph.ir import N
from newtriton.compiler.language.network import trace


@pytest.mark.parametrize("p", [-0.1, 1.1, "half", None])
def test_what_is_no_share_is_refused(p: Any) -> None:
    with pytest.raises(nt.NewtritonError, match="p is"):
        nt.Dropout(p)


def test_misplaced_layers_are_named() -> None:
    net = nt.Sequential(nt.Flatten(), nt.Dropout2d(), nt.Linear(3))
    with pytest.raises(nt.ShapeError, match=r"Dropout2d\(\) at layer 1 .* C×H×W image"):
        nt.compile(net, (2, 4, 3), nt.CrossEntropyLoss())


def test_each_place_has_random_numbers_of_its_own() -> None:
    net = nt.Sequential(
        nt.Dropout(0.2), nt.Dropout2d(), nt.Flatten(), nt.Dropout(), nt.Dropout(0.0), nt.Linear(3)
    )
    traced = trace(net, (2, 4, 3), nt.CrossEntropyLoss())
    shapes = [leaf.shape for leaf in traced.random.values()]
    assert shapes == [(N, 4, 3, 2), (N, 2), (N, 24)]
    assert not trace(net, (2, 4, 3), nt.CrossEntropyLoss(), training=False).random


def test_a_frozen_layer_drops_too() -> None:
    traced = trace(
        nt.Sequential(nt.Dropout(), nt.Linear(3).freeze(), nt.Linear(3)), (4,), nt.MSELoss()
    )
    assert len(traced.random) == 1 and list(traced.trained) == ["2.weight", "2.bias"]

"""The networks are what their names say, and grow along one axis."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from newtriton.bench.peers.networks import GROWING, NETS, SMALL, WITHOUT, network
from newtriton.bench.peers.problem import OPERATIONS


@pytest.mark.parametrize("name", [*NETS, *SMALL])
def test_a_network_takes_its_data(name: str) -> None:
    made = network(name)
    x, y = made.data(2)
    with torch.no_grad():
        z = made.module()(x)
    assert z.shape[:-1] == y.shape
    assert int(y.max()) < z.shape[-1]


def test_batch_norms_keep_no_running_statistics() -> None:
    net = network("resnet20").module()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(norm.running_mean is None for norm in norms)
    assert not list(net.buffers())


@pytest.mark.parametrize("kind", GROWING)
def test_one_thing_grows_at_equal_ratios(kind: str) -> None:
    for axis, along in GROWING[kind].items():
        ratios = {b / a for a, b in zip(along.values, along.values[1:], strict=False)}
        assert len(ratios) == 1
        first, second = (network(f"{kind}/{axis}/{value}") for value in along.values[:2])
        sizes = [sum(p.numel() for p in made.module().parameters()) for made in (first, second)]
        if axis == "batch":
            assert sizes[0] == sizes[1]
            assert (first.batch, second.batch) == along.values[:2]
        else:
            assert sizes[0] < sizes[1]
            assert first.batch == second.batch


def test_what_is_left_out_is_told() -> None:
    for name, left in WITHOUT.items():
        assert name in NETS
        assert {*left} < {*OPERATIONS}
        assert all(left.values())

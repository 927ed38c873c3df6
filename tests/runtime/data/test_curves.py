"""CURVES are images in [0, 1] that repeat, differ, and go through their points."""

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError


def test_curves_are_flat_images_and_their_own_labels() -> None:
    x, y = nt.curves(50)
    assert x is y
    assert (x.shape, x.dtype) == ((50, 784), torch.float32)
    assert 0 <= float(x.min()) < 1e-6
    assert 0.8 < float(x.max()) <= 1


def test_curves_repeat_by_their_seed_and_all_differ() -> None:
    x = nt.curves(50).x
    assert torch.equal(x, nt.curves(50).x)
    assert not torch.equal(x, nt.curves(50, seed=1).x)
    assert float(torch.pdist(x).min()) > 1.0


def test_a_curve_is_a_stroke_inside_the_plane() -> None:
    images = nt.curves(200).x.reshape(-1, 28, 28)
    share = (images > 0.5).float().mean((1, 2))
    assert 0.01 < float(share.median()) < 0.15
    border = torch.ones(28, 28, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert float((images[:, border] > 0.5).float().mean()) < 1e-3


def test_a_count_must_be_one() -> None:
    with pytest.raises(NewtritonError, match="count is 0"):
        nt.curves(0)

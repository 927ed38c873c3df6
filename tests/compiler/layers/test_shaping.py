"""Shapes, orders of axes and sizes against PyTorch's."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.language.network import Layer
from tests.compiler.functions.oracle import random

from .oracle import same_layer

SHAPES = {"features": (2, 4), "sequence": (2, 3, 4), "image": (2, 3, 4, 5), "5": (2, 3, 2, 2, 4)}


@pytest.mark.parametrize("axes", [(1, -1), (1, 2), (2, -1), (2, 3), (-2, -1)])
@pytest.mark.parametrize("kind", SHAPES)
def test_flattened(kind: str, axes: tuple[int, int]) -> None:
    shape = SHAPES[kind]
    if max(axes) < len(shape) and min(axes) != -len(shape):
        same_layer(nt.Flatten(*axes), nn.Flatten(*axes), random(*shape))


def test_unflattened() -> None:
    same_layer(nt.Unflatten(1, (2, 3)), nn.Unflatten(1, (2, 3)), random(2, 6), random(2, 6, 4))
    same_layer(nt.Unflatten(1, (3, -1, 2)), nn.Unflatten(1, (3, -1, 2)), random(2, 12))
    same_layer(nt.Unflatten(-1, (2, 2)), nn.Unflatten(-1, (2, 2)), random(2, 3, 2, 4))


class Permuted(nn.Module):
    """x.permute(dims)."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.dims)


@pytest.mark.parametrize("dims", [(0, 2, 1), (0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 3, 2)])
def test_permuted(dims: tuple[int, ...]) -> None:
    same_layer(nt.Permute(dims), Permuted(*dims), random(*(2, 3, 4, 5)[: len(dims)]))


def test_what_stays_as_it_is() -> None:
    same_layer(nt.Identity(), nn.Identity(), *(random(*shape) for shape in SHAPES.values()))


UPSAMPLED = [
    ("sequence", {"size": 7}),
    ("sequence", {"scale_factor": 2, "mode": "linear"}),
    ("image", {"size": (7, 4)}),
    ("image", {"scale_factor": 2}),
    ("image", {"scale_factor": (1.5, 2.0), "mode": "nearest-exact"}),
    ("image", {"scale_factor": 2, "mode": "bilinear"}),
    ("image", {"size": (7, 9), "mode": "bilinear", "align_corners": True}),
    ("image", {"scale_factor": 1.7, "mode": "bicubic", "align_corners": False}),
]


@pytest.mark.parametrize(("kind", "options"), UPSAMPLED)
def test_upsampled(kind: str, options: dict) -> None:
    same_layer(nt.Upsample(**options), nn.Upsample(**options), random(*SHAPES[kind]))


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: nt.Flatten(1.0), "start_dim is 1.0: give an integer"),  # type: ignore[arg-type]
    (lambda: nt.Unflatten(1, (2, 0)), "unflattened_size is (2, 0): give positive sizes"),
    (lambda: nt.Unflatten(1, 6), "unflattened_size is 6: give several"),  # type: ignore[arg-type]
    (lambda: nt.Permute((1, 0)), "dims is (1, 0): give an order of axes that begins with 0"),
    (lambda: nt.Permute((0, 2)), "dims is (0, 2): give an order"),
    (nt.Upsample, "give size or scale_factor, one of them"),
    (lambda: nt.Upsample(2, 2), "give size or scale_factor, one of them"),
    (lambda: nt.Upsample(scale_factor=0), "scale_factor is 0: give a number > 0"),
    (lambda: nt.Upsample(2, mode="cubic"), "mode is 'cubic': one of"),
    (lambda: nt.Upsample(2, align_corners=True), "align_corners has no meaning in mode"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_calls_that_mean_nothing_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(nt.NewtritonError, match=re.escape(message)):
        make()


MISFITS: list[tuple[Layer, tuple[int, ...], str]] = [
    (nt.Flatten(0), (3, 4), "start_dim is 0: the samples stand on axis 0, and 2 follow"),
    (nt.Flatten(1, 3), (3, 4), "end_dim is 3: the samples stand on axis 0"),
    (nt.Flatten(2, 1), (3, 4), "start_dim 2 lies behind end_dim 1"),
    (nt.Unflatten(1, (2, 2)), (3,), "3 elements do not make (2, 2)"),
    (nt.Permute((0, 2, 1)), (3,), "dims is (0, 2, 1), and with the samples there are 2"),
    (nt.Upsample(2), (3,), "it needs a C×L sequence or a C×H×W image"),
    (nt.Upsample(scale_factor=0.2), (3, 4), "0.2 times 4 elements leave none"),
    (nt.Upsample(scale_factor=1e300), (3, 4), "1e+300 times 4 elements are over 2³¹"),
    (nt.Upsample(scale_factor=1e300, mode="linear"), (3, 4), "elements are over 2³¹"),
    (nt.Upsample((2, 2)), (3, 4), "(2, 2) says 2 sizes, and there are 1"),
    (nt.Upsample(2, mode="bilinear"), (3, 4), "it needs a C×H×W image"),
]


@pytest.mark.parametrize(
    ("layer", "shape", "message"), MISFITS, ids=[message for *_, message in MISFITS]
)
def test_shapes_that_do_not_fit_are_named(
    layer: Layer, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(nt.ShapeError, match=re.escape(message)):
        nt.compile(nt.Sequential(layer), shape, nt.MSELoss())

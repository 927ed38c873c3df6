"""Patch Grams by lags in the interpreter against im2col."""

import pytest
import torch

from newtriton.kernels.contraction import Tiles
from newtriton.kernels.lags import PatchGeometry, assemble, rectangle_products
from newtriton.kernels.patch_gram import patch_gram_reference

from ..tolerances import RELATIVE, relative_error

CASES = [
    ((5, 5), 8, 1, (3, 3), (1, 1), (1, 1), (1, 1), True),
    ((6, 5), 6, 2, (3, 2), (2, 1), (1, 0), (1, 2), True),
    ((2, 2), 17, 1, (3, 3), (1, 1), (1, 1), (1, 1), False),
    ((7, 7), 3, 1, (5, 5), (1, 1), (2, 2), (1, 1), True),
    ((4, 6), 33, 1, (1, 1), (1, 1), (0, 0), (1, 1), True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("split", [1, 3])
def test_both_kernels_give_the_patch_gram(case, split: int):
    size, channels, groups, kernel, stride, padding, dilation, ones = case
    a = torch.randn(3, *size, channels, generator=torch.Generator().manual_seed(0))
    shapes = PatchGeometry(
        size, channels // groups, groups, kernel, stride, padding, dilation, ones
    )
    tiles = Tiles(32, 16, 16, 1, 4, split)
    constants = shapes.constants() | tiles.constants()
    del constants["STRIPS"]
    items, pairs, terms = shapes.tables
    d = shapes.dimension
    products = torch.full((shapes.scratch(split),), float("nan"))
    out = torch.full((groups * d, d), float("nan"))
    rectangle_products[(shapes.instances(tiles),)](a, items, products, 3, **constants, PREC="ieee")
    blocks = -(-groups * d // 32) * -(-d // 64)
    patches = 3.0 * shapes.patches
    assemble[(blocks,)](
        products, pairs, terms, out, 0.25, patches, **shapes.assembly(split, (32, 64))
    )
    window = (kernel, stride, padding, dilation, groups, ones)
    expected = patch_gram_reference(a.double(), *window, scale=0.25).view(groups * d, d)
    assert relative_error(out.double(), expected) < RELATIVE[torch.float32]

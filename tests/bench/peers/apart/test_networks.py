"""A description computes what the module does that it was made of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from newtriton.bench.peers import with_jax
from newtriton.bench.peers.apart import networks
from newtriton.bench.peers.networks import NETS, SMALL
from newtriton.bench.peers.problem import Problem


def convolved(x: Any, w: Any, strides: Any, padding: Any, dimension_numbers: Any) -> np.ndarray:
    assert dimension_numbers == ("NHWC", "HWIO", "NHWC")
    image, weight = torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(w).permute(3, 2, 0, 1)
    y = functional.conv2d(image, weight, None, strides, padding[0])
    return y.permute(0, 2, 3, 1).numpy()


def pooled(x: Any, start: float, op: str, window: Any, strides: Any, padding: str) -> np.ndarray:
    assert (start, op, window, padding) == (-np.inf, "max", strides, "VALID")
    return functional.max_pool2d(torch.tensor(x).permute(0, 3, 1, 2), window[1]).permute(
        0, 2, 3, 1
    ).numpy()  # fmt: skip


def by_torch(function: Any) -> Any:
    return lambda x, **options: function(torch.tensor(x)).numpy()


# What descriptions need of JAX, in NumPy and PyTorch: shapes and orders of axes are theirs.
STAND_IN = SimpleNamespace(
    numpy=np,
    nn=SimpleNamespace(
        relu=by_torch(functional.relu), silu=by_torch(functional.silu),
        gelu=by_torch(functional.gelu), softmax=by_torch(lambda t: t.softmax(-1)),
    ),
    lax=SimpleNamespace(
        conv_general_dilated=convolved, reduce_window=pooled, max="max",
        rsqrt=lambda x: 1 / np.sqrt(x),
    ),
)  # fmt: skip


@pytest.mark.parametrize("name", [*NETS, *SMALL])
def test_a_description_computes_what_the_module_does(name: str) -> None:
    problem = Problem.of(name, 2)
    given = with_jax.message(problem)
    forward = networks.Forward(STAND_IN)
    found = forward(given["described"], given["params"], given["x"])
    with torch.no_grad():
        expected = problem.net(problem.x).numpy()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()

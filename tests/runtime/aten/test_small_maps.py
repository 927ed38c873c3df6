"""Convolution gradients by patches equal PyTorch's operators."""

import pytest
import torch

from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N, Op
from newtriton.runtime.aten import rules as aten
from newtriton.runtime.aten import small_maps
from newtriton.runtime.backend import Context
from tests.tolerances import assert_close

WINDOWS = [
    {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)},
    {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
    {"stride": (3, 2), "padding": (2, 1), "dilation": (2, 1)},
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_gradients_on_small_maps(window: dict[str, tuple[int, int]], monkeypatch) -> None:
    torch.manual_seed(0)
    context = Context(2, torch.float64, torch.device("cpu"))
    x, w = ops.input_("x", (N, 5, 6, 3)), ops.input_("w", (40, 3, 2, 3))
    conv = ops.make(Op.CONV, x, w, **window, groups=1)
    ct = ops.input_("ct", conv.shape)
    weight_grad = ops.make(Op.CONV_WEIGHT_GRAD, ct, x, kernel=(3, 2), **window, groups=1)
    input_grad = ops.make(Op.CONV_INPUT_GRAD, ct, w, size=(5, 6), **window, groups=1)
    image, weights = (torch.randn(s, dtype=torch.float64) for s in ((2, 5, 6, 3), w.shape))
    adjoint = torch.randn(2, *conv.shape[1:], dtype=torch.float64)

    def gradients() -> list[torch.Tensor]:
        calls = [aten.ATEN[node.op](node) for node in (weight_grad, input_grad)]
        both, bias = aten.conv_weight_grad(weight_grad, with_bias=True)(context, adjoint, image)
        return [calls[0](context, adjoint, image), calls[1](context, adjoint, weights), both, bias]

    monkeypatch.setattr(aten, "is_small", lambda node, ct: True)
    fast = gradients()
    monkeypatch.setattr(aten, "is_small", lambda node, ct: False)
    for value, expected in zip(fast, gradients(), strict=True):
        assert_close(value, expected)


def test_only_few_positions_count_as_small() -> None:
    window = {**WINDOWS[0], "groups": 1}
    ct = ops.input_("ct", (N, 2, 2, 64))
    node = ops.make(Op.CONV_WEIGHT_GRAD, ct, ops.input_("x", (N, 2, 2, 8)), kernel=(3, 3), **window)
    assert small_maps.is_small(node, torch.zeros(16, 2, 2, 64))
    assert not small_maps.is_small(node, torch.zeros(17, 2, 2, 64))

"""The stored Jacobian against autograd's, and the Gauss–Newton product that is made from it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import newtriton as nt
from newtriton.compiler.curvature.jacobian import Jacobian
from newtriton.compiler.graph.cost import units
from newtriton.compiler.graph.errors import NewtritonError

from ...networks import Autograd, Pair, labels, logistic, pairs
from ...tolerances import assert_close

LOSSES = (
    *(nt.CrossEntropyLoss(), nt.MSELoss(), nt.BCEWithLogitsLoss()),
    *(nt.SigmoidMarginLoss(root="clip"), logistic),
)


def made(pair: Pair, criterion: nt.Loss, n: int = 3) -> tuple[nt.Model, Tensor, Tensor]:
    model = nt.compile(pair.ours, pair.shape, criterion, dtype=torch.float64, weight_decay=0.1)  # type: ignore[arg-type]
    x = torch.randn(n, *pair.shape, dtype=torch.float64)
    return model, x, labels(criterion, n, pair.outputs, torch.float64)


@settings(max_examples=12, deadline=None)
@given(pairs(), st.sampled_from(LOSSES), st.integers(0, 1000))
def test_both_products_agree_with_autograd(pair: Pair, criterion: nt.Loss, seed: int) -> None:
    torch.manual_seed(seed)
    model, x, y = made(pair, criterion)
    module = pair.theirs.double().eval()
    module.load_state_dict(model.state_dict())
    lin = model.linearize(x, y, training=False)
    v = torch.randn_like(model.params)
    expected = Autograd(model, module, criterion, x, y).ggnvp(v)
    for product in ("r-operator", "stored-jacobian"):
        assert_close(lin.ggnvp(v, product), expected, product)


def mlp() -> tuple[nt.Model, Tensor, Tensor]:
    net = nt.Sequential(nt.Linear(5), nt.Tanh(), nt.Linear(4, bias=False), nt.SiLU(), nt.Linear(3))
    model = nt.compile(net, (6,), nt.CrossEntropyLoss(), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 6, generator=generator, dtype=torch.float64)
    return model, x, torch.arange(7) % 3


def test_the_jacobian_is_that_of_the_outputs_in_the_pre_activations() -> None:
    model, x, y = mlp()
    jacobian = model.linearize(x, y).jacobian
    p = {name: tensor.clone() for name, tensor in model.named_parameters()}

    def outputs(shift: Tensor, i: int) -> Tensor:
        """One sample's outputs where the i-th pre-activation is shifted."""
        a = (x[i] @ p["0.weight"].T + p["0.bias"] + shift).tanh()
        b = torch.nn.functional.silu(a @ p["2.weight"].T)
        return b @ p["4.weight"].T + p["4.bias"]

    for i in range(len(x)):
        expected = torch.autograd.functional.jacobian(
            lambda shift, i=i: outputs(shift, i), torch.zeros(5, dtype=torch.float64)
        )
        assert_close(jacobian[Jacobian(0)][i], expected)  # type: ignore[arg-type]
    eye = torch.eye(3, dtype=torch.float64).expand(7, 3, 3)
    assert_close(jacobian[Jacobian(2)], eye)


def test_a_product_takes_two_contractions_a_layer_and_two_small_ones() -> None:
    model, x, y = mlp()
    programs = model.linearize(x, y).programs
    layers = 3
    assert units(programs.stored_ggnvp().graph) == 2 * layers + 2 * layers
    assert units(programs.ggnvp.graph) == 4 * layers - 2
    assert units(programs.jacobian.graph) == layers - 1


def test_the_block_diagonal_leaves_out_what_couples_layers() -> None:
    model, x, y = mlp()
    lin = model.linearize(x, y)
    dense = torch.stack([lin.ggnvp(e) for e in torch.eye(model.layout.numel).double()])
    blocks = torch.stack([lin.block_ggnvp(e) for e in torch.eye(model.layout.numel).double()])
    layer = torch.empty(model.layout.numel)
    for name, view in model.layout.views(layer).items():
        view.fill_(float(name.partition(".")[0]))
    assert_close(blocks, dense * (layer[:, None] == layer))


def test_batch_statistics_are_refused() -> None:
    net = nt.Sequential(nt.Conv2d(2, 3), nt.BatchNorm2d(), nt.Flatten(), nt.Linear(2))
    model = nt.compile(net, (1, 4, 4), nt.CrossEntropyLoss(), dtype=torch.float64)
    x, y = torch.randn(3, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 0])
    v = torch.ones_like(model.params)
    with pytest.raises(NewtritonError, match=r"batch statistics mixes samples.*r-operator"):
        model.linearize(x, y).ggnvp(v, "stored-jacobian")
    lin = model.linearize(x, y, training=False)
    assert_close(lin.ggnvp(v, "stored-jacobian"), lin.ggnvp(v))


def test_an_unknown_product_is_refused() -> None:
    model, x, y = mlp()
    with pytest.raises(NewtritonError, match="product is 'both'"):
        model.linearize(x, y).ggnvp(model.params, "both")

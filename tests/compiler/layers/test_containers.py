"""Networks of nested layers against the same modules: outputs, derivatives, names, misfits."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.language.network import Layer
from tests.compiler.functions.oracle import random
from tests.networks import Autograd, TorchResidual
from tests.tolerances import assert_close

from .test_attention import Itself
from .test_shaping import Permuted


class TorchConcat(nn.ModuleList):
    """The outputs of branches side by side."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], 1)


def unet() -> tuple[Layer, nn.Module]:
    """Down and up again, with the image of before beside what comes up."""
    ours = nt.Concat(
        nt.Identity(),
        nt.Sequential(
            nt.MaxPool2d(2), nt.Conv2d(4, 3, padding="same"), nt.Mish(),
            nt.Upsample(scale_factor=2, mode="bilinear"),
        ),
        nt.Sequential(nt.AvgPool2d(2), nt.ELU(), nt.ConvTranspose2d(2, 2, stride=2)),
    )  # fmt: skip
    theirs = TorchConcat([
        nn.Identity(),
        nn.Sequential(
            nn.MaxPool2d(2), nn.Conv2d(3, 4, 3, padding="same"), nn.Mish(),
            nn.Upsample(scale_factor=2, mode="bilinear"),
        ),
        nn.Sequential(nn.AvgPool2d(2), nn.ELU(), nn.ConvTranspose2d(3, 2, 2, stride=2)),
    ])  # fmt: skip
    return (
        nt.Sequential(
            nt.Conv2d(3, 3, padding=1, padding_mode="reflect"), nt.GroupNorm(3), ours,
            nt.Conv2d(2, 1), nt.AdaptiveAvgPool2d((3, 2)), nt.Flatten(), nt.Linear(3),
        ),
        nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), nn.GroupNorm(3, 3), theirs,
            nn.Conv2d(9, 2, 1), nn.AdaptiveAvgPool2d((3, 2)), nn.Flatten(), nn.Linear(12, 3),
        ),
    )  # fmt: skip


def sequence() -> tuple[Layer, nn.Module]:
    """Convolutions of a signal."""
    return (
        nt.Sequential(
            nt.Conv1d(4, 3, stride=2, padding=1), nt.BatchNorm1d(), nt.PReLU(4), nt.MaxPool1d(2),
            nt.ConvTranspose1d(3, 2, stride=2), nt.InstanceNorm1d(), nt.Hardswish(),
            nt.AvgPool1d(4, ceil_mode=True), nt.Flatten(), nt.Linear(3),
        ),
        nn.Sequential(
            nn.Conv1d(2, 4, 3, stride=2, padding=1), nn.BatchNorm1d(4), nn.PReLU(4),
            nn.MaxPool1d(2), nn.ConvTranspose1d(4, 3, 2, stride=2), nn.InstanceNorm1d(3),
            nn.Hardswish(), nn.AvgPool1d(4, ceil_mode=True), nn.Flatten(), nn.Linear(6, 3),
        ),
    )  # fmt: skip


def patches() -> tuple[Layer, nn.Module]:
    """Patches of an image that attend to each other."""
    return (
        nt.Sequential(
            nt.Conv2d(6, 2, stride=2), nt.Flatten(2), nt.Permute((0, 2, 1)),
            nt.Residual(nt.Sequential(nt.LayerNorm(), nt.SelfAttention(2))),
            nt.Residual(nt.Sequential(nt.RMSNorm(), nt.Linear(8), nt.GELU(), nt.Linear(6))),
            nt.Permute((0, 2, 1)), nt.AdaptiveAvgPool1d(1), nt.Flatten(), nt.Linear(3),
        ),
        nn.Sequential(
            nn.Conv2d(2, 6, 2, stride=2), nn.Flatten(2), Permuted(0, 2, 1),
            TorchResidual(nn.Sequential(nn.LayerNorm(6), Itself(6, 2, False))),
            TorchResidual(
                nn.Sequential(nn.RMSNorm(6), nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6))
            ),
            Permuted(0, 2, 1), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3),
        ),
    )  # fmt: skip


def words() -> tuple[Layer, nn.Module]:
    """A sentence, and which class it is of."""
    return (
        nt.Sequential(
            nt.Embedding(7, 6, padding_idx=0), nt.SelfAttention(3, causal=True), nt.LayerNorm(),
            nt.Flatten(), nt.Linear(3),
        ),
        nn.Sequential(
            nn.Embedding(7, 6, padding_idx=0), Itself(6, 3, True), nn.LayerNorm(6), nn.Flatten(),
            nn.Linear(24, 3),
        ),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], tuple[Layer, nn.Module]], tuple[int, ...]]] = {
    "unet": (unet, (2, 6, 8)),
    "sequence": (sequence, (2, 12)),
    "patches": (patches, (2, 4, 6)),
    "words": (words, (4,)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", NETWORKS)
def test_programs_of_a_network_are_autograds(name: str) -> None:
    build, shape = NETWORKS[name]
    ours, theirs = build()
    spec = nt.InputSpec(shape, "int" if name == "words" else "float")
    criterion = nt.CrossEntropyLoss()
    model = nt.compile(ours, spec, criterion, dtype=torch.float64, weight_decay=0.1, seed=1)
    theirs.double().load_state_dict(model.state_dict())
    x, y = random(5, *shape), torch.tensor([0, 2, 1, 1, 0])
    if name == "words":
        x = torch.randint(0, 7, (5, *shape), generator=torch.Generator().manual_seed(0))
    oracle = Autograd(model, theirs.train(), criterion, x, y)
    v, w = (random(model.params.numel(), seed=i) for i in (3, 4))
    lin = model.linearize(x, y)
    assert_close(lin.loss, oracle.loss.detach(), "loss")
    assert_close(lin.gradient, oracle.gradient, "gradient")
    assert_close(lin.hvp(v), oracle.hvp(v), "Hv")
    assert_close(lin.ggnvp(v), oracle.ggnvp(v), "Gv")
    forms = torch.stack([torch.stack([a @ oracle.hvp(b) for b in (v, w)]) for a in (v, w)])
    assert_close(lin.quadratic_forms([v, w]), forms, "forms")
    theirs.eval()
    model.load_state_dict(theirs.state_dict())
    assert_close(model(x), theirs(x).detach(), "evaluated")


@pytest.mark.interpreter
@pytest.mark.parametrize("name", ["sequence", "words"])
def test_fused_kernels_compute_the_same(name: str) -> None:
    build, shape = NETWORKS[name]
    spec = nt.InputSpec(shape, "int" if name == "words" else "float")
    x, y = random(5, *shape).float(), torch.tensor([0, 2, 1, 1, 0])
    if name == "words":
        x = torch.randint(0, 7, (5, *shape), generator=torch.Generator().manual_seed(0))
    fused, plain = (
        nt.compile(build()[0], spec, nt.CrossEntropyLoss(), backend=backend, device="cpu", seed=1)
        for backend in ("triton", "aten")
    )
    gradients = [model.linearize(x, y).gradient for model in (fused, plain)]
    assert_close(*gradients, "gradient")


def test_branches_that_do_not_fit_side_by_side_are_named() -> None:
    net = nt.Sequential(nt.Concat(nt.Identity(), nt.MaxPool2d(2)), nt.Flatten(), nt.Linear(2))
    message = "its branches give a 1×4×4 image and a 1×8×8 image: they may differ in axis 1 alone"
    with pytest.raises(nt.ShapeError, match=re.escape(message)):
        nt.compile(net, (1, 8, 8), nt.MSELoss())
    with pytest.raises(nt.NewtritonError, match=r"Concat\(\) has no branches"):
        nt.Concat()

"""Where a model lives is decided once, when it is compiled."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import newtriton as nt
import newtriton.runtime.model.compile as compiling


def test_a_gpu_has_its_number(monkeypatch: pytest.MonkeyPatch):
    def made(size: int, device: torch.device) -> SimpleNamespace:
        current = device.type == "cuda" and device.index is None
        return SimpleNamespace(device=torch.device("cuda", 2) if current else device)

    monkeypatch.setattr(torch, "zeros", made)
    assert compiling.place_of("cuda") == torch.device("cuda", 2)
    assert compiling.place_of("cuda:1") == torch.device("cuda", 1)
    assert compiling.place_of("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert compiling.place_of(None) == torch.device("cuda", 2)


def test_seeds_are_integers() -> None:
    def made(seed: object) -> torch.Tensor:
        net, loss = nt.Linear(3), nt.CrossEntropyLoss()
        return nt.compile(net, (4,), loss, device="cpu", seed=seed).params  # type: ignore[arg-type]

    assert torch.equal(made(np.int64(3)), made(3))
    for seed in ("3", 1.5, -1, True, 1 << 63):
        with pytest.raises(nt.NewtritonError, match="seed is"):
            made(seed)


@pytest.mark.parametrize("flag", [1, "no", None])
def test_flags_are_true_or_false(flag: object) -> None:
    net, loss = nt.Linear(3), nt.CrossEntropyLoss()
    with pytest.raises(nt.NewtritonError, match=r"cuda_graphs is .*: give True or False"):
        nt.compile(net, (4,), loss, cuda_graphs=flag)  # type: ignore[arg-type]
    model = nt.compile(net, (4,), loss, backend="aten", device="cpu")
    x, y = torch.ones(6, 4), torch.arange(6) % 3
    for call in (model.linearize, model.objective):
        with pytest.raises(nt.NewtritonError, match=r"training is .*: give True or False"):
            call(x, y, training=flag)  # type: ignore[operator]
    with pytest.raises(nt.NewtritonError, match=r"keep is .*: give True or False"):
        nt.LinearizedData(model, [(x, y)], keep=flag)  # type: ignore[arg-type]
    with pytest.raises(nt.NewtritonError, match=r"convex is .*: give True or False"):
        nt.Criterion(lambda z, t: (z - t) * (z - t), convex=flag)  # type: ignore[arg-type]
    with pytest.raises(nt.NewtritonError, match=r"frozen is .*: give True or False"):
        model.freeze("weight", frozen=flag)  # type: ignore[arg-type]


def test_the_random_number_of_a_criterion_has_a_known_kind() -> None:
    with pytest.raises(nt.NewtritonError, match="noise is 'cauchy': one of 'uniform', 'normal'"):
        nt.Criterion(lambda z, t: (z - t) * (z - t), noise="cauchy")


def test_weight_decay_is_a_number_of_the_dtype() -> None:
    with pytest.raises(
        nt.NewtritonError, match=r"weight_decay is 1e\+300: give a number ≥ 0 and ≤"
    ):
        nt.compile(nt.Linear(1), (2,), nt.MSELoss(), weight_decay=1e300, device="cpu")

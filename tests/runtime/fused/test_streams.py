"""Streams in fused programs: scores of attention and logits of many classes, on both backends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import newtriton as nt
from newtriton.compiler.streaming import wide
from newtriton.runtime.fused.plan import Plan

from ...modules import GPT, Rotary
from ...sequences import Classified, First, Tied
from ...tolerances import LIMITS, relative_error
from .test_executor import answers

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # masked elements, in NumPy
    pytest.mark.usefixtures("poisoned"),
]
BATCH, LENGTH, WORDS = 3, 11, 37
IDS = nt.InputSpec((LENGTH,), "int")


def attention(heads: int = 2, **options) -> nt.Residual:
    return nt.Residual(nt.SelfAttention(heads, **options))


def words(**options) -> nt.Model:
    net = Tied(WORDS, 4, attention(causal=True))
    return nt.compile(net, IDS, nt.CrossEntropyLoss(label_smoothing=0.1), seed=1, **options)


def image(**options) -> nt.Model:
    patches = nt.Conv2d(4, 2, stride=2), nt.Flatten(2), nt.Permute((0, 2, 1)), Classified()
    net = nt.Sequential(*patches, attention(), First(), nt.Linear(5))
    return nt.compile(net, (3, 6, 6), nt.CrossEntropyLoss(), seed=1, **options)


def captured_words(**options) -> nt.Model:
    torch.manual_seed(0)
    module = GPT(WORDS, 8, LENGTH, depth=1).to(options.get("dtype", torch.float32))
    example = torch.zeros(2, LENGTH, dtype=torch.int64)
    return nt.from_torch(module, example, nt.CrossEntropyLoss(), **options)


def captured_grouped(**options) -> nt.Model:
    torch.manual_seed(0)
    example = torch.randn(2, LENGTH, 8)
    return nt.from_torch(Rotary().to(example.dtype), example, nt.CrossEntropyLoss(), **options)


Make = Callable[..., nt.Model]
NETWORKS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "words": (words, (LENGTH,)),
    "image": (image, (3, 6, 6)),
    "captured words": (captured_words, (LENGTH,)),
    "captured, with fewer keys": (captured_grouped, (LENGTH, 8)),
}


def batch(shape: tuple[int, ...], samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(samples)
    if shape == (LENGTH,):
        x = torch.randint(0, WORDS, (samples, LENGTH), generator=generator)
        return x, x.roll(-1, 1)
    x = torch.randn(samples, *shape, generator=generator)
    return x, torch.randint(0, 3, (samples,), generator=generator)


@pytest.fixture
def wide_when_small(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets small scores and few classes be wide, once it is called."""

    def patch() -> None:
        monkeypatch.setattr(wide, "LEAST", 1)
        monkeypatch.setattr(wide, "MANY", WORDS)

    return patch


def plans(model: nt.Model) -> dict[str, Plan]:
    """The plans that a model has made, by program."""
    programs = model.programs[True]
    found = {}
    for program in (programs.linearize, programs.hvp):
        executor = model.runner.executor(program)
        found[program.name] = next(iter(executor.plans.values()))
    return found


@pytest.mark.parametrize("contractions", ["vendor", "fused"])
@pytest.mark.parametrize("name", NETWORKS)
def test_programs_equal_those_of_whole_values(name: str, contractions: str, wide_when_small):
    make, shape = NETWORKS[name]
    x, y = batch(shape, BATCH)
    expected = answers(make(backend="aten", device="cpu"), x, y)
    wide_when_small()
    model = make(backend="triton", device="cpu", contractions=contractions)
    for key, value in answers(model, x, y).items():
        assert relative_error(value, expected[key]) < LIMITS["ieee"], key

"""Streams on PyTorch's operators: values of whole programs, in blocks of any size, and memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import newtriton as nt
from newtriton.compiler.functions.attention import attention
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.streaming import wide
from newtriton.runtime.aten import passing
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context

from ...sequences import Tied, block
from ...tolerances import assert_close, relative_error

LENGTH, WORDS = 13, 29


class Attended(nn.Module):
    """Attention of words to words, in heads that share keys, with a mask or an order."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.words, self.head = nn.Embedding(WORDS, 8), nn.Linear(8, WORDS)
        self.q, self.kv = nn.Linear(8, 8), nn.Linear(8, 8)
        self.register_buffer("mask", torch.rand(LENGTH, LENGTH).sub(0.3).sign().gt(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.words(x)
        q = self.q(h).unflatten(-1, (4, 2)).transpose(1, 2)
        k, v = self.kv(h).unflatten(-1, (2, 4)).transpose(1, 2).chunk(2, -1)
        mask = self.mask if self.how == "mask" else None
        shared = {"is_causal": self.how == "causal", "enable_gqa": True}
        a = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, **shared)
        return self.head(h + a.transpose(1, 2).flatten(2))


@pytest.fixture(params=[60, 700, 1 << 20], ids="{} elements".format)
def everything_passes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide, "LEAST", 1)
    monkeypatch.setattr(wide, "MANY", WORDS)
    monkeypatch.setattr(passing, "BLOCK", request.param)
    monkeypatch.setattr(passing, "SLAB", 4)
    monkeypatch.setattr(passing, "AMPLE", 1)


@pytest.mark.usefixtures("everything_passes")
@pytest.mark.parametrize("how", ["mask", "causal", "plain"])
def test_programs_equal_automatic_differentiation(how: str) -> None:
    torch.manual_seed(0)
    module = Attended(how).double()
    x, y = torch.randint(0, WORDS, (2, 3, LENGTH))
    names, parameters = zip(*module.named_parameters(), strict=True)
    v = [torch.randn_like(p) for p in parameters]
    with sdpa_kernel(SDPBackend.MATH):
        loss = functional.cross_entropy(module(x).flatten(0, 1), y.flatten())
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        product = torch.autograd.grad(gradient, parameters, v)
    model = nt.from_torch(module, x, nt.CrossEntropyLoss())
    assert not any(len(n.shape) == 4 and n.shape[-1] == LENGTH for n in model.programs[True].tape)

    def flat(values: object) -> torch.Tensor:
        return model.flatten(dict(zip(names, values, strict=True)))

    lin, direction, expected = model.linearize(x, y), flat(v), flat(product)
    assert_close(lin.loss, loss.detach())
    assert_close(lin.gradient, flat([g.detach() for g in gradient]))
    assert_close(lin.hvp(direction), expected)
    form = lin.quadratic_forms([direction])[0, 0]
    assert abs(form - direction @ expected) < 1e-10 * direction.norm() * expected.norm()


@pytest.mark.usefixtures("everything_passes")
@pytest.mark.parametrize("kind", ["kfac", "empirical", "kflr"])
def test_factors_and_products_equal_those_of_whole_values(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = torch.randint(0, WORDS, (2, 3, LENGTH), generator=torch.Generator().manual_seed(0))

    def found() -> dict[str, torch.Tensor]:
        net = Tied(WORDS, 8, block(2, 8, causal=True))
        ids = nt.InputSpec((LENGTH,), "int")
        loss = nt.CrossEntropyLoss(label_smoothing=0.1, ignore_index=3)
        model = nt.compile(net, ids, loss, dtype=torch.float64, seed=0, backend="aten")
        lin = model.linearize(x, y)
        generator = torch.Generator().manual_seed(1)
        factors = lin.kronecker_factors(kind, generator=generator)
        values = {
            f"{side} of {name}": value
            for name, factor in factors.items()
            for side, value in vars(factor).items()
            if isinstance(value, torch.Tensor)
        }
        return values | {"ggnvp": lin.ggnvp(lin.gradient), "evaluated": model.loss(x, y)}

    passed = found()
    monkeypatch.setattr(wide, "LEAST", 1 << 40)
    monkeypatch.setattr(wide, "MANY", 1 << 40)
    for name, whole in found().items():
        assert relative_error(passed[name], whole) < 1e-10, name


def test_memory_does_not_grow_with_the_square_of_the_length() -> None:
    """A program's footprint over a length that is four times as long."""
    peaks = []
    for length in (256, 1024):
        net = nt.Sequential(nt.SelfAttention(2, causal=True), nt.Flatten(), nt.Linear(2))
        model = nt.compile(net, (length, 16), nt.CrossEntropyLoss(), backend="aten", device="cpu")
        runner, programs = model.runner, model.programs[True]
        for program in (programs.linearize, programs.hvp):
            executor = runner.backend.executor(program.graph)
            peaks.append(executor.footprint(runner.context(8)).peak)
    block_bytes = 40 * passing.BLOCK
    assert peaks[2] < 4 * peaks[0] + block_bytes and peaks[3] < 4 * peaks[1] + block_bytes
    assert peaks[3] < 8 * 2 * 1024**2 * 4 * 4  # one matrix of all scores takes a quarter of it


@pytest.mark.usefixtures("everything_passes")
@pytest.mark.parametrize("over_rows", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_products_of_what_passes(over_rows: bool, turned: bool) -> None:
    q, k, v = (ops.input_(name, (N, 2, LENGTH, 4)) for name in "qkv")
    o = attention(q, k, v)
    read = ops.map_(scalar.tanh(var(0)), o)
    read = ops.transpose(read, (0, 1, 3, 2)) if turned else read
    if turned:
        product = ops.matmul(read, o.inputs[0], tb=not over_rows)
    else:
        product = ops.matmul(o.inputs[0], read, ta=over_rows)
    graph = Graph("test", {"product": product, "o": o})
    context = Context(3, torch.float64, torch.device("cpu"))
    feed = {x: torch.randn(3, 2, LENGTH, 4, dtype=torch.float64) for x in (q, k, v)}
    found, whole = (AtenExecutor(graph, streams=s)(context, feed) for s in (True, False))
    for node in graph.outputs.values():
        assert_close(found[node], whole[node])

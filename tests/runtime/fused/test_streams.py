"""Streams in fused programs: scores of attention and logits of many classes, on both backends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import newtriton as nt
from newtriton.compiler.graph.ir import Op
from newtriton.compiler.lowering import reading
from newtriton.compiler.lowering.elements import LONGEST_ROW
from newtriton.compiler.lowering.kernel import Kernel
from newtriton.compiler.lowering.precision import is_rounded
from newtriton.compiler.passes.passes import Refusal
from newtriton.compiler.streaming import wide
from newtriton.compiler.streaming.wide import trailing
from newtriton.runtime.backend import Context
from newtriton.runtime.footprint import META
from newtriton.runtime.fused import pipeline
from newtriton.runtime.fused.call import Memory
from newtriton.runtime.fused.executor import FusedExecutor
from newtriton.runtime.fused.launch import BlocksLaunch, PassLaunch
from newtriton.runtime.fused.plan import Plan
from newtriton.runtime.fused.selection import Selection
from newtriton.runtime.fused.settings import Settings

from ...sequences import Classified, First, Tied
from ...tolerances import LIMITS, relative_error
from .test_executor import answers

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # masked elements, in NumPy
    pytest.mark.usefixtures("poisoned"),
]
BATCH, LENGTH, WORDS, CLASSES = 3, 11, 37, LONGEST_ROW + 9
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


class Grouped(nn.Module):
    """Attention whose two heads share a key and a value, masked, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(4, 8), nn.Linear(4, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).split([4, 2, 2], dim=2)
        q = q.view(n, t, 2, 2).transpose(1, 2)
        k, v = (a.view(n, t, 1, 2).transpose(1, 2).repeat_interleave(2, dim=1) for a in (k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(x + y.transpose(1, 2).flatten(2))


def grouped(**options) -> nt.Model:
    torch.manual_seed(0)
    example = torch.randn(2, LENGTH, 4)
    return nt.from_torch(Grouped(), example, nt.CrossEntropyLoss(), **options)


def rows(**options) -> nt.Model:
    weight = torch.rand(CLASSES, generator=torch.Generator().manual_seed(5))
    loss = nt.CrossEntropyLoss(weight, ignore_index=0, label_smoothing=0.1)
    return nt.compile(nt.Sequential(nt.Linear(CLASSES)), (5,), loss, **options)


NETWORKS: dict[str, tuple[Callable[..., nt.Model], tuple[int, ...]]] = {
    "words": (words, (LENGTH,)),
    "image": (image, (3, 6, 6)),
    "captured": (grouped, (LENGTH, 4)),
    "long": (rows, (5,)),
}


def batch(name: str, samples: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(samples)
    shape = (samples, *NETWORKS[name][1])
    if name == "words":
        x = torch.randint(0, WORDS, shape, generator=generator)
        return x, x.roll(-1, 1)
    labels = shape[:2] if name == "captured" else (samples,)
    return torch.randn(shape, generator=generator), torch.randint(0, 5, labels, generator=generator)


@pytest.fixture
def small_is_wide(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What lets small scores and few classes be wide."""

    def patch() -> None:
        monkeypatch.setattr(wide, "LEAST", 1)
        monkeypatch.setattr(wide, "MANY", WORDS)

    return patch


def plan_of(model: nt.Model) -> Plan:
    """The plan of the product that a model has taken."""
    (plan,) = model.runner.executor(model.programs[True].hvp).plans.values()
    return plan


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What has streams computed in blocks."""
    return lambda: monkeypatch.setattr(pipeline, "pass_codes", lambda *_: Refusal("a test"))


@pytest.mark.interpreter
@pytest.mark.parametrize(
    ("name", "deepest", "large", "blocks"),
    [
        ("words", 128, 1 << 28, False),
        ("words", 3, 1 << 28, True),  # logits are kept, and their adjoints are written
        ("words", 3, BATCH * LENGTH * WORDS, True),  # they are not
        ("image", 128, 1 << 28, False),
        ("image", 128, 1 << 28, True),
        ("captured", 128, 1 << 28, True),
    ],
)
def test_programs_equal_those_of_whole_values(
    name: str,
    deepest: int,
    large: int,
    blocks: bool,
    small_is_wide,
    in_blocks,
    monkeypatch: pytest.MonkeyPatch,
):
    make, (x, y), factors = NETWORKS[name][0], batch(name, BATCH), name == "image"
    expected = answers(make(backend="aten", device="cpu"), x, y, factors=factors)
    small_is_wide()
    monkeypatch.setattr(reading, "DEEPEST", deepest)
    monkeypatch.setattr(reading, "LARGE", large)
    if blocks:
        in_blocks()
    model = make(backend="triton", device="cpu", contractions="vendor")
    for key, value in answers(model, x, y, factors=factors).items():
        assert relative_error(value, expected[key]) < LIMITS["ieee"], key
    assert bool(plan_of(model).refusals) is blocks
    assert ("in blocks on PyTorch's operators: a test" in model.explain(BATCH)) is blocks


@pytest.mark.interpreter
def test_operands_are_rounded_before_they_are_moved(small_is_wide):
    x, y = batch("image", BATCH)
    expected = image(backend="aten", device="cpu").linearize(x, y)
    small_is_wide()
    found = image(backend="triton", device="cpu", precision="tf32").linearize(x, y)
    v = torch.randn(found.model.params.numel(), generator=torch.Generator().manual_seed(0))
    for a, b in ((found.gradient, expected.gradient), (found.hvp(v), expected.hvp(v))):
        assert 0 < relative_error(a, b) < LIMITS["tf32"]


def planned(make: Callable[..., nt.Model], precision: str = "ieee") -> list[Plan]:
    """The plans of a linearization, whose tape is kept, and of a product behind it."""
    programs = make(backend="aten", device="cpu").programs[True]
    selection = Selection(Settings(precision, "fused"))
    linearize = FusedExecutor(programs.linearize.graph, programs.tape, selection).plan(BATCH)
    hvp = FusedExecutor(programs.hvp.graph, (), selection)
    return [linearize, hvp.plan(BATCH, linearize.made)]


def streams(plan: Plan) -> list[Kernel]:
    return [k for k in plan.schedule.kernels if k.stream is not None]


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16"])
def test_queries_keys_and_values_are_read_where_they_lie(precision: str, small_is_wide):
    small_is_wide()
    for plan in planned(image, precision):
        for kernel in streams(plan):
            packed = {v.of for v in kernel.views if v.of.shape[-1:] == (12,)}
            heads = [v for v in kernel.views if v.of in packed]
            assert len(packed) <= 2 and len(heads) >= 3 * len(packed)  # of w and of its direction
            assert all(is_rounded(x) is (precision != "ieee") for x in packed)


def test_wide_values_are_nowhere_in_memory(small_is_wide):
    small_is_wide()
    for plan in planned(image):
        assert streams(plan)
        for kernel in streams(plan):
            shapes = frozenset({kernel.stream.shape})
            inside = [n for n in kernel.stream.nodes if trailing(n.shape, shapes)]
            assert inside and plan.storage.lifetimes.keys().isdisjoint(inside)
            assert not {*kernel.reads, *kernel.writes} & {*inside}
        launches = [x for x in plan.launches if isinstance(x, PassLaunch)]
        assert [k for launch in launches for k in launch.kernels] == streams(plan)


def test_traffic_and_memory_grow_with_the_length_only():
    sizes = []
    for length in (256, 512):
        net = nt.Sequential(attention(), nt.Flatten(), nt.Linear(2))
        make = partial(nt.compile, net, (length, 8), nt.CrossEntropyLoss())
        plans = planned(make)
        assert all(map(streams, plans))
        sizes.append([(p.schedule.traffic(BATCH), p.storage.arena.size) for p in plans])
    for first, second in zip(*sizes, strict=True):
        assert all(b < 2.1 * a for a, b in zip(first, second, strict=True))


def test_large_values_pass_whatever_is_multiplied():
    net = nt.Sequential(nt.Linear(200), nt.Tanh(), nt.Linear(wide.MANY))
    programs = nt.compile(net, (5,), nt.CrossEntropyLoss(), backend="aten").programs[True]
    executor = FusedExecutor(programs.hvp.graph, (), Selection(Settings("ieee", "fused")))
    samples = reading.LARGE // wide.MANY  # one value is as large as all together may be
    small, large = executor.plan(samples // 8), executor.plan(samples)
    assert not small.refusals and small.scratch > 4 * 2 * reading.LARGE // 8  # ż, and z̄
    (refusal,) = large.refusals
    assert f"N×{wide.MANY}" in refusal and "200" in refusal
    assert large.scratch < 4 * reading.LARGE
    working = max(launch.use.working(samples) for launch in large.launches)
    assert working > 0 and large.footprint(samples).peak >= large.scratch + working
    (kernel,) = streams(large)
    through = sum(n.type.numel(samples) for n in kernel.through)
    assert large.schedule.traffic(samples) > 8 * through > 8 * reading.LARGE


class OnDevice(TorchDispatchMode):
    """Refuses tensors on the CPU: no recording copies from there."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        assert all(x.device == META for x in tensors), function
        return result


def test_blocks_can_be_recorded_and_what_they_work_in_is_counted(small_is_wide, in_blocks):
    small_is_wide()
    in_blocks()
    for plan in planned(words):
        launches = [x for x in plan.launches if isinstance(x, BlocksLaunch)]
        assert len(launches) == len(plan.refusals) == plan.schedule.streams
        for launch in launches:
            memory = Memory(lambda b: torch.empty(b.type.numel(BATCH), device=META))
            with OnDevice():
                launch.run(Context(BATCH, torch.float32, META), memory)
            assert launch.recordable and launch.use.working(2 * BATCH) > launch.use.working(BATCH)


@pytest.mark.interpreter
def test_rows_longer_than_a_tile_pass_too(monkeypatch: pytest.MonkeyPatch):
    x, y = batch("long", BATCH)
    found = []
    for backend, many in (("aten", CLASSES + 1), ("triton", wide.MANY)):
        monkeypatch.setattr(wide, "MANY", many)
        monkeypatch.setattr(reading, "DEEPEST", 3)  # logits are kept
        model = rows(backend=backend, device="cpu", contractions="vendor")
        lin = model.linearize(x, y)
        drawn = torch.Generator().manual_seed(2)
        factors = lin.kronecker_factors("kfac", 2, drawn)
        found.append(answers(model, x, y, factors=False))
        found[-1] |= {n: t for f in factors.values() for n, t in f.tensors.items()}
    for key, value in found[0].items():
        assert relative_error(found[1][key], value) < LIMITS["ieee"], key
    schedule = plan_of(model).schedule
    assert not [n for n in schedule.looked_up if n.op is Op.SLICE]
    long = [k for k in schedule.kernels if k.whole_rows and k.space.columns > LONGEST_ROW]
    assert schedule.streams and not long

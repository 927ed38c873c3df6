"""Kinds of launch: each says what it touches and which kernels it has, and is made once."""

from typing import get_args

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import CONTRACTIONS, Graph, N, Op, concrete
from newtriton.compiler.lowering.code import Part
from newtriton.kernels.patch_gram import patch_gram_reference
from newtriton.runtime.backend import Context
from newtriton.runtime.fused import launch as launches
from newtriton.runtime.fused.executor import FusedExecutor
from newtriton.runtime.fused.launch import (
    KINDS,
    ContractionLaunch,
    PatchGramLaunch,
    PointwiseLaunch,
    ScatterLaunch,
    VendorLaunch,
)
from newtriton.runtime.fused.plan import Plan
from newtriton.runtime.fused.selection import Selection
from newtriton.runtime.fused.settings import Settings
from newtriton.runtime.fused.tiles import Tiling

from ...tolerances import RELATIVE, relative_error

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # masked elements, in NumPy
CPU = torch.device("cpu")


def plans(contractions: str, precision: str = "ieee") -> list[Plan]:
    net = nt.Sequential(nt.Conv2d(8, 3), nt.SiLU(), nt.Conv2d(8, 3), nt.Flatten(), nt.Linear(5))
    model = nt.compile(net, (3, 8, 8), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    selection, p = Selection(Settings(precision, contractions)), model.programs[True]
    programs = (p.linearize, p.hvp, p.factors("kfac"))
    return [FusedExecutor(program.graph, (), selection).plan(16) for program in programs]


def test_every_tiling_has_its_kind():
    assert set(KINDS) == set(get_args(Tiling))


@pytest.mark.parametrize(
    ("contractions", "kinds"),
    [
        ("fused", {PointwiseLaunch, ContractionLaunch, PatchGramLaunch}),
        ("vendor", {PointwiseLaunch, VendorLaunch}),
    ],
)
def test_launches_touch_what_their_kernels_read_and_write(contractions: str, kinds: set[type]):
    found = set[type]()
    for plan in plans(contractions):
        known = set()
        for launch in plan.launches:
            found.add(type(launch))
            buffers = set(launch.use.buffers)
            for kernel in launch.kernels:
                assert buffers.issuperset(kernel.writes)
                assert buffers.issuperset(map(Part, kernel.partials))
                if not isinstance(launch, VendorLaunch):
                    assert buffers.issuperset(kernel.reads)
            known |= {*launch.use.scratch, *launch.use.elsewhere}
            assert known.issuperset(b for b in buffers if isinstance(b, Part))
            for kernel in launch.use.overwriting:
                assert {*kernel.read, *kernel.written} <= buffers
    assert found == kinds


def test_the_vendors_results_are_read_where_they_are():
    for plan in plans("vendor"):
        made = {part for launch in plan.launches for part in launch.use.elsewhere}
        assert made and made.isdisjoint(plan.storage.lifetimes)
        assert made <= {b for launch in plan.launches for b in launch.use.buffers}


def test_the_vendors_kernels_are_not_compiled():
    for plan in plans("vendor"):
        compiled = [launch for launch in plan.launches if not isinstance(launch, VendorLaunch)]
        assert len(list(plan.jobs(""))) == len(compiled)
    for plan in plans("fused"):
        two = sum(isinstance(launch, PatchGramLaunch) for launch in plan.launches)
        assert len(list(plan.jobs(""))) == len(plan.launches) + two


class WithoutNumbers(TorchDispatchMode):
    """Refuses tensors made of numbers: they lie on the CPU, and no recording copies from there."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten.scalar_tensor.default
        return function(*args, **(kwargs or {}))


def test_the_vendors_operators_can_be_recorded():
    called = set()
    for plan in plans("vendor"):
        for launch in (x for x in plan.launches if isinstance(x, VendorLaunch)):
            shapes = [concrete(x.shape, 16) for x in launch.plain.inputs]
            operands = [torch.empty(shape, device="meta") for shape in shapes]
            with WithoutNumbers():
                launch.operator(Context(16, torch.float32, torch.device("meta")), *operands)
            called.add(launch.node.op)
    assert called >= {Op.CONV, Op.CONV_WEIGHT_GRAD, Op.MATMUL, Op.GRAM, Op.PATCH_GRAM}


def test_statistics_are_never_taken_in_tf32():
    for plan in plans("vendor", "tf32"):
        for launch in (x for x in plan.launches if isinstance(x, VendorLaunch)):
            assert launch.rounded is (launch.node.op in CONTRACTIONS)


@pytest.mark.parametrize("contractions", ["fused", "vendor"])
def test_rows_are_sorted_and_added_in_memory_that_is_counted(contractions: str):
    words, ct = ops.input_("w", (N, 1024), "int"), ops.input_("ct", (N, 1024, 768))
    added = ops.make(Op.SCATTER_ROWS, ct, words, size=50_257)
    executor = FusedExecutor(
        Graph("rows", {"out": added}), (), Selection(Settings("ieee", contractions))
    )
    plan = executor.plan(8)
    (launch,) = plan.launches
    assert isinstance(launch, ScatterLaunch) and launch.recordable
    assert [call.job.function.__name__ for call in launch.calls] == [
        "sort_runs", "merge_runs", "merge_runs", "find_words", "add_parts", "scatter_rows",
    ]  # fmt: skip
    assert not launch.use.elsewhere and plan.footprint(8).peak == plan.footprint(8).kept
    table, indices = 4 * 50_257 * 768, 4 * (4 * 8192 + 50_258)
    assert plan.footprint(8).peak - table - indices < table // 100
    assert plan.schedule.traffic(8) == table + 4 * 8192 * 769


@pytest.mark.interpreter
def test_the_tables_of_a_patch_gram_are_made_once(monkeypatch: pytest.MonkeyPatch):
    image = ops.input_("a", (N, 5, 4, 6))
    window = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    gram = ops.make(
        Op.PATCH_GRAM, image, groups=1, homogeneous=True, scale=scalar.const(0.5), **window
    )
    selection = Selection(Settings("ieee", "fused", interpreted=True))
    executor = FusedExecutor(Graph("gram", {"out": gram}), (), selection)
    (launch,) = executor.plan(3).launches
    assert isinstance(launch, PatchGramLaunch)
    monkeypatch.setattr(selection, "tiling", None)  # nobody asks again
    tables = []
    for _ in range(2):
        a = torch.randn(3, 5, 4, 6)
        (found,) = executor(Context(3, torch.float32, CPU), {image: a}).values()
        expected = patch_gram_reference(a.double(), **window, homogeneous=True, scale=0.5)
        assert relative_error(found.double(), expected) < RELATIVE[torch.float32]
        arguments = [a for call in launch.calls for a in call.arguments.values()]
        tables.append([a for a in arguments if isinstance(a, torch.Tensor)])
    assert len(tables[0]) == 3
    assert all(first is second for first, second in zip(*tables, strict=True))


@pytest.mark.interpreter
def test_the_vendors_operator_is_looked_up_once(monkeypatch: pytest.MonkeyPatch):
    x, w = ops.input_("x", (N, 4)), ops.param("w", (3, 4))
    selection = Selection(Settings("ieee", "vendor", interpreted=True))
    graph = Graph("product", {"out": ops.matmul(x, w, tb=True)})
    executor = FusedExecutor(graph, (), selection)
    executor.plan(2)
    monkeypatch.setattr(launches, "ATEN", {})
    feed = {x: torch.randn(2, 4), w: torch.randn(3, 4)}
    (found,) = executor(Context(2, torch.float32, CPU), feed).values()
    torch.testing.assert_close(found, feed[x] @ feed[w].T)

"""No launch of any kind has a race, leaves its memory, or reads what nobody has written.

A detector that finds nothing proves something only if it finds the faults that are put in.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Graph, N, Op
from newtriton.compiler.language.inputs import specifications
from newtriton.compiler.language.network import Layer
from newtriton.compiler.lowering.code import Code, Overwriting
from newtriton.compiler.lowering.codegen import LaunchCode
from newtriton.compiler.lowering.kernel import Kernel, Schedule
from newtriton.compiler.passes.space import Tile as PassTile
from newtriton.compiler.streaming import wide
from newtriton.kernels import contraction, lags, outer
from newtriton.kernels.contraction import Geometry, Tiles
from newtriton.kernels.scatter_rows import RowTiles
from newtriton.runtime.backend import Context
from newtriton.runtime.fused import launch as launches
from newtriton.runtime.fused import pipeline, storage, tiles
from newtriton.runtime.fused.backend import TritonBackend
from newtriton.runtime.fused.executor import FusedExecutor
from newtriton.runtime.fused.launch import (
    ContractionLaunch,
    PassLaunch,
    PatchGramLaunch,
    ScatterLaunch,
    VendorLaunch,
)
from newtriton.runtime.fused.plan import Plan
from newtriton.runtime.fused.selection import Selection
from newtriton.runtime.fused.settings import Settings
from newtriton.runtime.fused.storage import Use
from newtriton.runtime.fused.tiles import Tiling
from newtriton.runtime.model.linearization import Linearization
from newtriton.runtime.model.model import Model
from newtriton.runtime.solvers.cg import Stop, conjugate_gradients
from newtriton.runtime.vectors import System

from ...races import Fault, Report, Watched, watched
from ...sequences import gpt

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # masked elements, in NumPy
]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives small networks many programs: small tiles, long sums in two parts."""

    def contraction(shapes: Geometry, rows: int, *_: object) -> Tiles:
        return Tiles(16, 16, 32, 2, 4, split=2 if rows < 8 and shapes.trips(32) > 1 else 1)

    monkeypatch.setattr(tiles, "_contraction_tiles", contraction)
    monkeypatch.setattr(tiles, "_outer_tiles", lambda *_: Tiles(16, 128, 32, 2, 4, split=2))
    patches = Tiles(16, 16, 64, 1, 4, split=2), (64, 64)
    monkeypatch.setattr(tiles, "_patch_tiles", lambda *_: patches)
    monkeypatch.setattr(pipeline, "INTERPRETED", PassTile(16, 16, lanes=True))
    monkeypatch.setattr(tiles, "_row_tiles", lambda *_: RowTiles(2, 4, 16, 16))


def settings(precision: str = "ieee", contractions: str = "fused", elements: int = 256) -> Settings:
    return Settings(precision, contractions, interpreted=True, elements=elements)


def linearized(
    net: Layer, inputs: tuple[int, ...] | nt.InputSpec, loss: nt.Loss, made: Settings
) -> tuple[Linearization, Tensor, Tensor]:
    """Returns the linearization of a model at two samples, inputs and labels."""
    generator = torch.Generator().manual_seed(0)
    spec = specifications(inputs)
    model = Model(net, spec, loss, TritonBackend(made, CPU), torch.float32, 0.0, 1)
    x, y = torch.randn(2, *spec.shape, generator=generator), torch.rand(2, 3, generator=generator)
    if spec.kind == "int":
        x = y = x.abs().long()
    elif isinstance(loss, nt.CrossEntropyLoss):
        y = y.argmax(1)
    return model.linearize(x, y), x, y


def directions(lin: Linearization) -> list[Tensor]:
    return [*torch.randn(2, lin.model.params.numel(), generator=torch.Generator().manual_seed(1))]


# --- networks that reach every kind of launch -----------------------------------------------------


def convolutions() -> None:
    """Runs convolutions of few and of many channels on tensor cores: shared loops, split sums."""
    net = nt.Sequential(
        *(nt.Conv2d(16, (1, 3), padding=(0, 1)), nt.SiLU(), nt.MaxPool2d(2)),
        *(nt.Conv2d(20, 3, padding=1), nt.Tanh(), nt.Flatten(), nt.Linear(3)),
    )
    lin, x, _ = linearized(net, (3, 4, 4), nt.CrossEntropyLoss(), settings("tf32", elements=512))
    v, _ = directions(lin)
    lin.model(x), lin.hvp(v), lin.ggnvp(v)
    lin.quadratic_forms([v]), lin.quadratic_forms([v], two_products=True)
    lin.quadratic_forms([v], "ggn"), lin.kronecker_factors("kfac", 2)


def pools() -> None:
    """Runs batch norm, groups, strides, a residual and pools whose windows overlap."""
    body = nt.Sequential(nt.Conv2d(4, 3, padding=1, groups=2), nt.GELU())
    net = nt.Sequential(
        *(nt.Conv2d(4, 2, stride=2), nt.BatchNorm2d(), nt.SiLU(), nt.MaxPool2d(2, 1, 1)),
        *(nt.Residual(body), nt.AvgPool2d(2, 1), nt.Flatten(), nt.Linear(3)),
    )
    lin, x, y = linearized(net, (2, 6, 6), nt.MSELoss(), settings(elements=32))
    v, _ = directions(lin)
    lin.model.loss(x, y), lin.ggnvp(v)
    lin.kronecker_factors("empirical")


def vendors() -> None:
    """Runs the vendor's contractions between fused kernels."""
    net = nt.Sequential(nt.Conv2d(8, 3), nt.SiLU(), nt.Flatten(), nt.Linear(3))
    lin, *_ = linearized(net, (2, 5, 5), nt.CrossEntropyLoss(), settings("tf32", "vendor"))
    v, _ = directions(lin)
    lin.hvp(v), lin.kronecker_factors("kflr")


def factors() -> None:
    """Runs the recursive factors, the stored Jacobian and forms of two directions."""
    net = nt.Sequential(nt.Linear(17), nt.Tanh(), nt.Linear(3))
    lin, *_ = linearized(net, (5,), nt.MSELoss(), settings(elements=64))
    v, w = directions(lin)
    lin.quadratic_forms([v, w]), lin.ggnvp(v, "stored-jacobian"), lin.block_ggnvp(w)
    for kind in ("kflr", "kfra", "pch-1", "pch-2"):
        lin.kronecker_factors(kind)


def tokens() -> None:
    """Runs products of stacks of matrices, softmaxes, and rows of a table."""
    loss, tokens = nt.CrossEntropyLoss(), nt.InputSpec((3,), "int")
    lin, *_ = linearized(gpt(5, 4, 2), tokens, loss, settings("tf32", elements=64))
    lin.ggnvp(directions(lin)[0])


def passes() -> None:
    """Runs scores of attention in passing, by rows and by columns, and classes that are drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wide, "LEAST", 1)
        patch.setattr(wide, "MANY", 6)
        loss, tokens = nt.CrossEntropyLoss(), nt.InputSpec((17,), "int")
        lin, *_ = linearized(gpt(6, 4, 2), tokens, loss, settings("tf32", elements=512))
        v = directions(lin)[0]
        lin.quadratic_forms([v]), lin.kronecker_factors("kfac")


def rows() -> None:
    """Runs rows that are added at indices, one of which is at most positions."""
    words, ct = ops.input_("w", (N, 40), "int"), ops.input_("ct", (2, N, 40, 6))
    added = ops.scale(ops.make(Op.SCATTER_ROWS, ct, words, size=140), 0.5)
    graph = Graph("rows", {"added": added, "total": ops.reduce_sum(added, (0, 1))})
    executor = FusedExecutor(graph, (), Selection(settings()))
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(-8, 7, (4, 40), generator=generator).clamp(min=0)
    feed = {words: index, ct: torch.randn(2, 4, 40, 6, generator=generator)}
    executor(Context(4, torch.float32, CPU), feed)


def vectors() -> None:
    """Runs conjugate gradients and other arithmetic on flat vectors."""
    compiled = TritonBackend(settings(elements=64), CPU).vectors
    b, d = torch.randn(2, 200, generator=torch.Generator().manual_seed(0))
    for system in (
        System(b, 0.1), System(b, 0.1, radius=0.7), System(b, 0.1, precondition=lambda r: r / 2),
    ):  # fmt: skip
        conjugate_gradients(lambda v: d.abs() * v, system, Stop(2, 1e-6), compiled)
    compiled.gram([b, d, b * d]), compiled.combination([0.5, -2.0], [b, d])


LOOKUPS = {
    Op.AVG_POOL, Op.AVG_UNPOOL, Op.ARGMAX_POOL, Op.GATHER_MAX, Op.SCATTER_MAX, Op.GATHER_ROWS,
}  # fmt: skip
REACHED: dict[Callable[[], None], set[str]] = {
    convolutions: {
        "flat", "rolled", "rolled in parts", "shared loop", "outer in parts", "gram in parts",
        "rectangle_products", "assemble", "a sum of contractions", "parts of sums", "added parts",
        "several kernels", "whole rows",
    },
    pools: {
        "flat", "outer in parts", "several kernels", "written over another value", "added parts",
        "avg_pool", "avg_unpool", "argmax_pool", "gather_max", "scatter_max",
    },
    vendors: {"vendor", "several kernels"},
    factors: {"whole rows", "gram in parts", "added parts"},
    tokens: {"stacks", "a sum of contractions", "whole rows", "gather_rows", "scatter_rows"},
    passes: {"rows of a stream", "columns of a stream", "sums of parts of rows"},
    rows: {"sort_runs", "merge_runs", "find_words", "add_parts", "scatter_rows", "parts of sums"},
    vectors: {"flat vectors", "parts of sums", "results over what is given"},
}  # fmt: skip


def reached(report: Report) -> set[str]:
    """Returns what kinds of kernels have run as several programs."""
    return {
        kind
        for plan in report.plans
        for launch in plan.launches
        if isinstance(launch, Watched)
        for kind in kinds(launch, report.instances[launch.launch], plan)
    }


def kinds(watched: Watched, instances: dict[str, int], plan: Plan) -> Iterator[str]:
    """Yields the kinds of a launch's kernels, if they run as several programs."""
    launch = watched.launch
    if isinstance(launch, VendorLaunch):
        yield "vendor"
    several = {name for name, count in instances.items() if count > 1}
    if not several:
        return
    if isinstance(launch, PatchGramLaunch | ScatterLaunch):
        yield from several
    if isinstance(launch, ContractionLaunch):
        yield contracted(launch)
    if isinstance(launch, PassLaunch):
        parts = {"rows": "rows of a stream", "columns": "columns of a stream"}
        yield from (parts.get(name.split("_")[0], "sums of parts of rows") for name in instances)
    if len(launch.kernels) > 1:
        yield "several kernels"
    if set(plan.storage.block) & {value for kernel in launch.kernels for value in kernel.writes}:
        yield "written over another value"
    if watched.over_given:
        yield "results over what is given"
    for kernel in launch.kernels:
        yield from (op.value for op in ops_of(kernel, plan.schedule) & LOOKUPS)
        traits = {
            "a sum of contractions": len(kernel.anchors) > 1,
            "parts of sums": bool(kernel.partials),
            "added parts": bool(kernel.adds),
            "whole rows": kernel.whole_rows and not kernel.anchors,
            "flat vectors": kernel.space.shape == (N,),
        }
        yield from (kind for kind, holds in traits.items() if holds)


def ops_of(kernel: Kernel, schedule: Schedule) -> set[Op]:
    """Returns the ops of what a kernel computes, those among them that are looked up."""
    found = [*kernel.nodes, *kernel.partials]
    for node in found:
        found += [x for x in node.inputs if x in schedule.looked_up and x not in found]
    return {node.op for node in found}


def contracted(launch: ContractionLaunch) -> str:
    """Returns how the loop of a contraction goes, and whether what it sums is in parts."""
    job = launch.calls[0].job
    constants = job.constants
    if job.function is outer.outer:
        loop = "gram" if launch.kernels[0].anchors[0].op is Op.GRAM else "outer"
    else:
        loop = "flat" if constants["FLAT"] else "rolled"
        loop = "stacks" if constants["RUN"] else loop
    parts = " in parts" if constants["SPLIT"] > 1 else ""
    return "shared loop" if constants.get("TOGETHER") else f"{loop}{parts}"


@pytest.mark.parametrize("run", REACHED, ids=lambda run: run.__name__)
def test_no_launch_races_or_leaves_its_memory(run: Callable[[], None]) -> None:
    with watched() as report:
        run()
    assert not report.findings
    assert REACHED[run] <= reached(report)


# --- faults that are put in -----------------------------------------------------------------------


def small() -> None:
    """Runs a network whose launches have several programs, and its factors."""
    net = nt.Sequential(
        *(nt.Conv2d(4, 2, stride=2), nt.BatchNorm2d(), nt.SiLU(), nt.MaxPool2d(3, 1, 1)),
        *(nt.Flatten(), nt.Linear(3)),
    )
    lin, x, _ = linearized(net, (2, 6, 6), nt.MSELoss(), settings(elements=64))
    lin.model(x), lin.kronecker_factors("empirical")


Patch = pytest.MonkeyPatch


def code_says(old: str, new: str) -> Callable[[Patch, Path], None]:
    """Changes generated code."""

    def change(patch: Patch, _: Path) -> None:
        generate = pipeline.generate

        def changed(*args: Any) -> list[LaunchCode]:
            return [replace(code, text=code.text.replace(old, new)) for code in generate(*args)]

        patch.setattr(pipeline, "generate", changed)

    return change


def skeleton_says(
    module: ModuleType, user: ModuleType, name: str, old: str, new: str
) -> Callable[[Patch, Path], None]:
    """Changes a skeleton where a module uses it."""

    def change(patch: Patch, folder: Path) -> None:
        text = Path(str(module.__file__)).read_text()
        assert text.count(old) == 1
        path = folder / "changed.py"
        path.write_text(text.replace(old, new))
        spec = importlib.util.spec_from_file_location(f"{module.__package__}.changed", path)
        assert spec is not None and spec.loader is not None
        changed = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, changed.__name__, changed)
        spec.loader.exec_module(changed)
        patch.setattr(user, name, getattr(changed, name))

    return change


def always_replace(patch: Patch, _: Path) -> None:
    """Lets every value be written over every value that is read for the last time."""

    def all_of_them(code: Code) -> Overwriting:
        stored = {a.node for a in code.accesses if a.stored}
        read = {a.node for a in code.accesses if not a.stored} - stored
        return Overwriting(dict.fromkeys(read, 0), dict.fromkeys(stored, 1))

    patch.setattr(Code, "overwriting", property(all_of_them))


def merge_launches(patch: Patch, _: Path) -> None:
    """Launches kernels together that wait for each other."""
    schedule = pipeline.schedule

    def merged(*args: Any) -> Schedule:
        made = schedule(*args)
        found = [list(made.launches[0])]
        for kernels in made.launches[1:]:
            if any(kernel.anchors for kernel in (*found[-1], *kernels)):
                found.append(list(kernels))
            else:
                found[-1] += kernels
        return replace(made, launches=found)

    patch.setattr(pipeline, "schedule", merged)


def shorten_scratch(patch: Patch, _: Path) -> None:
    """Makes all memory between kernels too small by an element."""
    lay_out = pipeline.lay_out

    def shorter(uses: Sequence[Use], *args: Any) -> storage.Storage:
        less = [replace(u, scratch={p: n - 1 for p, n in u.scratch.items()}) for u in uses]
        return lay_out(less, *args)

    patch.setattr(pipeline, "lay_out", shorter)


def leave_out_the_last_part(patch: Patch, _: Path) -> None:
    """Runs contractions without their last program."""
    choose = pipeline.choose_tilings

    def fewer(*args: Any) -> dict[Kernel, Tiling]:
        return {k: replace(t, instances=t.instances - 1) for k, t in choose(*args).items()}

    patch.setattr(pipeline, "choose_tilings", fewer)


def forget_early(patch: Patch, _: Path) -> None:
    """Gives memory away as soon as its value has been written."""
    spans = storage._spans
    patch.setattr(storage, "_spans", lambda uses: {b: (i, i) for b, (i, _) in spans(uses).items()})


FAULTS: dict[str, tuple[Callable[[Patch, Path], None], set[Fault]]] = {
    "every value may be replaced": (always_replace, {Fault.READ_WRITE}),
    "no mask of rows in generated code": (
        code_says("mask=mr & mc)", "mask=mc)"), {Fault.BOUNDS},
    ),
    "no mask of rows in a contraction": (
        skeleton_says(contraction, tiles, "contraction", "valid = m < rows", "valid = m >= 0"),
        {Fault.BOUNDS},
    ),
    "no mask of pixels in an outer product": (
        skeleton_says(outer, tiles, "outer", "real = k < pixels", "real = k >= 0"),
        {Fault.BOUNDS},
    ),
    "no mask of columns in a patch Gram": (
        skeleton_says(lags, launches, "assemble", "& (n < D)", "& (n >= 0)"),
        {Fault.WRITE_WRITE},
    ),
    "launches that depend on each other are one": (
        merge_launches, {Fault.READ_WRITE, Fault.UNWRITTEN, Fault.ORDER},
    ),
    "a tile is written twice": (
        code_says("tile(pid, ", "tile(pid // 2, "), {Fault.WRITE_WRITE, Fault.UNWRITTEN},
    ),
    "all parts go to one place": (
        skeleton_says(outer, tiles, "outer", "j * STRIPS, split,", "j * STRIPS, 0,"),
        {Fault.WRITE_WRITE, Fault.UNWRITTEN},
    ),
    "scratch is too small": (shorten_scratch, {Fault.BOUNDS}),
    "a part is never written": (leave_out_the_last_part, {Fault.UNWRITTEN}),
    "memory is given away too early": (forget_early, {Fault.UNWRITTEN}),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    change, expected = FAULTS[name]
    change(monkeypatch, tmp_path)
    with watched(orders=3 if Fault.ORDER in expected else 1) as report:
        small()
    assert expected <= report.faults

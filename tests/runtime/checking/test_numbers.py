"""The check finds no fault in what is right, finds every fault in what is wrong, and goes on."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler import vectors
from newtriton.compiler.graph.ir import Graph, Node, Op, concrete
from newtriton.compiler.language.network import Layer
from newtriton.compiler.lowering import printing
from newtriton.compiler.lowering.codegen import LaunchCode
from newtriton.compiler.lowering.kernel import base
from newtriton.compiler.lowering.space import GRAMS
from newtriton.compiler.lowering.tile import Along
from newtriton.runtime.aten.rules import ATEN
from newtriton.runtime.backend import Context
from newtriton.runtime.checking import numbers as check
from newtriton.runtime.checking.networks import SMALL
from newtriton.runtime.fused import pipeline
from newtriton.runtime.fused.call import Memory
from newtriton.runtime.fused.launch import Generated
from newtriton.runtime.fused.plan import Plan
from newtriton.runtime.fused.settings import Settings
from newtriton.runtime.rounding import bounds

from .operators import OnOperators, make_launches
from .small import small

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
INTERPRETED = Settings("ieee", "fused", True, 8192)
OPERATORS = Settings("ieee", "fused")
CPU, BATCH = torch.device("cpu"), 16


@pytest.mark.interpreter
@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_all_kernels_of_a_small_network_are_right(precision: str):
    errors = list(check.numbers("small", small(), 3, Settings(precision, "fused", True, 8192)))
    assert len(errors) > 30 and all(e.good for e in errors), [str(e) for e in errors if not e.good]


@pytest.mark.interpreter
def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch):
    right = printing.ALONG_ROW[Along.SUM]
    monkeypatch.setitem(printing.ALONG_ROW, Along.SUM, f"1.001 * {right}")
    wrong = [e for e in check.numbers("small", small(), 3, INTERPRETED) if not e.good]
    assert "linearize" in wrong[0].kernel and "row_max" in wrong[0].kernel
    assert str(wrong[0]).endswith("WRONG")


def test_a_nan_is_not_good():
    assert not check.Error("kernel", float("nan"), 2e-5).good


@pytest.mark.interpreter
@pytest.mark.parametrize("length", [1, 2500])
def test_all_kernels_of_vectors_are_right(length: int):
    errors = list(check.vector_numbers(length, CPU, INTERPRETED))
    assert len(errors) == 20 and all(e.good for e in errors), [str(e) for e in errors if not e.good]


# --- PyTorch's operators in the place of kernels --------------------------------------------------


def relu() -> Layer:
    """Kinks, and pools whose windows overlap: what a rounding error turns over."""
    return nt.Sequential(
        *(nt.Conv2d(24, 3, padding=1), nt.ReLU(), nt.MaxPool2d(3, 2, 1)),
        *(nt.Conv2d(16, 3), nt.ReLU(), nt.Flatten(), nt.Linear(10)),
    )


NETWORKS = {**SMALL, "relu": (relu, (3, 12, 12))}


@pytest.fixture
def on_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "make_launches", make_launches)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *(("relu", precision) for precision in check.UNITS),
        *(("plain", "tf32"), ("normed", "ieee"), ("patches", "tf32"), ("words", "ieee")),
    ],
)
def test_float32_on_pytorchs_operators_passes(on_operators: None, name: str, precision: str):
    lines = list(check.numbers(name, _model(name), 17, Settings(precision, "fused")))
    assert len(lines) > 60 and all(line.good for line in lines), [
        str(line) for line in lines if not line.good
    ]


def test_float32_on_pytorchs_operators_passes_on_vectors(on_operators: None):
    lines = list(check.vector_numbers(100_003, CPU, OPERATORS))
    assert len(lines) == 20 and all(line.good for line in lines)


# --- faults ---------------------------------------------------------------------------------------

Fault = Callable[[Node, Tensor, Memory], None]


class Faulty(OnOperators):
    """Launches that spoil what they have written, where a fault says so."""

    def __init__(self, slots: LaunchCode, generated: Generated, fault: Fault) -> None:
        super().__init__(slots, generated)
        self.fault = fault

    def run(self, context: Context, tensor: Memory) -> None:
        super().run(context, tensor)
        for n in (n for kernel in self.kernels for n in kernel.writes):
            self.fault(n, tensor(n).view(-1, *_columns(n)), tensor)


def _columns(node: Node) -> Sequence[int]:
    return node.shape[-1:] if node.shape and isinstance(node.shape[-1], int) else (1,)


def _model(name: str) -> nt.Model:
    net, shape = NETWORKS[name]
    torch.manual_seed(0)
    return nt.compile(net(), shape, nt.CrossEntropyLoss(), backend="aten", device="cpu")


def _wrong(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> tuple[set[str], set[str]]:
    """The values that a fault spoils, and those that are called wrong."""
    spoilt: set[str] = set()

    def spoil(node: Node, written: Tensor, tensor: Memory) -> None:
        before = written.clone()
        fault(node, written, tensor)
        if not torch.equal(before, written):
            spoilt.add(repr(node))

    def faulty(slots: Sequence[LaunchCode], generated: Generated) -> list[Faulty]:
        return [Faulty(each, generated, spoil) for each in slots]

    called: set[str] = set()
    judge = check.largest_error

    def judged(node: Node, *arguments: Any) -> float:
        error = judge(node, *arguments)
        if not error <= check.UNITS["ieee"]:
            called.add(repr(node))
        return error

    monkeypatch.setattr(pipeline, "make_launches", faulty)
    monkeypatch.setattr(check, "largest_error", judged)
    lines = list(check.numbers("relu", _model("relu"), BATCH, OPERATORS))
    assert any(not line.good for line in lines)
    return spoilt, called


def scaled(node: Node, written: Tensor, tensor: Memory) -> None:
    if written.is_floating_point() and node.op is not Op.MAP:
        written *= 1.001


def one_element(node: Node, written: Tensor, tensor: Memory) -> None:
    if written.is_floating_point() and written.numel() > 1000:
        written.view(-1)[123] += 0.01 * float(written.abs().max())


def unwritten_tail(node: Node, written: Tensor, tensor: Memory) -> None:
    written[-1:] = torch.nan if written.is_floating_point() else -1


def unmasked_row(node: Node, written: Tensor, tensor: Memory) -> None:
    if len(written) > 1:
        written[-1] = written[-2]


def transposed_tile(node: Node, written: Tensor, tensor: Memory) -> None:
    side = min(4, *written.shape)
    if node.op not in GRAMS:  # which are symmetric
        written[:side, :side] = written[:side, :side].mT.clone()


def wrong_index(node: Node, written: Tensor, tensor: Memory) -> None:
    if not written.is_floating_point():
        written.view(-1)[77] += 1


def next_tap(node: Node, written: Tensor, tensor: Memory) -> None:
    if node.op is Op.CONV_WEIGHT_GRAD:
        written.copy_(written.view(node.shape).roll(1, 2).reshape(written.shape))


def dropped_term(node: Node, written: Tensor, tensor: Memory) -> None:
    """Leaves out one pixel of one sample."""
    if node.op is Op.CONV_WEIGHT_GRAD:
        ct, x = (tensor(base(i)).view(concrete(i.shape, BATCH)) for i in node.inputs)
        ct = ct.clone()
        ct[-1, -1, -1] = 0
        context = Context(BATCH, torch.float32, CPU)
        written.copy_(ATEN[node.op](node)(context, ct, x).reshape(written.shape))


FAULTS = {
    "a dropped term": dropped_term,
    "scaled": scaled,
    "one element": one_element,
    "unwritten tail": unwritten_tail,
    "a row without its mask": unmasked_row,
    "a transposed tile": transposed_tile,
    "a wrong index": wrong_index,
    "the next tap": next_tap,
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_in_every_value_that_it_spoils(monkeypatch: pytest.MonkeyPatch, name: str):
    spoilt, called = _wrong(monkeypatch, FAULTS[name])
    assert spoilt and spoilt <= called, spoilt - called
    assert called <= spoilt  # and nowhere else


def test_one_wrong_element_of_a_million_is_found(monkeypatch: pytest.MonkeyPatch):
    def spoil(node: Node, written: Tensor, tensor: Memory) -> None:
        if written.numel() > 1_000_000:
            written.view(-1)[654_321] *= 1.0001

    def faulty(slots: Sequence[LaunchCode], generated: Generated) -> list[Faulty]:
        return [Faulty(each, generated, spoil) for each in slots]

    monkeypatch.setattr(pipeline, "make_launches", faulty)
    monkeypatch.setattr(check, "vector_programs", lambda: [vectors.combination(2).graph])
    (line,) = check.vector_numbers(1_000_003, CPU, OPERATORS)
    assert not line.good


def test_launches_in_the_wrong_order_are_found(monkeypatch: pytest.MonkeyPatch):
    def swapped(slots: Sequence[LaunchCode], generated: Generated) -> list[OnOperators]:
        first, second, third, *others = make_launches(slots, generated)
        return [first, third, second, *others]

    monkeypatch.setattr(pipeline, "make_launches", swapped)
    bad = [e for e in check.numbers("small", small(), 3, OPERATORS) if not e.good]
    assert any("before that is computed" in str(e) and "linearize" in str(e) for e in bad)


# --- exceptions -----------------------------------------------------------------------------------


def test_a_launch_that_raises_is_a_line_and_the_check_goes_on(monkeypatch: pytest.MonkeyPatch):
    def raising(slots: Sequence[LaunchCode], generated: Generated) -> list[OnOperators]:
        launches = make_launches(slots, generated)
        if generated.schedule.graph.name == "hvp":
            launches[1].run = fail  # type: ignore[method-assign]
        return launches

    def fail(context: Context, tensor: Memory) -> None:
        raise RuntimeError("an illegal memory access\nwas encountered")

    monkeypatch.setattr(pipeline, "make_launches", make_launches)
    everything = list(check.numbers("small", small(), 3, OPERATORS))
    monkeypatch.setattr(pipeline, "make_launches", raising)
    lines = list(check.numbers("small", small(), 3, OPERATORS))
    (bad,) = [line for line in lines if not line.good]
    assert "hvp" in bad.kernel and len(lines) >= len(everything)
    assert "RuntimeError: an illegal memory access was encountered" in str(bad)
    assert "\n" not in str(bad)


def test_a_plan_that_cannot_be_made_is_a_line_and_the_check_goes_on(
    on_operators: None, monkeypatch: pytest.MonkeyPatch
):
    make = check.program_plan

    def fail(graph: Graph, *arguments: Any) -> Plan:
        if graph.name == "linearize":
            raise AssertionError("no tile fits")
        return make(graph, *arguments)

    monkeypatch.setattr(check, "program_plan", fail)
    lines = list(check.numbers("small", small(), 3, OPERATORS))
    assert [e.message for e in lines if isinstance(e, check.Failure)] == [
        "AssertionError: no tile fits"
    ]
    assert len(lines) > 20  # the others have their tape from the oracle


def test_an_oracle_that_raises_is_a_line_and_the_check_goes_on(
    on_operators: None, monkeypatch: pytest.MonkeyPatch
):
    def fail(*arguments: Any) -> Any:
        raise MemoryError("no room for a copy in float64")

    monkeypatch.setitem(bounds.BOUNDS, Op.PATCH_GRAM, fail)
    lines = list(check.numbers("small", small(), 3, OPERATORS))
    bad = [line for line in lines if not line.good]
    assert len(bad) == 1 and "patch_gram" in bad[0].kernel and "MemoryError" in str(bad[0])

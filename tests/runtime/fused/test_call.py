"""A call has its arguments as data: their types follow from them, and their places are found."""

import pytest
import torch

from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N
from newtriton.compiler.lowering.code import Part
from newtriton.runtime.fused import call as calls
from newtriton.runtime.fused.call import WIDTH, Call, Memory, aligned, types_of
from newtriton.runtime.fused.compiling import UNALIGNED, Job

X, Y = ops.input_("x", (N,)), ops.input_("y", (N,), "int")
PART, TABLE = Part(X), torch.arange(3, dtype=torch.int32)
ARGUMENTS = {"p": (X, PART), "labels": Y, "table": TABLE, "batch": 5, "scale": 0.5}


def test_types_follow_from_arguments():
    assert types_of(ARGUMENTS) == {
        "p": ("*fp32", "*fp32"), "labels": "*i64", "table": "*i32", "batch": "i32", "scale": "fp32",
    }  # fmt: skip
    assert types_of(ARGUMENTS, {PART})["p"] == ("*fp32", "*fp32" + UNALIGNED)


def test_memory_is_asked_for_once():
    asked = []

    def place(buffer):
        asked.append(buffer)
        return torch.zeros(3)

    memory = Memory(place)
    assert memory(X) is memory(X) and memory.address(X) == memory(X).data_ptr()
    made = torch.ones(2)
    memory.put(PART, made)
    assert memory(PART) is made and asked == [X]


def test_what_lies_elsewhere_is_copied():
    numbers = torch.arange(9.0)
    assert aligned(numbers) is numbers
    copy = aligned(numbers[1:])
    assert copy.data_ptr() % WIDTH == 0 and torch.equal(copy, numbers[1:])


class Function:
    """A Triton kernel that notes what it is launched with."""

    arg_names = ("p", "labels", "table", "batch", "scale", "WIDE")

    def __init__(self) -> None:
        self.launched: list[tuple] = []

    def __getitem__(self, grid):
        return lambda *given, **constants: self.launched.append((grid, given, constants))

    def warmup(self, **given):
        return self


@pytest.mark.parametrize("interpreted", [True, False])
def test_a_kernel_takes_tensors_in_the_interpreter_and_addresses_on_a_gpu(
    interpreted: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calls, "interpreted", lambda: interpreted)
    function, tensors = Function(), {X: torch.zeros(2), Y: torch.zeros(2), PART: torch.zeros(4)}
    call = Call(Job("job", "pointwise", function, {}, {"WIDE": 7}), 3, ARGUMENTS)
    call.load(torch.device("cpu"))
    call(Memory(tensors.__getitem__))
    ((grid, given, constants),) = function.launched
    if interpreted:
        assert grid == (3,) and constants == {"WIDE": 7}
        assert given == ((tensors[X], tensors[PART]), tensors[Y], TABLE, 5, 0.5)
    else:
        x, y, part = (tensor.data_ptr() for tensor in tensors.values())
        assert grid == (3, 1, 1) and not constants
        assert given == ((x, part), y, TABLE.data_ptr(), 5, 0.5, 7)

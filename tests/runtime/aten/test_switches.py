"""PyTorch's own switches hold inside, and are put back behind it, whatever a user has set."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from contextlib import ExitStack

import pytest
import torch

from newtriton.runtime.aten.switches import set_repeatable, switches

# What a user may have done before, as the newer and the older switches allow it.
USERS = [
    "pass",
    "torch.set_float32_matmul_precision('highest')",
    "torch.set_float32_matmul_precision('high')",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.cuda.matmul.allow_tf32 = False",
    "torch.backends.cudnn.allow_tf32 = True",
    "torch.backends.cudnn.allow_tf32 = False",
    "torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True",
    *(
        f"{level}.fp32_precision = '{precision}'"
        for level in (
            "torch.backends",
            "torch.backends.cudnn",
            "torch.backends.cudnn.conv",
            "torch.backends.cudnn.rnn",
            "torch.backends.cuda.matmul",
            "torch.backends.mkldnn",
            "torch.backends.mkldnn.conv",
            "torch.backends.mkldnn.matmul",
        )
        for precision in ("ieee", "tf32", "none")
    ),
    "torch.backends.fp32_precision = 'bf16'",
    "torch.backends.mkldnn.fp32_precision = 'bf16'",
    "torch.backends.fp32_precision = torch.backends.cudnn.fp32_precision = 'tf32'",
    "torch.backends.fp32_precision = torch.backends.cudnn.fp32_precision = 'ieee'",
    "torch.backends.fp32_precision = 'ieee'; torch.backends.cudnn.fp32_precision = 'tf32'",
    "torch.backends.cudnn.fp32_precision = 'tf32'; torch.backends.cudnn.conv.fp32_precision='none'",
    "torch.set_float32_matmul_precision('high'); torch.backends.fp32_precision = 'ieee'",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'; torch.backends.cudnn.allow_tf32 = False",
]
PROGRAM = """
import os, sys, warnings
from contextlib import ExitStack
import torch
from newtriton.runtime.aten.switches import set_precision
warnings.simplefilter("ignore")
b = torch.backends
NEW = [b, b.cudnn, b.cudnn.conv, b.cudnn.rnn, b.cuda.matmul, b.mkldnn, b.mkldnn.conv,
       b.mkldnn.matmul]
OLD = [torch.get_float32_matmul_precision, lambda: b.cuda.matmul.allow_tf32,
       lambda: b.cudnn.allow_tf32]

def old(read):
    try:
        return read()
    except RuntimeError:
        return "raises"

def state():
    return [x.fp32_precision for x in NEW], [old(read) for read in OLD]

def inside(precision):
    assert [x.fp32_precision for x in (b.cudnn.conv, b.cuda.matmul)] == [precision] * 2

def ours():
    for outer in ("ieee", "tf32"):
        with ExitStack() as stack:
            set_precision(stack, outer)
            inside(outer)
            for inner in ("ieee", "tf32"):
                try:
                    with ExitStack() as deeper:
                        set_precision(deeper, inner)
                        inside(inner)
                        raise ZeroDivisionError
                except ZeroDivisionError:
                    inside(outer)

def outcome(user, middle):
    # What a user sees who goes on setting the levels, in a process of its own.
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            exec(user)
            seen = [state()]
            middle()
            seen.append(state())
            for level in (b, b.cudnn):
                for precision in ("ieee", "tf32", "none"):
                    level.fp32_precision = precision
                    seen.append(state())
        except BaseException as error:
            seen = repr(error)
        os.write(writing, repr(seen).encode())
        os._exit(0)
    os.wait()
    os.close(writing)
    with os.fdopen(reading) as pipe:
        return pipe.read()

for user in sys.stdin.read().splitlines():
    found, expected = outcome(user, ours), outcome(user, lambda: None)
    assert expected.startswith("["), (user, expected)
    assert found == expected, f"{user}: {found} instead of {expected}"
print("held")
"""


def test_every_switch_of_a_user_is_as_it_was_and_acts_as_it_did():
    """Each state in a process of its own; the next thing that a user sets acts as it would."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        input="\n".join(USERS), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "held\n", done.stderr[-2000:]


def precisions() -> tuple[str, str]:
    backends = torch.backends
    return backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision


@pytest.mark.parametrize("tf32", [False, True])
def test_the_switches_hold_inside_and_are_put_back(tf32: bool):
    before = precisions()
    with pytest.raises(ZeroDivisionError), switches(torch.device("cuda"), tf32):
        assert precisions() == ("tf32" if tf32 else "ieee",) * 2
        raise ZeroDivisionError
    assert precisions() == before


def test_other_devices_change_nothing():
    before = precisions()
    for value in (False, True):
        with switches(torch.device("cpu"), value):
            assert precisions() == before


@pytest.mark.parametrize("benchmark", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_cudnn_repeats_bit_for_bit_inside(deterministic: bool, benchmark: bool):
    cudnn = torch.backends.cudnn
    with ExitStack() as user:
        user.callback(setattr, cudnn, "deterministic", cudnn.deterministic)
        user.callback(setattr, cudnn, "benchmark", cudnn.benchmark)
        cudnn.deterministic, cudnn.benchmark = deterministic, benchmark
        with ExitStack() as stack:
            set_repeatable(stack)
            assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
        assert (cudnn.deterministic, cudnn.benchmark) == (deterministic, benchmark)


def test_autocast_is_off_inside_and_as_it_was_behind_it():
    x = torch.randn(3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        with switches(torch.device("cpu")):
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")

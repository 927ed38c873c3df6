"""PyTorch's own switches hold inside, and are put back behind it, whatever a user has set."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from contextlib import AbstractContextManager, ExitStack, nullcontext

import pytest
import torch

import newtriton as nt
from newtriton.compiler.curvature.factors import KINDS
from newtriton.runtime.aten.switches import set_repeatable, switches
from newtriton.runtime.curvatures.kronecker import KroneckerCurvature

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # masked elements, in NumPy

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
from contextlib import AbstractContextManager, ExitStack, nullcontext
import torch

import newtriton as nt
from newtriton.compiler.curvature.factors import KINDS
from newtriton.runtime.curvatures.kronecker import KroneckerCurvature
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


PRESETS = {
    "fitre": nt.FITRE,
    "kfac": nt.KFAC,
    "kflr": nt.KFLR,
    "kfra": nt.KFRA,
    "eacg": nt.EACG,
    "newton-cg": lambda model: nt.NewtonCG(model, preconditioner="kfac"),
    "eigen": lambda model: nt.SecondOrder(model, "kfac", "eigen"),
}


def compiled(backend: str) -> tuple[nt.Model, torch.Tensor, torch.Tensor]:
    net = nt.Sequential(
        *(nt.Conv2d(3, 3, padding=1), nt.ReLU(), nt.MaxPool2d(2), nt.Flatten()),
        *(nt.Linear(5), nt.Tanh(), nt.Linear(3)),
    )
    model = nt.compile(
        net, (2, 4, 4), nt.CrossEntropyLoss(), backend=backend, device="cpu", weight_decay=0.1
    )
    generator = torch.Generator().manual_seed(0)
    return model, torch.randn(4, 2, 4, 4, generator=generator), torch.arange(4) % 3


def calls(model: nt.Model, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every public call that computes something, by name."""
    v, w = (torch.linspace(-1.0, 1.0, len(model.params)).roll(i) for i in (0, 1))
    lin = model.linearize(x, y)
    found = {
        "outputs": model(x), "loss": model.loss(x, y), "gradient": model.gradient(x, y)[1],
        "linearization": lin.gradient, "hvp": lin.hvp(v), "ggnvp": lin.ggnvp(v),
        "stored": lin.ggnvp(v, "stored-jacobian"), "forms": lin.quadratic_forms([v, w]),
    }  # fmt: skip
    for kind in KINDS:
        factors = lin.kronecker_factors(kind, generator=torch.Generator().manual_seed(0))
        for layer, pair in factors.items():
            found |= {f"{kind} {layer} {name}": t for name, t in pair.tensors.items()}
    curvature = KroneckerCurvature(model)
    curvature.update(lin)
    return found | {"curvature": curvature.mv(v)}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_autocast_changes_no_call(backend: str):
    arguments = compiled(backend)
    expected = calls(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        found = calls(*arguments)
        assert torch.is_autocast_enabled("cpu")
    same(found, expected)


@pytest.mark.parametrize("backend", ["aten", "triton"])
@pytest.mark.parametrize("name", PRESETS)
def test_autocast_changes_no_step(name: str, backend: str):
    def steps(user: AbstractContextManager[object]) -> dict[str, torch.Tensor]:
        model, x, y = compiled(backend)
        optimizer = PRESETS[name](model)
        with user:
            for _ in range(1 if backend == "triton" else 3):
                optimizer.step(x, y)
        return {"params": model.params}

    same(steps(torch.autocast("cpu", torch.bfloat16)), steps(nullcontext()))

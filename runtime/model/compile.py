"""`newtriton.compile`: a network with its loss on a backend."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any, TypeVar

import torch

from ...compiler.graph.calls import checked
from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.options import check_flag, check_kind, check_number, check_option, check_seed
from ...compiler.language.inputs import InputSpec, specifications
from ...compiler.language.loss import Loss, check_loss
from ...compiler.language.network import Layer
from ..aten.executor import AtenBackend
from ..backend import Backend
from ..parallel.data_parallel import DataParallel
from .model import Model

BACKENDS = ("auto", "aten", "triton")
PRECISIONS = ("ieee", "tf32x3", "tf32", "bf16")
CONTRACTED_BY = ("auto", "fused", "vendor", "measured")
DTYPES = (torch.float32, torch.float64)

M = TypeVar("M", bound=Model)


@checked
def compile(
    net: Layer,
    input_shape: Any,
    loss: Loss,
    *,
    backend: str = "auto",
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    precision: str = "ieee",
    contractions: str = "auto",
    cuda_graphs: bool = True,
    weight_decay: float = 0.0,
    seed: int = 0,
    parallel: DataParallel | None = None,
) -> Model:
    """Returns the model of a network with its loss.

    The model's h is the mean loss over a batch plus λ/2 ‖θ‖², for all parameters θ.

    Args:
        net: the network, made of newtriton's layers.
        input_shape: the shape of one sample, e.g. (C, H, W) or (D,), or an `InputSpec`, which says
            that it is of integers; a tuple or a dictionary of them for a network with several
            inputs.
        loss: the loss of one sample.
        backend: "aten" runs on PyTorch's operators, "triton" on fused kernels (on a GPU, or in the
            interpreter under TRITON_INTERPRET=1); "auto" takes triton where there is a GPU.
        device: where parameters live and programs run; a GPU if there is one.
        dtype: float32 or float64; triton computes in float32.
        precision: the precision of contractions' operands, "ieee", "tf32x3", "tf32" or "bf16";
            "ieee" on the ATen backend.
        contractions: what computes them on the triton backend, "fused" kernels, the "vendor"
            library, or whichever is "measured" to be faster; "auto" measures on a GPU.
        cuda_graphs: whether the launches of a program that is repeated are recorded and replayed.
        weight_decay: λ ≥ 0, on all parameters that are not frozen.
        seed: the seed of the first parameter values, and of what drops out.
        parallel: how several processes train one model, each on its part of every batch; None for
            one process.

    Raises:
        ShapeError: the shapes do not fit at a layer, which it names.
        NewtritonError: an option is unknown or not available here.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> net = nt.Sequential(nt.Conv2d(4, 3), nt.SiLU(), nt.Flatten(), nt.Linear(10))
        >>> model = nt.compile(net, (1, 8, 8), nt.CrossEntropyLoss(), backend="aten", device="cpu")
        >>> model(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    return compiled(
        Model, net, input_shape, loss, backend=backend, device=device, dtype=dtype,
        precision=precision, contractions=contractions, cuda_graphs=cuda_graphs,
        weight_decay=weight_decay, seed=seed, parallel=parallel,
    )  # fmt: skip


@torch.inference_mode(False)
def compiled(
    kind: type[M],
    net: Layer,
    input_shape: Any,
    loss: Loss,
    *,
    backend: str,
    device: torch.device | str | None,
    dtype: torch.dtype,
    precision: str,
    contractions: str,
    cuda_graphs: bool,
    weight_decay: float,
    seed: int,
    parallel: DataParallel | None = None,
) -> M:
    """Returns a model of a class; the options are those of `compile`."""
    check_option("backend", backend, BACKENDS)
    check_option("precision", precision, PRECISIONS)
    check_option("contractions", contractions, CONTRACTED_BY)
    check_flag("cuda_graphs", cuda_graphs)
    if not isinstance(dtype, torch.dtype) or dtype not in DTYPES:
        raise NewtritonError(f"dtype is {quoted(dtype)}: one of torch.float32, torch.float64")
    check_parallel(parallel)  # the group is made before a device is chosen
    place = place_of(device)
    where = _backend(backend, place, dtype, precision, contractions, cuda_graphs)
    check_loss(loss)
    specs = specifications(input_shape)
    alone = isinstance(specs, InputSpec) and specs.kind == "float"
    decay = check_number("weight_decay", weight_decay, 0.0, torch.finfo(dtype).max)
    shape = specs.shape if alone else specs
    return kind(net, shape, loss, where, dtype, decay, check_seed(seed), parallel)


def check_parallel(parallel: object) -> None:
    """Finds or makes the group; raises an error where there is none, or this is no DataParallel."""
    if parallel is not None:
        given = check_kind("parallel", parallel, DataParallel, "e.g. newtriton.DataParallel()")
        given.ranks  # noqa: B018  it is looked for when it is first asked for


def _backend(
    name: str,
    place: torch.device,
    dtype: torch.dtype,
    precision: str,
    contractions: str,
    cuda_graphs: bool,
) -> Backend:
    """Returns the backend of that name; raises an error where it cannot be had."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if name == "auto":
        fits = place.type == "cuda" and dtype is torch.float32 and find_spec("triton") is not None
        name = "triton" if fits else "aten"
    if name == "aten":
        if precision != "ieee":
            raise NewtritonError(
                f"precision {precision!r} needs the triton backend: use precision='ieee'"
            )
        return AtenBackend(place)
    if find_spec("triton") is None:
        raise NewtritonError("backend 'triton' needs the package: pip install triton")
    if place.type != "cuda" and not interpreted:
        raise NewtritonError(
            f"backend 'triton' needs a GPU, the device is {str(place)!r}: use backend='aten', or "
            "set TRITON_INTERPRET=1 to run its kernels in the interpreter"
        )
    if dtype is not torch.float32:
        raise NewtritonError(f"backend 'triton' computes in float32, not {dtype}: use 'aten'")
    # Triton is imported only where it is used.
    from ..fused.backend import TritonBackend  # noqa: PLC0415
    from ..fused.settings import settings_of  # noqa: PLC0415

    settings = settings_of(place, precision, contractions, interpreted, cuda_graphs)
    return TritonBackend(settings, place)


def place_of(device: torch.device | str | None) -> torch.device:
    """Returns the device, a GPU for None if there is one; raises an error where it is missing.

    A GPU is given its number here: another one may be the current one in a later call.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not isinstance(device, (torch.device, str)):
        raise NewtritonError(f'device is {quoted(device)}: give e.g. "cpu", "cuda" or "cuda:0"')
    try:
        place = torch.zeros(1, device=torch.device(device)).device
    except (AssertionError, ImportError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise NewtritonError(f"device is {quoted(device)}: {reason}") from error
    if place.type == "meta":
        raise NewtritonError("device is 'meta', where nothing is computed: give e.g. 'cpu'")
    return place

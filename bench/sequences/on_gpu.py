"""Attention and large vocabularies on a GPU: times, peak memory, and errors against float64.

The steps that tell most come first. Where it is installed, jvp-flash-attention is measured beside
ours: https://pypi.org/project/jvp-flash-attention, whose kernel takes attention and its derivative
in a direction together. Ours starts from a linearization, and has the form of the loss behind.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jvp
from torch.nn.functional import scaled_dot_product_attention

import newtriton as nt

from ...runtime.aten.switches import switches
from .. import gpu, second_order
from .._measure import interleaved, summary, tried
from ..gpu import Rows, Step
from ..second_order import COMPILED, NETS, with_math

ROUNDS, HEAD = 10, 64
TYPES = {"ieee": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def programs(
    *cases: tuple[str, str], compiles: Collection[str] = (), batch: int | None = None
) -> Step:
    """Returns the measurement of networks of `NETS`, each in a precision.

    Args:
        cases: the names of networks, each with a precision.
        compiles: what is measured of torch.compile.
        batch: the batch size; the network's own unless given.
    """

    def step(device: torch.device) -> Iterator[Rows]:
        for net, precision in cases:
            yield second_order.measure(
                net, batch, precision, ROUNDS, device, compiles, statistics=False
            )

    return step


def attention(*cases: tuple[str, str], batch: int | None = None) -> Step:
    """Returns the measurement of attention's derivative in a direction.

    Args:
        cases: networks of `NETS` that are attention alone, each with a precision.
        batch: the batch size; the network's own unless given.
    """

    def step(device: torch.device) -> Iterator[Rows]:
        for net, precision in cases:
            yield _attention(net, batch or NETS[net].batch, precision, device)

    return step


def _attention(name: str, batch: int, precision: str, device: torch.device) -> Rows:
    torch.manual_seed(0)
    net, (x, y) = NETS[name].module().to(device), (t.to(device) for t in NETS[name].data(batch))
    model = nt.from_torch(net, x, nt.CrossEntropyLoss(), precision=precision)
    v = torch.randn_like(model.params)
    lin = model.linearize(x, y)
    tangents = x * v
    primals, moved = _heads(x), _heads(tangents)
    exact = _derivative(_math, [t.double() for t in primals], [t.double() for t in moved])
    primals, moved = ([t.to(TYPES[precision]) for t in each] for each in (primals, moved))
    theirs = {"torch.func.jvp: math attention": _math} | _flash()
    calls: dict[str, Callable[[], Any]] = {
        call: lambda of=of: _derivative(of, primals, moved) for call, of in theirs.items()
    }
    calls["newtriton: GGN form of a linearization"] = lambda: lin.quadratic_forms([v], "ggn")
    with switches(device, precision != "ieee"):
        taken = tried(calls, device)
        seconds = interleaved({call: calls[call] for call in taken}, ROUNDS, device)
        errors = {call: _error([calls[call]()], [exact]) for call in theirs if call in taken}
    return [
        {"net": name, "batch": batch, "precision": precision, "call": call, **summary(times)}
        | ({"peak_MB": round(taken[call] / 1e6)} if taken[call] else {})
        | ({"error": errors[call]} if call in errors else {})
        for call, times in seconds.items()
    ]


def _heads(x: Tensor) -> list[Tensor]:
    """Returns queries, keys and values, N×H×T×D each."""
    parts = x.unflatten(2, (3, -1, HEAD)).unbind(2)
    return [part.transpose(1, 2).contiguous() for part in parts]


def _math(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return with_math(lambda: scaled_dot_product_attention(q, k, v, is_causal=True))


def _flash() -> dict[str, Callable[..., Tensor]]:
    """Returns jvp-flash-attention, where it is installed."""
    try:
        from jvp_flash_attention.jvp_attention import JVPAttn  # noqa: PLC0415  # pyright: ignore
    except ImportError:
        return {}
    ways: dict[str, dict[str, bool]] = {
        "as it is": {},
        "no warps specialised": {"warp_specialize": False},
        "no TMA either": {"warp_specialize": False, "USE_TMA": False},
    }
    calls = {name: partial(JVPAttn.fwd_dual, causal=True, **way) for name, way in ways.items()}
    return {f"torch.func.jvp: jvp-flash-attention, {name}": call for name, call in calls.items()}


def _derivative(of: Callable[..., Tensor], primals: list[Tensor], moved: list[Tensor]) -> Tensor:
    return jvp(of, tuple(primals), tuple(moved))[1]


def errors(*cases: tuple[str, str], batch: int | None = None) -> Step:
    """Returns the errors of networks' values against PyTorch's in float64, ours and eager's."""

    def step(device: torch.device) -> Iterator[Rows]:
        for net, precision in cases:
            yield _errors(net, batch or NETS[net].batch, precision, device)

    return step


def _errors(name: str, batch: int, precision: str, device: torch.device) -> Rows:
    torch.manual_seed(0)
    net, (x, y) = NETS[name].module().to(device), (t.to(device) for t in NETS[name].data(batch))
    wide = copy.deepcopy(net).double()
    model = nt.from_torch(copy.deepcopy(net), x, nt.CrossEntropyLoss(), precision=precision)
    flat = 0.01 * torch.randn_like(model.params)
    v = [t.contiguous() for t in model.unflatten(flat).values()]
    exact = _values(wide, x.double() if x.is_floating_point() else x, y, [t.double() for t in v])
    with switches(device, precision != "ieee"):
        theirs = _values(net, x, y, v)
        lin = model.linearize(x, y)
    ours = {
        "gradient": list(model.unflatten(lin.gradient).values()),
        "hvp": list(model.unflatten(lin.hvp(flat)).values()),
        "form": [lin.quadratic_forms([flat])],
    }
    return [
        {"net": name, "batch": batch, "precision": precision, "by": by}
        | {what: _error(found[what], exact[what]) for what in exact}
        for by, found in {"newtriton": ours, "eager": theirs}.items()
    ]


def _values(net: nn.Module, x: Tensor, y: Tensor, v: list[Tensor]) -> dict[str, list[Tensor]]:
    """Returns gradient, Hessian product and form by PyTorch."""
    found = {what: list(call()) for what, call in second_order.eager(net, x, y, v).items()}
    form = sum((a * b).sum() for a, b in zip(found["hvp"], v, strict=True))
    return found | {"form": [torch.as_tensor(form)]}


def _error(found: list[Tensor], exact: list[Tensor]) -> float:
    """Returns the norm of the error relative to that of the exact values."""
    a, b = (torch.cat([t.detach().double().reshape(-1) for t in each]) for each in (found, exact))
    return float(f"{((a - b).norm() / b.norm()).item():.2e}")


STEPS: dict[str, Step] = {
    "first": programs(("gpt-512-1024", "tf32")),
    "errors": errors(("gpt-512-512", "ieee"), ("gpt-512-512", "tf32"), batch=4),
    "vocabulary": programs(("cross-entropy", "tf32"), ("head", "tf32"), batch=4096),
    "lengths": programs(("gpt-512-2048", "tf32"), ("gpt-512-512", "tf32")),
    "attention": attention(
        ("attention-1024", "tf32"), ("attention-2048", "tf32"), ("attention-1024", "bf16")
    ),
    "precisions": programs(("gpt-512-1024", "bf16"), ("gpt-512-1024", "ieee")),
    "compiled": programs(("gpt-512-1024", "tf32"), compiles=COMPILED[:2]),
    "steps": gpu.STEPS["steps"],
}

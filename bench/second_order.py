"""Gradient, quadratic form and Hessian product of the VGGs, against eager and compiled PyTorch.

Each of ours starts from nothing: `linearize` and then the product. PyTorch's best is the fastest of
contiguous and channels-last eager code, and of torch.compile over forward-over-reverse and
reverse-over-forward (reverse-over-reverse does not compile) where a compiler is at hand.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp

import newtriton as nt

from ..runtime.aten.switches import switches
from ._measure import interleaved, parser, report, summary

NETS = {11: nt.models.vgg11, 16: nt.models.vgg16, 19: nt.models.vgg19}


def torch_vgg(depth: int) -> nn.Sequential:
    """Returns the VGG of a depth in torch.nn."""
    layers: list[nn.Module] = []
    channels = 3
    for width in nt.models.VGG[depth]:
        if isinstance(width, int):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.SiLU()]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, 10))


def eager(net: nn.Module, x: Tensor, y: Tensor, v: list[Tensor]) -> dict[str, Callable[[], Any]]:
    """Returns the calls of the gradient, and of gradient and Hessian product by double backward."""
    params = list(net.parameters())

    def gradient() -> Any:
        return torch.autograd.grad(nn.functional.cross_entropy(net(x), y), params)

    def hvp() -> Any:
        loss = nn.functional.cross_entropy(net(x), y)
        grads = torch.autograd.grad(loss, params, create_graph=True)
        return torch.autograd.grad(grads, params, v)

    return {"gradient": gradient, "hvp": hvp}


def compiled(net: nn.Module, x: Tensor, y: Tensor, v: list[Tensor]) -> dict[str, Callable[[], Any]]:
    """Returns the same by torch.compile; nothing where this machine has no compiler for it."""
    params = {name: p.detach() for name, p in net.named_parameters()}
    tangents = dict(zip(params, v, strict=True))

    def loss(p: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(functional_call(net, p, (x,)), y)

    calls = {
        "gradient": lambda: gradient(params),
        "hvp, forward over reverse": lambda: forward_reverse(params, tangents),
        "hvp, reverse over forward": lambda: reverse_forward(params, tangents),
    }
    gradient = torch.compile(grad(loss))
    forward_reverse = torch.compile(lambda p, t: jvp(grad(loss), (p,), (t,)))
    reverse_forward = torch.compile(
        lambda p, t: (grad(loss)(p), grad(lambda q: jvp(loss, (q,), (t,))[1])(p))
    )
    works = {}
    for name, call in calls.items():
        try:
            call()
        except Exception as error:  # what the compiler refuses is no competitor
            print(f"compiled {name} does not run: {type(error).__name__}")
        else:
            works[name] = call
    return works


def measure(
    depth: int, batch: int, precision: str, rounds: int, device: torch.device, compiles: bool = True
) -> list[dict[str, Any]]:
    """Returns rows: milliseconds, and ratios to PyTorch's best in the same run and precision."""
    torch.manual_seed(0)
    net = torch_vgg(depth).to(device)
    model = nt.compile(
        NETS[depth](), (3, 32, 32), nt.CrossEntropyLoss(), precision=precision, device=device
    )
    model.load_state_dict(net.state_dict())
    x = torch.randn(batch, 3, 32, 32, device=device)
    y = torch.randint(0, 10, (batch,), device=device)
    flat = 0.01 * torch.randn_like(model.params)
    v = [t.contiguous() for t in model.unflatten(flat).values()]
    last = torch.channels_last
    by_channels = copy.deepcopy(net).to(memory_format=last)  # type: ignore[call-overload]
    theirs = {
        "eager": eager(net, x, y, v),
        "eager, channels last": eager(by_channels, x.contiguous(memory_format=last), y, v),
    }
    half = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    with switches(device, precision != "ieee"), half:
        if compiles:
            theirs["compiled"] = compiled(net, x, y, v)
        calls = {f"{who}: {what}": f for who, fs in theirs.items() for what, f in fs.items()}
        calls |= {
            "newtriton: gradient": lambda: model.gradient(x, y),
            "newtriton: gradient + quadratic form": lambda: model.linearize(x, y).quadratic_forms(
                [flat]
            ),
            "newtriton: gradient + hvp": lambda: model.linearize(x, y).hvp(flat),
        }
        seconds = interleaved(calls, rounds, device)

    def best(what: str) -> float:
        names = [n for n in seconds if not n.startswith("newtriton") and f": {what}" in n]
        return min(median(seconds[n]) for n in names)

    rows: list[dict[str, Any]] = []
    for name, times in seconds.items():
        row: dict[str, Any] = {
            "net": f"vgg{depth}", "batch": batch, "precision": precision, "call": name,
            **summary(times),
        }  # fmt: skip
        if name.startswith("newtriton"):
            rival = best("gradient" if name.endswith("gradient") else "hvp")
            row["times_faster_than_best"] = round(rival / median(times), 2)
        rows.append(row)
    return rows


def main() -> None:
    """Prints a table for each precision and batch size."""
    options = parser(__doc__)
    options.add_argument("--depth", type=int, choices=NETS, default=11)
    options.add_argument("--batches", type=int, nargs="+", default=[64])
    options.add_argument("--precisions", nargs="+", default=["ieee"])
    given = options.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: list[dict[str, Any]] = []
    for precision in given.precisions:
        for batch in given.batches:
            rows += measure(given.depth, batch, precision, given.rounds, device)
    report(rows, given.json)


if __name__ == "__main__":
    main()

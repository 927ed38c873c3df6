"""PyTorch's side: autograd in three orders of derivatives, torch.compile, torch.optim."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..second_order import mean_loss, with_math
from .problem import Call, Named, Problem, dot, named

Run = Callable[[], Any]


def reverse_over_reverse(problem: Problem, wanted: Collection[str]) -> Iterator[Call]:
    """Yields products by two backward passes; Jv is the derivative of a vector–Jacobian product."""
    net = problem.copy()
    params = list(net.parameters())
    u, v = list(problem.u.values()), list(problem.v.values())

    def loss() -> Tensor:
        return mean_loss(net(problem.x), problem.y)

    def gradient() -> Named:
        return named(problem, torch.autograd.grad(loss(), params))

    def products(*vectors: list[Tensor]) -> list[dict[str, Tensor]]:
        grads = torch.autograd.grad(loss(), params, create_graph=True)
        last = len(vectors) - 1
        return [
            named(problem, torch.autograd.grad(grads, params, each, retain_graph=i < last))
            for i, each in enumerate(vectors)
        ]

    def ggnvp() -> Named:
        z = net(problem.x)
        ones = torch.zeros_like(z, requires_grad=True)
        back = torch.autograd.grad(z, params, ones, create_graph=True)
        (z_dot,) = torch.autograd.grad(back, ones, v, retain_graph=True)
        free = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(mean_loss(free, problem.y), free, create_graph=True)
        (bent,) = torch.autograd.grad(slope, free, z_dot.detach())
        return named(problem, torch.autograd.grad(z, params, bent))

    def forms() -> Named:
        of_u, of_v = products(u, v)
        return {
            "uHu": dot(of_u, problem.u), "uHv": dot(of_u, problem.v), "vHv": dot(of_v, problem.v)
        }  # fmt: skip

    runs: dict[str, Run] = {
        "gradient": gradient,
        "hvp": lambda: products(v)[0],
        "ggnvp": ggnvp,
        "form": lambda: {"vHv": dot(products(v)[0], problem.v)},
        "forms": forms,
    }
    for operation, made in runs.items():
        if operation in wanted:
            run = made if operation == "gradient" else partial(with_math, made)
            yield Call("eager, reverse over reverse", operation, run, run)


def functions(problem: Problem) -> tuple[dict[str, Tensor], dict[str, Callable[..., Any]]]:
    """Returns parameters, and what forward mode computes of them and of directions.

    H v is forward over reverse, a form two forward derivatives: no backward pass at all.
    """
    net = problem.copy()
    params = {name: p.detach() for name, p in net.named_parameters()}

    def outputs(p: dict[str, Tensor]) -> Tensor:
        return functional_call(net, p, (problem.x,))

    def loss(p: dict[str, Tensor]) -> Tensor:
        return mean_loss(outputs(p), problem.y)

    def hvp(p: dict[str, Tensor], v: dict[str, Tensor]) -> dict[str, Tensor]:
        return jvp(grad(loss), (p,), (v,))[1]

    def ggnvp(p: dict[str, Tensor], v: dict[str, Tensor]) -> dict[str, Tensor]:
        z, z_dot = jvp(outputs, (p,), (v,))[:2]
        bent = jvp(grad(partial(mean_loss, y=problem.y)), (z,), (z_dot,))[1]
        return vjp(outputs, p)[1](bent)[0]

    def form(p: dict[str, Tensor], u: dict[str, Tensor], v: dict[str, Tensor]) -> Tensor:
        return jvp(lambda q: jvp(loss, (q,), (u,))[1], (p,), (v,))[1]

    def forms(p: dict[str, Tensor], u: dict[str, Tensor], v: dict[str, Tensor]) -> Named:
        return {"uHu": form(p, u, u), "uHv": form(p, u, v), "vHv": form(p, v, v)}

    return params, {
        "gradient": grad(loss),
        "hvp": hvp,
        "ggnvp": ggnvp,
        "form": lambda p, v: {"vHv": form(p, v, v)},
        "forms": forms,
    }


def _by_functions(
    problem: Problem,
    wanted: Collection[str],
    provider: str,
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]],
    compiles: bool,
) -> Iterator[Call]:
    """Yields calls of `functions`, wrapped."""
    params, made = functions(problem)
    u, v = dict(problem.u), dict(problem.v)
    given = {"gradient": (), "hvp": (v,), "ggnvp": (v,), "form": (v,), "forms": (u, v)}
    for operation, directions in given.items():
        if operation in wanted:
            run = partial(_unfused, wrap(made[operation]), params, *directions)
            yield Call(provider, operation, run, run, compiles=compiles)


def _unfused(function: Callable[..., Any], *given: Any) -> Any:
    """Calls a function with the attention that has two derivatives."""
    with torch.no_grad():
        return with_math(function, *given)


def forward_over_reverse(problem: Problem, wanted: Collection[str]) -> Iterator[Call]:
    """Yields products by torch.func; the gradient is that of the other order."""
    rest = [operation for operation in wanted if operation != "gradient"]
    yield from _by_functions(problem, rest, "eager, forward over reverse", lambda f: f, False)


def compiled(problem: Problem, wanted: Collection[str]) -> Iterator[Call]:
    """Yields the same by torch.compile, which takes forward mode but no double backward."""
    yield from _by_functions(problem, wanted, "torch.compile", torch.compile, True)


RATE = 1e-4  # small: what is timed is a step, not where it leads


def optimizers(problem: Problem, wanted: Collection[str]) -> Iterator[Call]:
    """Yields the steps of torch.optim: what training costs at the least."""
    makers: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
        "SGD": lambda ps: torch.optim.SGD(ps, RATE, momentum=0.9),
        "Adam": lambda ps: torch.optim.Adam(ps, RATE),
        "L-BFGS": lambda ps: torch.optim.LBFGS(ps, RATE, max_iter=1),
    }
    for name, make in makers.items() if "step" in wanted else ():
        yield _step(problem, name, make)


def _step(
    problem: Problem, name: str, make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
) -> Call:
    """Returns the step of an optimizer, with one gradient."""
    net = problem.copy()
    optimizer: Any = make(list(net.parameters()))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = mean_loss(net(problem.x), problem.y)
        loss.backward()
        return loss

    def numbers() -> Named:
        with sdpa_kernel(SDPBackend.MATH):
            return {"loss": mean_loss(problem.copy()(problem.x), problem.y)}

    return Call(
        f"torch.optim, {name}", "step", lambda: optimizer.step(closure), numbers,
        differs="no curvature: what a gradient and an update cost at the least",
    )  # fmt: skip

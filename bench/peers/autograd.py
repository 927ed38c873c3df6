"""PyTorch's side: autograd in three orders of derivatives, torch.compile, torch.optim."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..second_order import mean_loss, with_math
from .problem import Call, Named, Problem, dot, named

Run: TypeAlias = Callable[[], Any]
Functions: TypeAlias = Mapping[str, Callable[..., Any]]
REVERSE, COMPILED = "eager, reverse over reverse", "torch.compile"
FORWARD, TWICE = "eager, forward over reverse", "eager, forward over forward"
GIVEN: Mapping[str, tuple[str, ...]] = {  # the directions that an operation takes
    "gradient": (),
    "hvp": ("v",),
    "ggnvp": ("v",),
    "form": ("v",),
    "forms": ("u", "v"),
}


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
            yield Call(REVERSE, operation, run, run)


def functions(problem: Problem) -> tuple[dict[str, Tensor], Functions, Functions]:
    """Returns the parameters, and functions of them and of directions, by operation.

    The first functions are forward over reverse; the second take two forward derivatives and no
    backward pass at all.
    """
    net = problem.copy()
    params = {name: p.detach() for name, p in net.named_parameters()}

    def outputs(p: Named) -> Tensor:
        return functional_call(net, dict(p), (problem.x,))

    def loss(p: Named) -> Tensor:
        return mean_loss(outputs(p), problem.y)

    def hvp(p: Named, v: Named) -> dict[str, Tensor]:
        return jvp(grad(loss), (p,), (v,))[1]

    def ggnvp(p: Named, v: Named) -> dict[str, Tensor]:
        z, z_dot = jvp(outputs, (p,), (v,))[:2]
        bent = jvp(grad(partial(mean_loss, y=problem.y)), (z,), (z_dot,))[1]
        return vjp(outputs, p)[1](bent)[0]

    def forms(p: Named, u: Named, v: Named) -> Named:
        of_u, of_v = hvp(p, u), hvp(p, v)
        return {"uHu": dot(of_u, u), "uHv": dot(of_u, v), "vHv": dot(of_v, v)}

    def twice(p: Named, u: Named, v: Named) -> Tensor:
        return jvp(lambda q: jvp(loss, (q,), (u,))[1], (p,), (v,))[1]

    def forms_twice(p: Named, u: Named, v: Named) -> Named:
        return {"uHu": twice(p, u, u), "uHv": twice(p, u, v), "vHv": twice(p, v, v)}

    once: Functions = {
        "gradient": grad(loss),
        "hvp": hvp,
        "ggnvp": ggnvp,
        "form": lambda p, v: {"vHv": dot(hvp(p, v), v)},
        "forms": forms,
    }
    return params, once, {"form": lambda p, v: {"vHv": twice(p, v, v)}, "forms": forms_twice}


def _unfused(function: Callable[..., Any], *given: Any) -> Any:
    """Calls a function with the attention that has two derivatives."""
    with torch.no_grad():
        return with_math(function, *given)


def forward_over_reverse(problem: Problem, wanted: Collection[str]) -> Iterator[Call]:
    """Yields products by torch.func, and forms by two forward derivatives as well."""
    params, once, twice = functions(problem)
    for provider, made in ((FORWARD, once), (TWICE, twice)):
        for operation, function in made.items():
            if operation in wanted and operation != "gradient":  # it is the other order's
                directions = [dict(getattr(problem, name)) for name in GIVEN[operation]]
                run = partial(_unfused, function, params, *directions)
                yield Call(provider, operation, run, run)


def compiled(problem: Problem, wanted: Collection[str]) -> Iterator[Call]:
    """Yields forward over reverse by torch.compile, which takes no double backward."""
    params, made, _ = functions(problem)
    for operation in wanted:
        directions = [dict(getattr(problem, name)) for name in GIVEN[operation]]
        run = partial(_unfused, torch.compile(made[operation]), params, *directions)
        yield Call(COMPILED, operation, run, run, compiles=True)


RATE = 1e-4  # small: what is timed is a step, not where it leads
OPTIMIZERS: Mapping[str, Callable[[list[nn.Parameter]], Any]] = {
    "torch.optim, SGD": partial(torch.optim.SGD, lr=RATE, momentum=0.9),
    "torch.optim, Adam": partial(torch.optim.Adam, lr=RATE),
    "torch.optim, L-BFGS": partial(torch.optim.LBFGS, lr=RATE, max_iter=1),
}
STEPS = tuple(OPTIMIZERS)


def optimizers(problem: Problem, wanted: Collection[str]) -> Iterator[Call]:
    """Yields the steps of torch.optim: what training costs at the least."""
    for provider, make in OPTIMIZERS.items() if "step" in wanted else ():
        yield _step(problem, provider, make)


def _step(problem: Problem, provider: str, make: Callable[[list[nn.Parameter]], Any]) -> Call:
    """Returns the step of an optimizer, with one gradient."""
    net = problem.copy()
    optimizer = make(list(net.parameters()))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = mean_loss(net(problem.x), problem.y)
        loss.backward()
        return loss

    def numbers() -> Named:
        with sdpa_kernel(SDPBackend.MATH):
            return {"loss": mean_loss(problem.copy()(problem.x), problem.y)}

    return Call(
        provider, "step", lambda: optimizer.step(closure), numbers,
        differs="no curvature: what a gradient and an update cost at the least",
    )  # fmt: skip

"""Models written without the compiler, for testing optimizers apart from it.

Both have the face of `newtriton.Model` that optimizers use, in float64 unless told otherwise, with
derivatives by torch.autograd. `x` holding an infinity makes loss and gradient NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor

from newtriton.compiler.curvature.factors import DiagonalLayer, KroneckerLayer
from newtriton.compiler.language.losses import MSELoss
from newtriton.runtime.inputs.dropout import DropoutNumbers
from newtriton.runtime.model.factors import DiagonalFactors, KroneckerFactors
from newtriton.runtime.parallel.ranks import Ranks
from newtriton.runtime.vectors import Vectors

Factors = dict[str, KroneckerFactors | DiagonalFactors]


class StandInLayout:
    """Parameters one after another."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.numel = sum(map(math.prod, shapes.values()))

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        parts = flat.split([math.prod(s) for s in self.shapes.values()])
        return {n: p.view(s) for (n, s), p in zip(self.shapes.items(), parts, strict=True)}


class StandIn:
    """What the two models share; a subclass gives `value` and `factors`."""

    blocks: list[KroneckerLayer | DiagonalLayer]
    criterion, vectors, parallel, ranks = MSELoss(), Vectors(), None, Ranks(None)

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.layout = StandInLayout(shapes)
        self.params = torch.zeros(self.layout.numel, dtype=dtype)
        self.weight_decay, self.dtype, self.device = weight_decay, dtype, torch.device("cpu")
        self.programs = {True: SimpleNamespace(factors=lambda *which: None)}
        self.buffers: dict[str, Tensor] = {}
        self.dropout, self.held = DropoutNumbers({}, 0), []
        self.accepted = 0  # updates of running statistics

    def value(self, params: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The data term."""
        raise NotImplementedError

    def factors(self, lin: Lin, kind: str, samples: int, generator: torch.Generator) -> Factors:
        raise NotImplementedError

    def h(self, params: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.value(params, x, y) + 0.5 * self.weight_decay * params.square().sum()

    def count(self, y: Tensor) -> float:
        return float(len(y))

    def objective(self, x: Tensor, y: Tensor, training: bool = True) -> float:
        return float(self.h(self.params, x, y))

    def gradient(self, x: Tensor, y: Tensor) -> tuple[float, Tensor, dict[str, Tensor]]:
        with torch.enable_grad():
            params = self.params.clone().requires_grad_()
            h = self.h(params, x, y)
            (gradient,) = torch.autograd.grad(h, params)
        return float(h.detach()), gradient, {"mean": x.mean(0)}

    def check_trained(self, then: frozenset[str] | None = None) -> frozenset[str]:
        return frozenset()

    def linearize(self, x: Tensor, y: Tensor, training: bool = True, ahead: object = None) -> Lin:
        return Lin(self, x, y)

    def publish(self) -> None:
        """Nobody has copies of the parameters."""

    def update_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        assert "mean" in statistics
        self.accepted += 1


class Lin:
    """A linearization."""

    def __init__(self, model: StandIn, x: Tensor, y: Tensor) -> None:
        self.model, self.x, self.y, self.vectors = model, x, y, model.vectors
        self.batch = self.count = len(x)
        self.objective, self.gradient, self.statistics = model.gradient(x, y)

    def hessian(self) -> Tensor:
        return torch.autograd.functional.hessian(
            lambda p: self.model.h(p, self.x, self.y), self.model.params.clone()
        )  # type: ignore[return-value]

    def quadratic_forms(self, vs: Sequence[Tensor], curvature: str) -> Tensor:
        assert curvature == "hessian"
        v = torch.stack(list(vs))
        return v @ self.hessian() @ v.T

    def hides(self, change: float) -> bool:
        return change <= 2 * torch.finfo(self.model.dtype).eps * abs(self.objective)

    def kronecker_factors(
        self, kind: str, samples: int, generator: torch.Generator, **_: object
    ) -> Factors:
        return self.model.factors(self, kind, samples, generator)


class Quadratic(StandIn):
    """h = ½ vec(W − W*)ᵀ (A ⊗ G) vec(W − W*): its Kronecker factors are exact."""

    def __init__(
        self, a: Tensor, g: Tensor, weight_decay: float = 0.0, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__({"weight": (len(g), len(a))}, weight_decay, dtype)
        self.a, self.g = a.to(dtype), g.to(dtype)
        self.blocks = [KroneckerLayer("layer", "weight", None, 1, (1, 1))]
        self.target = torch.linspace(-1, 1, self.layout.numel, dtype=dtype).view(len(g), len(a))

    def value(self, params: Tensor, x: Tensor, y: Tensor) -> Tensor:
        d = self.layout.views(params)["weight"] - self.target
        return 0.5 * (d * (self.g @ d @ self.a)).sum() + 0.0 * x.sum()

    def factors(self, lin: Lin, kind: str, samples: int, generator: torch.Generator) -> Factors:
        return {"layer": KroneckerFactors(self.a.clone(), self.g.clone(), (1, 1), False)}


class MLP(StandIn):
    """Linear(3, 4), tanh, a scale for each of the 4, Linear(4, 3), cross entropy."""

    def __init__(self, weight_decay: float = 0.0, dtype: torch.dtype = torch.float64) -> None:
        shapes = {"0.weight": (4, 3), "0.bias": (4,), "1.scale": (4,), "2.weight": (3, 4)}
        super().__init__({**shapes, "2.bias": (3,)}, weight_decay, dtype)
        self.blocks = [
            KroneckerLayer("0", "0.weight", "0.bias", 1, (1, 1)),
            KroneckerLayer("2", "2.weight", "2.bias", 1, (1, 1)),
            DiagonalLayer("1", ("1.scale",)),
        ]
        start = torch.randn(self.layout.numel, generator=seeded(3), dtype=torch.float64)
        self.params.copy_(start)

    def forward(self, params: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """Inputs and pre-activations of both layers."""
        p = self.layout.views(params)
        s = x @ p["0.weight"].T + p["0.bias"]
        a = s.tanh() * p["1.scale"]
        return x, s, a, a @ p["2.weight"].T + p["2.bias"]

    def value(self, params: Tensor, x: Tensor, y: Tensor) -> Tensor:
        z = self.forward(params, x)[-1]
        return torch.nn.functional.cross_entropy(z, y)

    def factors(self, lin: Lin, kind: str, samples: int, generator: torch.Generator) -> Factors:
        x, params, n = lin.x, self.params, len(lin.x)
        if kind == "kfac":
            q = self.forward(params, x)[-1].softmax(1)
            y = torch.multinomial(q, samples, replacement=True, generator=generator).T.reshape(-1)
        else:
            y, samples = lin.y, 1
        with torch.enable_grad():
            tracked = params.expand(n * samples, -1).clone().requires_grad_()
            each = torch.func.vmap(lambda p, x, y: self.value(p, x[None], y[None]))
            losses = each(tracked, x.repeat(samples, 1), y)
            (gradients,) = torch.autograd.grad(losses.sum(), tracked)
        names = {"0.bias": slice(12, 16), "1.scale": slice(16, 20), "2.bias": slice(32, 35)}
        part = {name: gradients[:, where] for name, where in names.items()}
        a = self.forward(params, x)[2]
        return {
            "0": self._pair(x, part["0.bias"]),
            "1": DiagonalFactors({"1.scale": part["1.scale"].square().mean(0)}),
            "2": self._pair(a, part["2.bias"]),
        }

    @staticmethod
    def _pair(a: Tensor, g: Tensor) -> KroneckerFactors:
        a = torch.cat([a, a.new_ones(len(a), 1)], 1)
        return KroneckerFactors(a.T @ a / len(a), g.T @ g / len(g), (1, 1), True)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(seed: int = 0, n: int = 12, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Data for either model."""
    generator = seeded(seed)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(0, 3, (n,), generator=generator)


def broken() -> tuple[Tensor, Tensor]:
    """Data on which loss and gradient are NaN."""
    x, y = batch()
    x[0, 0] = math.inf
    return 0 * x, y


def positive(n: int, seed: int = 0) -> Tensor:
    """A positive definite matrix, well conditioned."""
    m = torch.randn(n, n, generator=seeded(seed), dtype=torch.float64)
    return m @ m.T / n + 0.5 * torch.eye(n, dtype=torch.float64)


def assert_identical(a: object, b: object) -> None:
    """Nested states are equal bit for bit."""
    if isinstance(a, str):
        assert a == b
    elif isinstance(a, Mapping):
        assert isinstance(b, Mapping)
        assert a.keys() == b.keys()
        for key in a:
            assert_identical(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert isinstance(b, type(a))
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_identical(left, right)
    else:
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)

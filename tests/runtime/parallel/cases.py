"""Networks, batches and what is compared: the same functions run on one rank and on several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import newtriton as nt

Values = dict[str, Tensor]
KINDS = ("kfac", "empirical", "kflr", "kfra", "pch-1")


def convolutional() -> nt.Sequential:
    """Batch norm, dropout, convolutions and a head."""
    return nt.Sequential(
        nt.Conv2d(3, 3, padding=1), nt.BatchNorm2d(), nt.Tanh(), nt.Dropout(0.2),
        nt.Conv2d(4, 3), nt.Sigmoid(), nt.Flatten(), nt.Linear(5),
    )  # fmt: skip


def perceptron() -> nt.Sequential:
    """Batch norm of features."""
    return nt.Sequential(nt.Flatten(), nt.Linear(6), nt.BatchNorm1d(), nt.SiLU(), nt.Linear(5))


def chain() -> nt.Sequential:
    """A chain of layers, which KFRA's recursion goes along."""
    return nt.Sequential(nt.Flatten(), nt.Linear(6), nt.Tanh(), nt.Linear(5))


def wide() -> nt.Sequential:
    """So many parameters that scalars are a small part of what travels."""
    return nt.Sequential(nt.Flatten(), nt.Linear(60), nt.Tanh(), nt.Linear(5))


NETWORKS: dict[str, tuple[Callable[[], Any], nt.Loss]] = {
    "convolutional": (convolutional, nt.CrossEntropyLoss()),
    "perceptron": (perceptron, nt.CrossEntropyLoss(ignore_index=2)),
    "weighted": (perceptron, nt.CrossEntropyLoss(weight=(1.0, 0.5, 2.0, 0.0, 1.0))),
    "chain": (chain, nt.MSELoss()),
    "wide": (wide, nt.CrossEntropyLoss()),
}
SHAPE = (2, 5, 5)


def compiled(name: str, parallel: nt.DataParallel | None, **options: Any) -> nt.Model:
    """Returns a model in float64."""
    net, loss = NETWORKS[name]
    options = {"dtype": torch.float64, "weight_decay": 0.01, "device": "cpu", **options}
    return nt.compile(net(), SHAPE, loss, backend="aten", parallel=parallel, **options)


def samples(name: str, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Returns inputs and labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
    true = torch.randn(50, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    z = x.flatten(1) @ true
    return x, z.argmax(1) if isinstance(NETWORKS[name][1], nt.CrossEntropyLoss) else z.sigmoid()


def part(parallel: nt.DataParallel | None, tensor: Tensor, cuts: Sequence[int]) -> Tensor:
    """Returns this rank's part of a batch, all of it for a single one."""
    if parallel is None:
        return tensor
    rank = parallel.ranks.rank
    return tensor[cuts[rank] : cuts[rank + 1]]


def values(
    parallel: nt.DataParallel | None, name: str, cuts: Sequence[Sequence[int]], count: int
) -> list[Values]:
    """Returns all that a model and its linearizations say of a batch, for each way to cut it."""
    model = compiled(name, parallel)
    batches = [[part(parallel, t, cut) for t in samples(name, count)] for cut in cuts]
    return [_values(model, name, *batch) for batch in batches]


def _values(model: nt.Model, name: str, x: Tensor, y: Tensor) -> Values:
    generator = torch.Generator().manual_seed(3)
    v, w = torch.randn(2, model.params.numel(), generator=generator, dtype=torch.float64)
    model.dropout.drawn = 0
    lin = model.linearize(x, y)
    found = {
        "loss": lin.loss, "count": torch.tensor(lin.count), "gradient": lin.gradient,
        "hvp": lin.hvp(v), "ggnvp": lin.ggnvp(v),
        "forms": lin.quadratic_forms([v, w], two_products=False),
        "two products": lin.quadratic_forms([v, w], two_products=True),
        "ggn forms": lin.quadratic_forms([v, w], "ggn"),
        "block": lin.block([next(iter(model.layers.values()))[0]]),
        **{f"statistic {n}": x for n, x in lin.statistics.items()},
        "objective": torch.tensor(model.objective(x, y)), "evaluated": model.loss(x, y),
        "hides": torch.tensor([lin.hides(10.0**-k) for k in range(4, 18)]).double(),
    }  # fmt: skip
    h, gradient, _ = model.gradient(x, y)
    found |= {"h": torch.tensor(h), "another gradient": gradient}
    for kind in KINDS:
        found |= factors(lin, kind)
    found |= factors(lin, "kfac", max_factor=5) | factors(lin, "empirical", sharing="reduce")
    found |= factors(lin, "kfac", means=("0",)) if name == "chain" else {}
    return found | moments(lin)


def factors(lin: nt.Linearization, kind: str, **options: Any) -> Values:
    """Returns factors of a kind, by layer and name; none where the network has none."""
    try:
        found = lin.kronecker_factors(kind, generator=torch.Generator().manual_seed(1), **options)
    except nt.NewtritonError:
        return {}
    title = f"{kind} {options or ''}"
    return {f"{title} {n} {k}": x for n, pair in found.items() for k, x in pair.tensors.items()}


def moments(lin: nt.Linearization) -> Values:
    """Returns the second moments of samples' gradients."""
    generator = torch.Generator().manual_seed(1)
    found = lin.kronecker_factors("kfac", generator=generator, per_sample=True)
    result = dict[str, Tensor]()
    for name, sampled in found.items():
        if hasattr(sampled, "second_moments"):
            a, g = (torch.eye(x.shape[-1]).double() for x in sampled.pair.tensors.values())
            result[f"moments {name}"] = sampled.second_moments(a, g)
            result[f"bound {name}"] = sampled.tensors["bound"]
    return result


# --- steps ----------------------------------------------------------------------------------------

Make = Callable[[nt.Model], Any]
PRESETS: dict[str, tuple[str, Make]] = {
    "FITRE": ("convolutional", nt.FITRE),
    "FITRE of the paper": ("convolutional", lambda m: nt.FITRE(m, noise=None)),
    "EKFAC": ("convolutional", lambda m: nt.FITRE(m, factors="ekfac")),
    "KFAC": ("perceptron", nt.KFAC),
    "KFRA": ("chain", nt.KFRA),
    "KFLR": ("weighted", nt.KFLR),
    "EACG": ("chain", nt.EACG),
    "NewtonCG": ("chain", lambda m: nt.NewtonCG(m, sample=0.3)),
    "NewtonCG with drawn labels": (
        "chain", lambda m: nt.NewtonCG(m, sample=0.3, preconditioner="kfac")
    ),
    "NewtonCG with batch norm": ("perceptron", lambda m: nt.NewtonCG(m, sample=0.3)),
    "Steihaug": ("convolutional", lambda m: nt.SecondOrder(m, "ggn", "steihaug", "trust-region")),
    "preconditioned": ("perceptron", lambda m: nt.Preconditioned(m, torch.optim.SGD, lr=0.05)),
    "Adam": ("convolutional", lambda m: nt.TorchOptimizer(m, torch.optim.Adam, lr=0.01)),
    "L-BFGS": ("chain", lambda m: nt.TorchOptimizer(m, torch.optim.LBFGS, max_iter=3, lr=0.5)),
}  # fmt: skip
# What else works with factors, tried with owners of them alone.
MORE: dict[str, tuple[str, Make]] = {
    "NewtonCG preconditioned": ("chain", lambda m: nt.NewtonCG(m, preconditioner="kflr", sample=1)),
    "eigenvectors": ("chain", lambda m: nt.SecondOrder(m, "kflr", "eigen", damping=0.0)),
    "pieces": ("chain", lambda m: nt.FITRE(m, micro_batch=3)),
}
SIZES = (23, 24, 20, 7)


def cuts(count: int, size: int) -> list[int]:
    """Returns where ranks' parts of a batch begin and end: uneven, some of a small one empty."""
    if count == min(SIZES):
        return [0] * size + [count]
    return [count * r // size for r in range(size + 1)]


Step = tuple[float, bool, str]


def trained(
    parallel: nt.DataParallel | None, preset: str, steps: int, size: int = 1, **options: Any
) -> tuple[list[Step], Tensor, Tensor]:
    """Returns what became of steps: reports, the points and the running statistics."""
    name, make = {**PRESETS, **MORE}[preset]
    model = compiled(name, parallel, **options)
    optimizer, reports, points = make(model), list[Step](), list[Tensor]()
    batches = [samples(name, SIZES[i % len(SIZES)], seed=i) for i in range(steps)]
    batches = [tuple(part(parallel, t, cuts(len(t), size)) for t in pair) for pair in batches]
    for i, (x, y) in enumerate(batches):
        data = [batches[i], batches[(i + 1) % steps]]
        report = optimizer.step(data) if optimizer.takes_data else optimizer.step(x, y)
        reports.append((report.loss, report.accepted, report.status))
        points.append(model.params.clone())
    buffers = [values.double().flatten() for values in model.buffers.values()]
    return reports, torch.stack(points), torch.cat([torch.zeros(0), *buffers])

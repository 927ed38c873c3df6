"""The rank of the Gauss–Newton matrix of a mini-batch, and what it sees of the gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, product, repeat
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

import newtriton as nt

from ..protocol.experiment import Experiment, Finding, Row, Setting, Verdict
from ..protocol.figures import curves, panels
from .kfra_autoencoders import AVERAGED, hidden, of
from .kfra_even_odd import classifier, digits, minus_log_likelihood, output_matrices

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPSILON = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Problem:
    """A network with a loss, and the matrix of its outputs.

    Attributes:
        loss: makes the loss.
        outputs: how many outputs there are; 0 for an autoencoder's.
        root: columns of a root of B from outputs and labels, N×K×k.
        gradient: ∇ℓ of the outputs, N×K.
        draw: labels drawn from the model.
    """

    loss: Callable[[], nt.Loss]
    outputs: int
    root: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]
    draw: Callable[[Tensor], Tensor]


def _binary_root(z: Tensor, y: Tensor) -> Tensor:
    """Returns a root of diag(σ(1 − σ))."""
    return torch.diag_embed((z.sigmoid() * (-z).sigmoid()).sqrt())


def _mixture_root(z: Tensor, y: Tensor, fisher: bool) -> Tensor:
    """Returns eigenvectors of B or its mean over labels, times the roots of |eigenvalues|."""
    values, vectors = torch.linalg.eigh(output_matrices(z, y)[fisher])
    sizes = values.abs()
    sizes = torch.where(sizes > 1e-9 * sizes.amax(1, keepdim=True), sizes, 0.0)
    return vectors * sizes.sqrt()[:, None, :]


def _mixture_gradient(z: Tensor, y: Tensor) -> Tensor:
    """Returns the gradient of −log p(y|z)."""
    return torch.func.vmap(torch.func.grad(minus_log_likelihood))(z, y.to(z.dtype))


def _mixture_draw(z: Tensor) -> Tensor:
    """Returns labels drawn from p(y|z)."""
    odd = torch.exp(-torch.func.vmap(minus_log_likelihood)(z, torch.ones_like(z[:, 0])))
    return torch.bernoulli(odd)


PROBLEMS = {
    "even or odd": Problem(
        nt.BCEWithLogitsLoss, 1, _binary_root, lambda z, y: z.sigmoid() - y,
        lambda z: torch.bernoulli(z.sigmoid()),
    ),
    "mixture, Fisher": Problem(
        lambda: nt.MixtureLoss("fisher"), 3, lambda z, y: _mixture_root(z, y, True),
        _mixture_gradient, _mixture_draw,
    ),
    "mixture, Hessian": Problem(
        lambda: nt.MixtureLoss("clip"), 3, lambda z, y: _mixture_root(z, y, False),
        _mixture_gradient, _mixture_draw,
    ),
    "autoencoder": Problem(
        nt.BCEWithLogitsLoss, 0, _binary_root, lambda z, y: z.sigmoid() - y,
        lambda z: torch.bernoulli(z.sigmoid()),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Uses:
    """A layer's part in backward passes.

    Attributes:
        inputs: [a; 1] of each sample, N×(D + 1).
        adjoints: what comes back to its outputs, N×k×O.
    """

    inputs: Tensor
    adjoints: Tensor

    @property
    def gram(self) -> Tensor:
        """Inner products of all N·k gradients by the layer's weights."""
        number, copies, _ = self.adjoints.shape
        rows = self.adjoints.reshape(number * copies, -1)
        inner = (self.inputs @ self.inputs.mT)[:, None, :, None].expand(-1, copies, -1, copies)
        return inner.reshape(number * copies, -1) * (rows @ rows.mT)


def outputs(model: nt.Model, net: nt.Sequential, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Returns the outputs of a chain of linear layers and sigmoids, and the inputs of all layers.

    Args:
        model: has the weights.
        net: the chain.
        x: the samples, N×D.
    """
    weights, a, met = model.unflatten(model.params), x, list[Tensor]()
    for i, layer in enumerate(net.layers):
        met.append(a)
        linear = isinstance(layer, nt.Linear)
        a = a @ weights[f"{i}.weight"].mT + weights[f"{i}.bias"] if linear else a.sigmoid()
    return a, met


def uses(model: nt.Model, net: nt.Sequential, met: Sequence[Tensor], last: Tensor) -> list[Uses]:
    """Returns what comes back to every linear layer, the recursion of eq. 24.

    Args:
        model: has the weights.
        net: the chain.
        met: the inputs of all layers.
        last: k columns for each sample to start from, N×K×k.
    """
    weights, s, found = model.unflatten(model.params), last.mT, list[Uses]()
    for i, layer in reversed([*enumerate(net.layers)]):
        a = met[i]
        if isinstance(layer, nt.Linear):
            found.append(Uses(torch.cat([a, torch.ones_like(a[:, :1])], 1), s))
            s = s @ weights[f"{i}.weight"]
        else:
            s = s * (a.sigmoid() * (-a).sigmoid())[:, None, :]
    return found


def rank(gram: Tensor) -> int:
    """Returns the rank of a matrix of inner products, up to the rounding of its eigenvalues."""
    values = torch.linalg.eigvalsh(gram)
    return int((values > len(values) * EPSILON * values[-1]).sum())


def share_inside(gram: Tensor, products: Tensor, square: float) -> float:
    """Returns ‖Pg‖²/‖g‖², P the projection on the span of vectors.

    Args:
        gram: inner products of the vectors.
        products: their inner products with g.
        square: ‖g‖².
    """
    values, axes = torch.linalg.eigh(gram)
    kept = values > len(values) * EPSILON * values[-1]
    along = axes[:, kept].mT @ products
    return float((along**2 / values[kept]).sum()) / square


def measure(setting: Setting) -> list[Row]:
    """Computes ranks for every problem, size of the batch and seed, before and after training."""
    return [
        row
        for name, seed in product(PROBLEMS, setting.seeds)
        for row in of_problem(setting, name, seed)
    ]


def of_problem(setting: Setting, name: str, seed: int) -> list[Row]:
    """Returns a row at the first weights of a seed, and one after some updates of KFRA."""
    problem, (data, samples) = PROBLEMS[name], digits(setting)
    inputs = samples.x.shape[1]
    if problem.outputs:
        net = classifier(setting, inputs, problem.outputs)
    else:
        net = nt.models.autoencoder(inputs, hidden=hidden(setting))
    x = samples.x.double()
    y = {0: x, 1: samples.y.double()[:, None]}.get(problem.outputs, samples.y)
    model = nt.compile(net, (inputs,), problem.loss(), dtype=torch.float64, seed=seed)
    optimizer = nt.KFRA(model, **AVERAGED)
    batches = nt.Batches(x, y, setting.of(smoke=40, default=250, full=1000), seed=seed)
    rows: list[Row] = []
    for when, updates in (("first", 0), ("trained", setting.of(smoke=2, default=50, full=500))):
        for batch in islice(chain.from_iterable(repeat(batches)), updates):
            optimizer.step(*(t.to(model.device) for t in batch))
        key = {"data": data, "problem": name, "seed": seed, "when": when}
        rows.append(key | seen(setting, model, net, problem, x.to(model.device), y, seed))
    return rows


def seen(
    setting: Setting,
    model: nt.Model,
    net: nt.Sequential,
    problem: Problem,
    x: Tensor,
    y: Tensor,
    seed: int,
) -> Row:
    """Returns ranks at a point by size of the batch, as lists."""
    y = y.to(x.device)
    whole, met = outputs(model, net, x)
    descent = uses(model, net, met, problem.gradient(whole, y)[:, :, None])
    slopes = [torch.einsum("nko,nd->od", u.adjoints, u.inputs) / len(x) for u in descent]
    square = float(sum((slope**2).sum() for slope in slopes))
    row: Row = {
        "parameters": model.params.numel(), "batch": [], "rank": [], "bound": [], "sampled": [],
        "factors": [], "share": [],
    }  # fmt: skip
    torch.manual_seed(seed)
    order = torch.randperm(len(x), device=x.device)
    limit = setting.of(smoke=64, default=1500, full=8000)  # rows of a Gram matrix
    for size in setting.of(smoke=(1, 4, 16), default=(1, 4, 16, 64, 256), full=(1, 10, 100, 1000)):
        chosen = order[:size]
        z, met = outputs(model, net, x[chosen])
        root = problem.root(z, y[chosen])
        if row["batch"] and root.shape[0] * root.shape[2] > limit:
            break
        columns = uses(model, net, met, root)
        gram = sum((u.gram for u in columns), torch.zeros(()))
        drawn = problem.gradient(z, problem.draw(z))[:, :, None]
        sampled = sum((u.gram for u in uses(model, net, met, drawn)), torch.zeros(()))
        against = sum(
            torch.einsum("nko,od,nd->nk", u.adjoints, slope, u.inputs).flatten()
            for u, slope in zip(columns, slopes, strict=True)
        )
        values = {
            "batch": size,
            "rank": rank(gram),
            "bound": int(torch.linalg.matrix_rank(root, rtol=1e-6).sum()),
            "sampled": rank(sampled),
            "factors": sum(map(rank_of_factors, columns)),
            "share": share_inside(gram, torch.as_tensor(against), square),
        }
        for field, value in values.items():
            row[field].append(value)
    return row


def rank_of_factors(layer: Uses) -> int:
    """Returns the rank of E[Q] ⊗ E[𝒢] of a layer."""
    rows = layer.adjoints.flatten(0, 1)
    return rank(layer.inputs.mT @ layer.inputs) * rank(rows.mT @ rows)


def figure(rows: list[Row]) -> Figure:
    """Draws ranks by the size of the batch, and below what the matrix sees of the gradient."""
    names = list(dict.fromkeys(row["problem"] for row in rows))
    made, axes = panels(2, len(names))
    fields = {
        "rank": "Gauss–Newton matrix", "bound": "rank of outputs' matrices, summed",
        "sampled": "one drawn label a sample", "factors": "Kronecker factors of the layers",
    }  # fmt: skip
    for (above, below), name in zip(axes.T, names, strict=True):
        found = of(rows, problem=name, when="trained")
        shown = [
            row | {"method": what, "count": row[field]}
            for field, what in fields.items()
            for row in found
        ]
        curves(above, shown, "batch", "count")
        for line, style in zip(above.lines, ("-", "--", ":", "-"), strict=True):
            line.set_linestyle(style)
        above.axhline(found[0]["parameters"], color="black", linestyle="-.", label="parameters")
        above.set(title=name, ylabel="rank")
        above.get_legend().remove()
        curves(below, of(rows, problem=name), "batch", "share", by="when", log=False)
        below.set(ylabel="share of ‖∇h‖² in its range", ylim=(-0.05, 1.05))
        for at in (above, below):
            at.set_xscale("log")
    made.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return made


def findings(rows: list[Row]) -> list[Finding]:
    """Returns the claims of section 6 and appendix D beside the rows."""
    return [_bounded(rows), _drawn(rows), _underdetermined(rows), _enough(rows)]


def _last(rows: Sequence[Row], field: str) -> Mapping[str, float]:
    """Returns the mean over the seeds of a field at the largest batch, trained, by problem."""
    return {
        name: float(np.mean([r[field][-1] for r in of(rows, problem=name, when="trained")]))
        for name in dict.fromkeys(row["problem"] for row in rows)
    }


def _bounded(rows: Sequence[Row]) -> Finding:
    """Returns how the rank of the mini-batch's matrix compares with its bound."""
    pairs = [p for row in rows for p in zip(row["rank"], row["bound"], strict=True)]
    within, reached = (sum(map(f, pairs)) for f in (lambda p: p[0] <= p[1], lambda p: p[0] == p[1]))
    ranks, bounds, sizes = (_last(rows, field) for field in ("rank", "bound", "batch"))
    told = ", ".join(
        f"{name} {ranks[name]:.0f} of {bounds[name]:.0f} for {sizes[name]:.0f} samples"
        for name in ranks
    )
    return Finding(
        "The rank of the Gauss–Newton matrix of N samples is at most N times that of the output's "
        "Hessian, which is one for the binary classifier (section 6, appendix D).",
        f"the rank is within the bound in {within} of {len(pairs)} cases and reaches it in "
        f"{reached}; after training {told}.",
        "agrees" if within == len(pairs) else "contradicts",
        "ranks are those of the N·k gradients' inner products in float64. Where the bound is not "
        "reached, gradients of different samples are dependent to rounding. Of eq. 27 the rank is "
        "one with the Fisher matrix of the outputs, and up to three with their Hessian.",
    )


def _drawn(rows: Sequence[Row]) -> Finding:
    """Returns the rank of the Fisher matrix of drawn labels."""
    pairs = [p for row in rows for p in zip(row["sampled"], row["batch"], strict=True)]
    within = sum(a <= b for a, b in pairs)
    sampled, exact = (_last(rows, field) for field in ("sampled", "rank"))
    told = ", ".join(f"{name} {sampled[name]:.0f} and {exact[name]:.0f}" for name in sampled)
    return Finding(
        "The Fisher matrix of K-FAC's draws has at most the rank N·S for S draws (appendix D).",
        f"within the bound in {within} of {len(pairs)} cases with one draw; at the largest batch "
        f"the drawn and the exact matrix have the ranks {told}.",
        "agrees" if within == len(pairs) else "contradicts",
        "one draw leaves as many directions as there are samples, however many outputs there are: "
        "for the autoencoder it loses most of the matrix, for a binary classifier nothing.",
    )


def _underdetermined(rows: Sequence[Row]) -> Finding:
    """Returns how much of the space has curvature."""
    ranks, factors, parameters = (
        _last(rows, "rank"), _last(rows, "factors"),
        {row["problem"]: row["parameters"] for row in rows},
    )  # fmt: skip
    told = ", ".join(
        f"{name} {ranks[name] / parameters[name]:.1%} and {factors[name] / parameters[name]:.0%}"
        for name in ranks
    )
    under = all(ranks[name] < parameters[name] for name in ranks)
    return Finding(
        "The exact matrix is severely underdetermined, most of all for the binary classifier: "
        "curvature is zero in many directions, which is why damping matters (section 6).",
        f"rank over the number of parameters, of the exact matrix and of its Kronecker factors, "
        f"at the largest batch: {told}.",
        "agrees" if under else "contradicts",
        "the factors have curvature in far more directions than the matrix that they stand for: "
        "rank(E[Q])·rank(E[𝒢]) of each layer. What is inverted in practice is therefore "
        "less singular than section 6 fears, by an error of the approximation.",
    )


def _enough(rows: Sequence[Row]) -> Finding:
    """Returns what the range of the matrix has of the gradient."""
    shares = {when: list[float]() for when in ("first", "trained")}
    for row in rows:
        shares[row["when"]].append(row["share"][-1])
    ranks = _last(rows, "rank")
    parameters = {row["problem"]: row["parameters"] for row in rows}
    told = "; ".join(
        f"{name} "
        + ", ".join(
            f"{when} {np.mean([r['share'][-1] for r in of(rows, problem=name, when=when)]):.0%}"
            for when in shares
        )
        for name in ranks
    )
    largest = max(ranks[name] / parameters[name] for name in ranks)
    low = min(map(min, shares.values()))
    verdict: Verdict = "agrees" if low > 0.5 else "open" if low > largest else "contradicts"
    return Finding(
        "In practice the matrix has curvature in a limited subspace only, which is still enough "
        "for large updates (section 6).",
        "share of the squared norm of the gradient over all samples that lies in the range of the "
        f"largest batch's matrix: {told}.",
        verdict,
        f"that range has at most {largest:.1%} of the dimensions. A batch's own gradient lies in "
        "it wholly, wherever B has the range of ∇ℓ; that of other samples does so far as their "
        "gradients resemble the batch's.",
    )


RANK = Experiment(
    "What is the rank of a mini-batch's Gauss–Newton matrix, and is it enough?",
    "Section 6, appendix D",
    measure,
    figure,
    findings,
)

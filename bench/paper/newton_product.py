"""Newton-CG by the second, and the form of its product (Wang, Tan & Lin 2020, figure 3)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import torch

import newtriton as nt

from ...runtime.curvatures.matrix_free import cheaper_product
from ...runtime.model.linearization import PRODUCTS
from ..protocol.experiment import Experiment, Finding, Row, Setting, Verdict
from ..protocol.figures import curves, panels
from ..protocol.training import curve
from .newton_training import (
    BATCH,
    NETWORKS,
    SMALLEST,
    Problem,
    batches,
    chosen,
    newton,
    problems,
    stochastic,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LR = 0.003  # Table 5's for the 3-layer CNN on three of the four sets
SHAPES = {"1×28×28": (1, 28, 28), "3×32×32": (3, 32, 32)}  # of MNIST; of SVHN and CIFAR-10
CLASSES = 10
MANY = 2000  # samples, from which on an epoch of the default size takes a second
TYPICAL = 12  # CG iterations of a Newton step
REACHED = 0.99  # of the highest accuracy of all methods
NEWTON, PLAIN, SG = "Newton", "SG without momentum", "SG with momentum"

Makes = Callable[[nt.Model, int], Any]


def methods(rates: Sequence[float]) -> dict[str, Makes]:
    """Returns the methods of figure 3, SG with momentum at several first rates."""

    def sg(lr: float, **options: float) -> Makes:
        return lambda model, seed: stochastic(model, lr, **options)

    momentum = {f"{SG}, {lr:g}": sg(lr) for lr in rates}
    return {NEWTON: newton, **momentum, PLAIN: sg(LR, momentum=0.0, gamma=0.0)}


def measure(setting: Setting) -> list[Row]:
    """Returns curves of figure 3's methods, the cost of a Newton step, and that of the products."""
    rows = list[Row]()
    for problem in problems(setting):
        small = problem.train.x.shape[-1] < SMALLEST
        # A small set has few updates in an epoch: larger rates may suit it, and a larger set tells.
        entrants = methods((LR, *((0.01, 0.03) if small and setting.size != "smoke" else ())))
        for variant in (problem, problem.shifted()) if small else (problem,):
            for seed in setting.seeds:
                rows += [trained(setting, variant, *named, seed) for named in entrants.items()]
        rows.append(step_costs(setting, problem))
    shapes = [*SHAPES][: setting.of(smoke=1, default=2, full=2)]
    return rows + [product_costs(setting, net, shape) for net in NETWORKS for shape in shapes]


def trained(setting: Setting, problem: Problem, method: str, make: Makes, seed: int) -> Row:
    """Returns the curve of a method on the 3-layer CNN."""
    whole = method == NEWTON
    few = 15 if len(problem.train.y) > MANY else 40
    epochs = setting.of(smoke=1, default=few, full=100 if whole else 1000)
    model = problem.model("3-layer CNN", seed)
    data = batches(problem.train, 1000 if whole else BATCH, seed)
    train, test = (batches(part, 1000) for part in (problem.train, problem.test))
    row = curve(model, make(model, seed), data, train, test, epochs)
    return {"kind": "curve", "data": problem.name, "method": method, "seed": seed, **row}


def seconds(call: Callable[[], object], rounds: int) -> float:
    """Returns the median time of a call, after one that counts nothing."""
    found = list[float]()
    for _ in range(rounds + 1):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return median(found[1:])


def step_costs(setting: Setting, problem: Problem) -> Row:
    """Returns what shares of Newton steps go to function and gradient, and to products."""
    model, data = problem.model("3-layer CNN", 0), batches(problem.train, 1000)
    optimizer, products = newton(model, 0), 0.0
    curvature: Any = optimizer.curvature
    multiplied = curvature.mv

    def timed(v: torch.Tensor) -> torch.Tensor:
        nonlocal products
        start = time.perf_counter()
        product = multiplied(v)
        products += time.perf_counter() - start
        return product

    curvature.mv = timed
    start = time.perf_counter()
    reports = [optimizer.step(data) for _ in range(setting.of(smoke=2, default=20, full=20))]
    whole = time.perf_counter() - start
    return {
        "kind": "step", "data": problem.name, "network": "3-layer CNN", "steps": len(reports),
        "iterations": mean(report.cg_iterations for report in reports),
        "halvings": mean(report.halvings for report in reports),
        "seconds": whole, "products": products,
    }  # fmt: skip


def product_costs(setting: Setting, network: str, shape: str) -> Row:
    """Returns seconds and bytes of both forms of the product, and the paper's count of numbers."""
    samples, rounds = (
        setting.of(smoke=2, default=64, full=2500),
        setting.of(smoke=1, default=5, full=5),
    )
    net = NETWORKS[network](CLASSES)
    model = nt.compile(net, SHAPES[shape], nt.MSELoss())
    x = torch.randn(samples, *SHAPES[shape], device=model.device)
    lin = model.linearize(x, torch.arange(samples, device=model.device) % CLASSES)
    v = torch.randn_like(model.params)

    def jacobian() -> None:
        lin.__dict__.pop("jacobian", None)
        _ = lin.jacobian

    calls: dict[str, Callable[[], object]] = {"jacobian": jacobian}
    calls |= {product: partial(lin.ggnvp, v, product) for product in PRODUCTS}
    calls["gradient"] = partial(
        model.gradient, x, torch.arange(samples, device=model.device) % CLASSES
    )
    stored = sum(values.numel() for values in lin.jacobian.values())
    return {
        "kind": "product", "network": network, "shape": shape, "samples": samples,
        **{name: seconds(call, rounds) for name, call in calls.items()},
        "numbers": stored // samples, "formula": formula_87(net, SHAPES[shape]),
        "bytes": stored * model.dtype.itemsize,
        "chosen": cheaper_product(model.programs[True], samples, TYPICAL),
    }  # fmt: skip


def formula_87(net: Any, shape: tuple[int, int, int]) -> int:
    """Returns the numbers of ∂z/∂S for a sample: K for each element before activations (eq. 87)."""
    _, height, width = shape
    elements = 0
    for layer in net.layers:
        if isinstance(layer, nt.Conv2d):
            elements += layer.out_channels * height * width
        elif isinstance(layer, nt.MaxPool2d):
            height, width = height // 2, width // 2
    return CLASSES * (elements + CLASSES)


def reached(row: Row, level: float) -> float:
    """Returns the second at which a curve's accuracy comes up to a level; infinite if never."""
    pairs = zip(row["accuracy"], row["seconds"], strict=True)
    return next((at for accuracy, at in pairs if accuracy >= level), float("inf"))


def figure(rows: list[Row]) -> Figure:
    """Draws figure 3 on each set, and the time of products by their number."""
    found = chosen(rows, kind="curve")
    sets = [*dict.fromkeys(row["data"] for row in found)]
    made, (axes,) = panels(1, len(sets) + 1)
    for place, data in zip(axes, sets, strict=False):
        curves(place, chosen(found, data=data), "seconds", "accuracy", log=False)
        place.set_title(f"{_updates(found, data)} updates in an epoch of SG")
    last = axes[-1]
    costs = chosen(rows, kind="product")
    for index, row in enumerate(costs):
        counts = range(1, 101)
        name = f"{row['network']}, {row['shape']}"
        last.plot(counts, [n * row["r-operator"] for n in counts], f"C{index}-", label=name)
        stored = [row["jacobian"] + n * row["stored-jacobian"] for n in counts]
        last.plot(counts, stored, f"C{index}--")
    last.set(xlabel="products", ylabel="seconds", yscale="log", xscale="log")
    last.set_title("R-operator; dashed: stored Jacobian")
    last.legend(fontsize="small")
    return made


def findings(rows: list[Row]) -> list[Finding]:
    """Returns what figure 3 and section 5 say beside what was found."""
    return [_faster(rows), _bottleneck(rows), _memory(rows), _time(rows)]


def _faster(rows: list[Row]) -> Finding:
    found = chosen(rows, kind="curve")
    texts, fastest, newton_at = list[str](), math.inf, math.inf
    for data in sorted({row["data"] for row in found}, key=lambda name: _updates(found, name)):
        middle = _middle(chosen(found, data=data))
        fastest = min(at for method, at in middle.items() if method.startswith(SG))
        newton_at = middle[NEWTON]
        each = ", ".join(
            f"{method} {'never' if math.isinf(at) else f'after {at:.1f} s'}"
            for method, at in middle.items()
        )
        texts.append(
            f"{each} ({_updates(found, data)} updates in an epoch of SG, a step of Newton as long "
            f"as {_epochs_a_step(chosen(found, data=data)):.1f} epochs)"
        )
    verdict: Verdict = "agrees" if fastest < newton_at else "contradicts"
    if math.isinf(fastest) and math.isinf(newton_at):
        verdict = "open"
    return Finding(
        'SG with momentum, "under suitable settings", reaches the final accuracy sooner than '
        "Newton; early Newton iterations are dear and not accurate yet (figure 3, curves alone).",
        f"{'; '.join(texts)}.",
        verdict,
        f"the level is {REACHED:g} of the best accuracy of all methods with the same seed; times "
        "are medians over seeds, of training alone. The verdict is that of the largest set and "
        "SG's best rate: on MNIST an epoch has 469 updates. A step of Newton takes about as many "
        "epochs on any set, and so the fewer of SG's updates the smaller it is.",
    )


def _updates(rows: list[Row], data: str) -> int:
    """Returns how many updates SG makes in an epoch of a data set."""
    return max(row["update"][1] for row in chosen(rows, data=data) if len(row["update"]) > 1)


def _epochs_a_step(rows: list[Row]) -> float:
    """Returns the time of a step of Newton in epochs of SG."""
    times = {
        method: median(row["seconds"][-1] / max(row["epoch"][-1], 1) for row in of_method)
        for method in (NEWTON, PLAIN)
        if (of_method := chosen(rows, method=method))
    }
    return times[NEWTON] / times[PLAIN]


def _middle(rows: list[Row]) -> dict[str, float]:
    """Returns by method the median second at which the level is reached."""
    times: dict[str, list[float]] = {row["method"]: [] for row in rows}
    for of_seed in _by_seed(rows):
        best = max(max(row["accuracy"]) for row in of_seed)
        for row in of_seed:
            times[row["method"]].append(reached(row, REACHED * best))
    return {method: median(values) for method, values in times.items()}


def _by_seed(rows: list[Row]) -> list[list[Row]]:
    """Returns the rows of each seed."""
    return [chosen(rows, seed=seed) for seed in dict.fromkeys(row["seed"] for row in rows)]


def _bottleneck(rows: list[Row]) -> Finding:
    (row,) = chosen(rows, kind="step")[:1]
    share = row["products"] / row["seconds"]
    return Finding(
        "CG is often the bottleneck; with a sampled curvature it may shift to function and "
        "gradient (section 5.2).",
        f"of {row['steps']} steps with 5 %, {row['iterations']:.1f} CG iterations and "
        f"{row['halvings']:.1f} halvings each, products take {100 * share:.0f} % of the time.",
        "agrees" if share < 0.5 else "contradicts",
        "the claim is taken to be that function and gradient take more than products do.",
    )


def _memory(rows: list[Row]) -> Finding:
    found = chosen(rows, kind="product")
    equal = all(row["numbers"] == row["formula"] for row in found)
    each = "; ".join(
        f"{row['network']} on {row['shape']}: {row['numbers']} numbers a sample, "
        f"{row['bytes'] / row['samples'] / 2**20:.2f} MiB"
        for row in found
    )
    return Finding(
        "∂z/∂S takes l·n_{L+1}·(Σ d a b + Σ n) numbers, n_{L+1} times what all S take (eq. 87).",
        f"{each}; the formula says {', '.join(str(row['formula']) for row in found)}.",
        "agrees" if equal else "contradicts",
        "the stored tensors are counted. The R-operator stores none of them.",
    )


def _time(rows: list[Row]) -> Finding:
    found = chosen(rows, kind="product")
    texts, ratios = [], list[float]()
    for row in found:
        gain = row["r-operator"] - row["stored-jacobian"]
        ratios.append(row["stored-jacobian"] / row["r-operator"])
        after = f"after {row['jacobian'] / gain:.0f} products" if gain > 0 else "never"
        texts.append(
            f"{row['network']} on {row['shape']}: {1e3 * row['r-operator']:.0f} ms by the "
            f"R-operator, {1e3 * row['stored-jacobian']:.0f} ms stored, the Jacobian "
            f"{1e3 * row['jacobian']:.0f} ms ({row['jacobian'] / row['gradient']:.1f} gradients): "
            f"it pays {after}"
        )
    verdict: Verdict = "agrees" if max(ratios) < 1 else "contradicts" if min(ratios) > 1 else "open"
    return Finding(
        "a product from the stored ∂z/∂S takes two contractions a layer, the Jacobian n_{L+1} = 10 "
        "backward passes, once (sections 3.4 and 5.2: l, l·n_{L+1} and #CG·l); the paper times "
        "neither.",
        "; ".join(texts) + ".",
        verdict,
        "the claim is taken to be that a stored product is faster than the R-operator's four "
        "contractions. It also reads 10 numbers for each element of S, so that memory traffic "
        'eats what arithmetic saves; `product="auto"` weighs both.',
    )


EXPERIMENTS = {
    "newton-product": Experiment(
        "Is Newton-CG slower than SG by the second, and which form of its product is cheaper?",
        "Figure 3, sections 3.3, 3.4 and 5",
        measure,
        figure,
        findings,
    )
}

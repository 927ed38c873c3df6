"""KFRA's alignment: cosines of Kronecker-factored steps with exact Gauss–Newton steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, product, repeat
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

import newtriton as nt

from ...runtime.curvatures.kronecker import KroneckerCurvature
from ...runtime.diagnostics.alignment import Alignment
from ...runtime.solvers.direct import KFI, Eigen
from ..protocol.experiment import Experiment, Finding, Row, Setting, Verdict
from ..protocol.figures import curves, panels
from .kfra_autoencoders import LAST, TASKS, hidden, images, of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXACT = "exact, by layer"  # the name that `nt.alignment` gives the block-diagonal step
STARS = (" *", "")  # the paper's mark of the approximate inverse, eq. 36
DRAWS = 10
TEN = f"KFAC, {DRAWS} draws"
DRAWN = ("KFRA", "KFRA *", "KFAC", "KFAC *", "KFLR")  # what the picture shows


def kinds(setting: Setting) -> dict[str, tuple[str, int]]:
    """Returns the kinds of factors and their draws by name.

    KFLR, which stands for all draws, has a backward copy for every pixel: small images alone.
    """
    found = {"KFRA": ("kfra", 1), "KFAC": ("kfac", 1)}
    if setting.size != "full":
        found |= {TEN: ("kfac", DRAWS), "KFLR": ("kflr", 1)}
    return found


def curvatures(setting: Setting, lin: nt.Linearization, seed: int) -> dict[str, KroneckerCurvature]:
    """Returns the curvatures of a batch that are compared, by name."""
    found: dict[str, KroneckerCurvature] = {}
    for name, (kind, samples) in kinds(setting).items():
        found[name] = KroneckerCurvature(lin.model, kind, samples=samples, seed=seed)
        found[name].update(lin)
    return found


def steps(
    lin: nt.Linearization, made: Mapping[str, KroneckerCurvature], damping: float
) -> dict[str, Tensor]:
    """Returns the steps of curvatures with both inverses, by name."""
    return {
        name + star: -solver.solve(curvature, damping, lin.gradient).x
        for name, curvature in made.items()
        for star, solver in ((" *", KFI()), ("", Eigen()))
    }


def factor_errors(made: Mapping[str, KroneckerCurvature]) -> dict[str, float]:
    """Returns ‖E[𝒢] − exact‖/‖exact‖ of curvatures, the mean over layers; nothing without KFLR."""
    if "KFLR" not in made:
        return {}
    grams = {
        name: {layer: of_layer.tensors["G"] for layer, of_layer in curvature.factors.items()}
        for name, curvature in made.items()
    }
    errors: dict[str, float] = {}
    for name, found in grams.items():
        shares = [(found[at] - exact).norm() / exact.norm() for at, exact in grams["KFLR"].items()]
        errors[name] = float(torch.stack(shares).mean())
    return errors


def measure(setting: Setting) -> list[Row]:
    """Follows KFRA's trajectory on every task, and compares steps along it."""
    return [
        row for name, seed in product(TASKS, setting.seeds) for row in followed(setting, name, seed)
    ]


def followed(setting: Setting, name: str, seed: int) -> list[Row]:
    """Returns a row for each step and size of the batch, with lists along a trajectory.

    At its end batches of other sizes are looked at, too.
    """
    data = images(setting, name)
    inputs, updates = data.x.shape[1], _marks(setting)
    net = nt.models.autoencoder(inputs, hidden=hidden(setting))
    model = nt.compile(net, (inputs,), TASKS[name].loss(), dtype=torch.float64, seed=seed)
    optimizer = nt.KFRA(model, **LAST)
    size, *others = setting.of(smoke=(40, 20), default=(250, 500, 1000), full=(1000, 500, 250))
    batches = nt.Batches(data.x, data.x, size, seed=seed, drop_last=True)
    stream = chain.from_iterable(repeat(batches))
    rows: dict[tuple[str, int], Row] = {}
    for update in range(updates[-1] + 1):
        x, _ = (t.to(model.device, torch.float64) for t in next(stream))
        last, parts = update == updates[-1], [x][: update in updates]
        if last:
            parts += [data.x[:other].to(x) for other in others]
        for part in parts:
            lin = model.linearize(part, part)
            made = curvatures(setting, lin, seed)
            found = compared(setting, lin, steps(lin, made, optimizer.damping), optimizer.damping)
            errors = factor_errors(made)
            for method, cosine in found.whole.items():
                key = {
                    "set": name, "data": data.name, "seed": seed, "method": method,
                    "batch": len(part),
                }  # fmt: skip
                row = rows.setdefault((method, len(part)), key)
                layers = [*found.layers[method].values()]
                values = {
                    "update": update, "damping": found.damping, "whole": cosine, "layers": layers,
                    "by_layer": float(np.mean(layers)), "residual": max(found.residuals.values()),
                    "factor_error": errors.get(method),
                }  # fmt: skip
                for field, value in values.items():
                    row.setdefault(field, []).append(value)
        if last:
            row = rows[EXACT, size]
            row["with_first_damping"] = compared(
                setting, model.linearize(x, x), {}, row["damping"][0]
            ).whole[EXACT]
        optimizer.step(x, x)
    return [*rows.values()]


def _marks(setting: Setting) -> Sequence[int]:
    """Returns the numbers of updates after which steps are compared."""
    return setting.of(
        smoke=(0, 2), default=(0, 5, 20, 80), full=(0, 10, 50, 200, 500, 1000, 2000, 5000)
    )


def compared(
    setting: Setting, lin: nt.Linearization, made: Mapping[str, Tensor], damping: float
) -> Alignment:
    """Returns the cosines of steps with exact ones."""
    limit = setting.of(smoke=20, default=250, full=2000)
    return nt.alignment(lin, made, damping=damping, tolerance=1e-4, limit=limit)


def along(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows that follow the trajectory: of its own batch size, which is seen longest."""
    longest = max(len(row["update"]) for row in rows)
    return [row for row in rows if len(row["update"]) == longest]


def figure(rows: list[Row]) -> Figure:
    """Draws figures 5 to 7: cosines of the whole, their mean over layers, and each layer's."""
    names = list(dict.fromkeys(row["set"] for row in rows))
    made, axes = panels(3, len(names))
    for (whole, mean, layers), name in zip(axes.T, names, strict=True):
        found = along(of(rows, set=name))
        shown = [row | {"layer": _average(row)} for row in found if row["method"] in DRAWN]
        shown = [row | {"number": list(range(1, len(row["layer"]) + 1))} for row in shown]
        whole.set_title(name)
        exact = [row for row in found if row["method"] == EXACT]
        curves(whole, [*shown, *exact], "update", "whole", log=False)
        curves(mean, shown, "update", "by_layer", log=False)
        curves(layers, shown, "number", "layer", log=False)
        whole.set_ylabel("cosine with the exact step")
        mean.set_ylabel("cosine by layer, mean of layers")
        layers.set(ylabel="cosine by layer, mean of updates", xlabel="layer")
        for at in (whole, mean, layers):
            at.get_legend().remove()
            at.set_ylim(-0.05, 1.05)
    made.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return made


def _average(row: Row) -> list[float]:
    """Returns a row's cosines by layer, the mean along the trajectory."""
    return np.mean(np.array(row["layers"], dtype=float), axis=0).tolist()


def means(rows: Sequence[Row], method: str, field: str) -> np.ndarray:
    """Returns a method's cosines, the means along the trajectory, one for each seed."""
    found = of(along(rows), method=method)
    return np.array([np.nanmean(np.array(row[field], dtype=float)) for row in found])


def findings(rows: list[Row]) -> list[Finding]:
    """Returns the claims of appendix F.2 beside the rows."""
    tasks = {name: of(rows, set=name) for name in dict.fromkeys(row["set"] for row in rows)}
    return [
        _aligned(tasks, "by_layer"),
        _aligned(tasks, "whole"),
        _inverses(tasks),
        _by_layer(tasks),
        _sizes(tasks),
    ]


def _pair(tasks: Mapping[str, Sequence[Row]], first: str, second: str, field: str) -> str:
    """Returns the means of two methods' cosines by task, as text."""
    return ", ".join(
        f"{name} {means(rows, first, field).mean():.3f} and {means(rows, second, field).mean():.3f}"
        for name, rows in tasks.items()
    )


def _above(
    tasks: Mapping[str, Sequence[Row]], first: str, second: str, field: str
) -> tuple[int, int]:
    """Returns in how many runs the first method is aligned better, and the number of runs."""
    gaps = [means(rows, first, field) - means(rows, second, field) for rows in tasks.values()]
    return int(sum((gap > 0).sum() for gap in gaps)), sum(map(len, gaps))


def _verdict(counts: Sequence[tuple[int, int]]) -> Verdict:
    """Returns the verdict on a claim that holds in so many of so many runs."""
    if all(above == runs for above, runs in counts):
        return "agrees"
    return "contradicts" if not any(above for above, _ in counts) else "open"


def _aligned(tasks: Mapping[str, Sequence[Row]], field: str) -> Finding:
    """Returns whether KFRA is aligned better than K-FAC."""
    what = {
        "by_layer": ("layer by layer, with the block-diagonal", "figures 5a to 7a"),
        "whole": ("as a whole, with the full", "figures 5b to 7b"),
    }[field]
    counts = [_above(tasks, f"KFRA{star}", f"KFAC{star}", field) for star in STARS]
    starred, plain = (_pair(tasks, f"KFRA{star}", f"KFAC{star}", field) for star in STARS)
    (starred_above, runs), (plain_above, _) = counts
    why = (
        f"KFRA is the better one in {plain_above} of {runs} runs with the exact inverse, and in "
        f"{starred_above} of {runs} with the approximate one."
    )
    if any(row["method"] == "KFLR" for rows in tasks.values() for row in rows):
        why += (
            " The two differ in E[𝒢] alone, which KFLR has exactly: K-FAC's has the noise of its "
            f"draws, KFRA's the bias of its recursion. {_off(tasks)} With KFLR's the mean cosines "
            f"of exact and approximate inverse are {_pair(tasks, 'KFLR', 'KFLR *', field)}, and "
            f"with {DRAWS} draws {_pair(tasks, TEN, f'{TEN} *', field)}."
        )
    return Finding(
        f"Throughout the optimisation KFRA's step is aligned better than K-FAC's, {what[0]} "
        f"Gauss–Newton step ({what[1]}).",
        f"mean cosines of KFRA and K-FAC along KFRA's trajectory, exact inverse: {plain}; "
        f"approximate inverse (eq. 36): {starred}.",
        _verdict(counts),
        why,
    )


def _off(tasks: Mapping[str, Sequence[Row]]) -> str:
    """Returns how far E[𝒢] is from that of KFLR, as a sentence."""
    told = ", ".join(
        f"{name} "
        + ", ".join(
            f"{means(rows, method, 'factor_error').mean():.2f}" for method in ("KFRA", "KFAC", TEN)
        )
        for name, rows in tasks.items()
    )
    return f"‖E[𝒢] − exact‖/‖exact‖ of KFRA, of K-FAC with one and with {DRAWS} draws: {told}."


def _inverses(tasks: Mapping[str, Sequence[Row]]) -> Finding:
    """Returns what the approximate inverse costs."""
    gaps = [
        means(rows, name, "by_layer") - means(rows, f"{name} *", "by_layer")
        for rows in tasks.values()
        for name in ("KFRA", "KFAC")
    ]
    loses, runs = sum(int((gap > 0).sum()) for gap in gaps), sum(map(len, gaps))
    return Finding(
        "Appendix F.2 shows steps with the approximate inverse (eq. 36, starred) beside those "
        "with the exact one, and all experiments use the former.",
        f"mean cosine by layer with the exact and the approximate inverse, of KFRA: "
        f"{_pair(tasks, 'KFRA', 'KFRA *', 'by_layer')}; of K-FAC: "
        f"{_pair(tasks, 'KFAC', 'KFAC *', 'by_layer')}.",
        "open",
        f"the paper has no number for it. The exact inverse is aligned better in {loses} of "
        f"{runs} runs.",
    )


def _by_layer(tasks: Mapping[str, Sequence[Row]]) -> Finding:
    """Returns how far the block-diagonal step is from the full one."""
    exact = {name: of(along(rows), method=EXACT) for name, rows in tasks.items()}
    ends, damped = list[str](), list[str]()
    for name, rows in exact.items():
        first, last = (float(np.mean([row["whole"][i] for row in rows])) for i in (0, -1))
        ends.append(f"{name} {first:.3f} and {last:.3f}")
        other = float(np.mean([row["with_first_damping"] for row in rows]))
        damped.append(f"{name} {other:.3f}")
    every = [row for rows in exact.values() for row in rows]
    kept = all(
        row["whole"][-1] > row["whole"][0] - 0.1
        for name, rows in exact.items()
        for row in rows
        if name != "FACES"
    )
    dampings = [row["damping"] for row in every]
    return Finding(
        "The block-diagonal step stays aligned with the full one to the end of training on CURVES "
        "and MNIST; on FACES it decays, most likely by badly conditioned conjugate gradients "
        "(appendix F.2).",
        f"its cosine with the full step at the first and the last point: {', '.join(ends)}.",
        "agrees" if kept else "contradicts",
        f"γ falls from {dampings[0][0]:.0e} to {min(d[-1] for d in dampings):.0e} on the way, as "
        f"the method adapts it. With the first γ the cosines at the last point are "
        f"{', '.join(damped)}. Residuals of the exact steps are at most "
        f"{max(row['residual'][-1] for row in every):.0e} there.",
    )


def _sizes(tasks: Mapping[str, Sequence[Row]]) -> Finding:
    """Returns what the size of the batch does at the last point."""
    parts, spread = list[str](), 0.0
    for name, rows in tasks.items():
        told, gaps = list[str](), list[float]()
        for size in sorted({row["batch"] for row in rows}):
            kfra, kfac = (
                float(np.mean([row["by_layer"][-1] for row in of(rows, method=m, batch=size)]))
                for m in ("KFRA", "KFAC")
            )
            told.append(f"{size}: {kfra:.3f} and {kfac:.3f}")
            gaps.append(kfra - kfac)
        parts.append(f"{name} {', '.join(told)}")
        spread = max(spread, max(gaps) - min(gaps))
    return Finding(
        "Batches of 250, 500 and 1000 do not differ significantly (appendix F.2).",
        f"mean cosine by layer of KFRA and K-FAC, exact inverse, at the last point by size: "
        f"{'; '.join(parts)}.",
        "agrees" if spread < 0.05 else "contradicts",
        f"how far KFRA is ahead of K-FAC differs by {spread:.3f} between sizes at most; 0.05 is "
        "taken for significant. K-FAC has a draw for each sample, so that a larger batch has less "
        "of its noise.",
    )


ALIGNMENT = Experiment(
    "How well are the steps of KFRA and K-FAC aligned with exact Gauss–Newton steps?",
    "Appendix F.2, figures 5–7",
    measure,
    figure,
    findings,
)

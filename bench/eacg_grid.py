"""EA-CG over its paper's grid on digits: rate, α, CG limit and tolerance, on PCH-1 factors.

Training loss over all samples after ten epochs, the mean over three sigmoid networks; infinite
where a run diverged. The best points of one seed are run from more (`--rounds` in all), and are the
first rows: the preset's defaults are the first of all.
"""

from __future__ import annotations

from itertools import product
from statistics import mean
from typing import Any

import torch

import newtriton as nt

from ._measure import arguments, report

RATES = (0.05, 0.1, 0.2)
ALPHAS = (0.01, 0.02, 0.05, 0.1)
LIMITS = (5, 10, 20, 50)
TOLERANCES = (1e-10, 1e-5, 1e-2, 1e-1)
HIDDEN = ((32,), (64, 32), (64, 32, 16))
EPOCHS = 10
FINALISTS = 40


def loss_after(hidden: tuple[int, ...], seed: int, data: nt.Samples, **options: Any) -> float:
    """Of a run with these options; infinite where ten steps in a row are not finite."""
    net = nt.models.mlp(hidden)
    model = nt.compile(net, (1, 8, 8), nt.CrossEntropyLoss(), backend="aten", seed=seed)
    optimizer = nt.EACG(model, **options)
    batches = nt.Batches(*data, batch_size=128, seed=seed)
    try:
        nt.fit(model, optimizer, batches, epochs=EPOCHS, progress=False)
    except nt.NewtritonError:
        return float("inf")
    return nt.evaluate(model, [data])[0]


def losses(point: dict[str, Any], seed: int, data: nt.Samples) -> list[float]:
    """Of all networks."""
    return [loss_after(hidden, seed, data, **point) for hidden in HIDDEN]


def main() -> None:
    """Prints a row per point of the grid."""
    options = arguments(__doc__)
    torch.set_num_threads(1)
    data = nt.digits()[0]
    names = ("lr", "alpha", "limit", "tolerance")
    grid = [
        dict(zip(names, values, strict=True))
        for values in product(RATES, ALPHAS, LIMITS, TOLERANCES)
    ]
    found = [(point, losses(point, 0, data)) for point in grid]
    found.sort(key=lambda pair: mean(pair[1]))
    for point, runs in found[:FINALISTS]:
        for seed in range(1, options.rounds):
            runs.extend(losses(point, seed, data))
    found.sort(key=lambda pair: (-len(pair[1]), mean(pair[1])))
    rows = [
        {
            **point,
            "runs": len(runs),
            "loss": float(f"{mean(runs):.4g}"),
            "worst": float(f"{max(runs):.4g}"),
        }
        for point, runs in found
    ]
    report(rows, options.json)


if __name__ == "__main__":
    main()

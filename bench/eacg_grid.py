"""EA-CG over its paper's grid on digits: rate, α, CG limit and tolerance, on PCH-1 factors.

Training loss over all samples after ten epochs, the mean over three sigmoid networks and the seeds
(`--rounds`); infinite where a run diverged. The preset's defaults are the first row.
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


def main() -> None:
    """Prints a row per point of the grid, best first."""
    options = arguments(__doc__)
    torch.set_num_threads(1)
    data = nt.digits()[0]
    rows: list[dict[str, Any]] = []
    for lr, alpha, limit, tolerance in product(RATES, ALPHAS, LIMITS, TOLERANCES):
        point = {"lr": lr, "alpha": alpha, "limit": limit, "tolerance": tolerance}
        runs = product(HIDDEN, range(options.rounds))
        losses = [loss_after(hidden, seed, data, **point) for hidden, seed in runs]
        rows.append({**point, "loss": mean(losses), "worst": max(losses)})
    rows.sort(key=lambda row: row["loss"])
    for row in rows:
        row |= {name: float(f"{row[name]:.4g}") for name in ("loss", "worst")}
    report(rows, options.json)


if __name__ == "__main__":
    main()

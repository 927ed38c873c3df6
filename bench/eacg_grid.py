"""EA-CG over its paper's grid on digits: rate, α, CG limit and tolerance, on PCH-1 factors.

Training losses over all samples: `sigmoids`, the mean over three networks like the paper's and
`--rounds` seeds after ten epochs; `cnn`, of the README's network after three, at the same rate and
α. `loss` is the mean over the four networks. The first row, the cheapest of equals, has the
preset's defaults. One round takes some ten minutes.
"""

from __future__ import annotations

from itertools import product
from statistics import mean
from typing import Any

import torch

import newtriton as nt

from ..compiler.language.network import Layer
from ._measure import arguments, report

RATES = (0.05, 0.1, 0.2)
ALPHAS = (0.01, 0.02, 0.05, 0.1)
LIMITS = (5, 10, 20, 50)
TOLERANCES = (1e-10, 1e-5, 1e-2, 1e-1)
HIDDEN = ((32,), (64, 32), (64, 32, 16))


def loss_after(net: Layer, epochs: int, data: nt.Samples, seed: int = 0, **options: float) -> float:
    """Returns the loss after a run with these options; infinite where ten steps are not finite."""
    model = nt.compile(net, (1, 8, 8), nt.CrossEntropyLoss(), backend="aten", seed=seed)
    optimizer = nt.EACG(model, **options)  # type: ignore[arg-type]
    batches = nt.Batches(*data, batch_size=128, seed=seed)
    try:
        nt.fit(model, optimizer, batches, epochs=epochs, progress=False)
    except nt.NewtritonError:
        return float("inf")
    return float(f"{nt.evaluate(model, [data])[0]:.4g}")


def row_of(point: dict[str, Any], sigmoids: float, cnn: float) -> dict[str, Any]:
    """Returns a row: a point of the grid with its losses."""
    loss = mean([*[sigmoids] * len(HIDDEN), cnn])
    return {**point, "loss": float(f"{loss:.3g}"), "sigmoids": sigmoids, "cnn": cnn}


def ranked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows, best first, with a word for infinity, which JSON has no number for."""
    rows.sort(key=lambda row: (row["loss"], row["limit"], -row["tolerance"]))
    return [{k: "diverged" if v == float("inf") else v for k, v in row.items()} for row in rows]


def main() -> None:
    """Prints a row per point of the grid."""
    options = arguments(__doc__)
    torch.set_num_threads(1)
    data = nt.digits()[0]
    rows: list[dict[str, Any]] = []
    for lr, alpha in product(RATES, ALPHAS):
        cnn = loss_after(
            nt.models.small_cnn(), 3, data, lr=lr, alpha=alpha, limit=20, tolerance=1e-2
        )
        for limit, tolerance in product(LIMITS, TOLERANCES):
            point = {"lr": lr, "alpha": alpha, "limit": limit, "tolerance": tolerance}
            runs = product(HIDDEN, range(options.rounds))
            found = [loss_after(nt.models.mlp(h), 10, data, seed, **point) for h, seed in runs]
            rows.append(row_of(point, float(f"{mean(found):.4g}"), cnn))
    report(ranked(rows), options.json)


if __name__ == "__main__":
    main()

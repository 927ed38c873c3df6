"""Gauss–Newton products in both forms, after a linearization, and the one the cost rule takes."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Any

import torch

import newtriton as nt

from ..compiler.language.network import Layer
from ..runtime.curvatures.matrix_free import cheaper_product
from ..runtime.model.linearization import PRODUCTS
from ._measure import arguments, interleaved, report

BATCH = 128
PROBLEMS: dict[str, tuple[Layer, tuple[int, ...]]] = {
    "cnn3, 1×28×28": (nt.models.cnn3(), (1, 28, 28)),
    "cnn3, 3×32×32": (nt.models.cnn3(), (3, 32, 32)),
    "cnn5, 3×32×32": (nt.models.cnn5(), (3, 32, 32)),
    "mlp, 3072": (nt.models.mlp(), (3072,)),
    "mlp, 100 classes": (nt.models.mlp((512, 256), 100), (784,)),
}


def model_of(name: str, dtype: torch.dtype = torch.float32) -> nt.Model:
    """Returns a network with its loss."""
    net, shape = PROBLEMS[name]
    return nt.compile(net, shape, nt.MSELoss(), backend="aten", dtype=dtype)


def data(model: nt.Model) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a batch of `BATCH` samples."""
    x = torch.randn(BATCH, *model.input_shape, dtype=model.dtype)
    return x, torch.arange(BATCH) % 10


def times(name: str, rounds: int) -> tuple[dict[str, float], float]:
    """Returns the seconds of a product in each form and of the Jacobian.

    The second result is how far the forms are apart in float64, relative to one of them.
    """
    model = model_of(name)
    lin = model.linearize(*data(model))
    v = torch.randn_like(model.params)

    def jacobian() -> None:
        lin.__dict__.pop("jacobian", None)
        _ = lin.jacobian

    calls = {product: partial(lin.ggnvp, v, product) for product in PRODUCTS}
    seconds = interleaved({"jacobian": jacobian, **calls}, rounds)
    exact = model_of(name, torch.float64)
    lin64, w = exact.linearize(*data(exact)), torch.randn_like(exact.params)
    one, other = (lin64.ggnvp(w, product) for product in PRODUCTS)
    found = {call: median(found) for call, found in seconds.items()}
    return found, float((one - other).norm() / one.norm())


def main() -> None:
    """Prints a row per network and number of products."""
    options = arguments(__doc__)
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    for name in PROBLEMS:
        found, apart = times(name, options.rounds)
        programs = model_of(name).programs[True]
        for products in (2, 5, 20, 100):
            stored = found["jacobian"] + products * found["stored-jacobian"]
            totals = {"r-operator": products * found["r-operator"], "stored-jacobian": stored}
            rows.append(
                {
                    "network": name,
                    "products": products,
                    **{f"{form}_ms": round(1e3 * total, 1) for form, total in totals.items()},
                    "faster": min(totals, key=totals.__getitem__),
                    "chosen": cheaper_product(programs, BATCH, products),
                    "apart_in_float64": f"{apart:.0e}",
                }
            )
    report(rows, options.json)


if __name__ == "__main__":
    main()

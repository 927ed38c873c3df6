"""Why ours is slower than a peer somewhere, and why numbers of a peer are others.

Sentences were found by profiling, and by derivatives in float64. One of `REASONS` is about an
operation on a network, or about the operation on every network.
"""

from __future__ import annotations

from collections.abc import Mapping

EVERYWHERE = ""

AGAIN = (
    "Activations and their derivatives are computed again in each pass, data are checked, and "
    "results are copied into one flat vector."
)
MAPS = (
    "Matrix products take as long as PyTorch's. Layer norm, softmax and GELU, and their "
    "derivatives, are computed one operator after another, where PyTorch's gradient has a kernel "
    "for each; what passes between them is copied more often."
)
LINEARIZED = (
    "Ours begins with the gradient of the loss, which a step needs and the others leave out."
)
PATCHES = (
    "Grams of 5×5 patches are computed by rectangles, without im2col: a thousand small products, "
    "whose calls take longer than the arithmetic of so few channels."
)

REASONS: Mapping[tuple[str, str], str] = {
    (EVERYWHERE, "gradient"): AGAIN,
    (EVERYWHERE, "hvp"): AGAIN,
    (EVERYWHERE, "ggnvp"): LINEARIZED,
    (EVERYWHERE, "kfac"): LINEARIZED,
    (EVERYWHERE, "inverse"): (
        "Ours multiplies triangular inverses, which are made of matrix products as a GPU wants "
        "them: more operations than LAPACK's inverse by a Cholesky factor, which curvlinops calls."
    ),
    (EVERYWHERE, "ekfac"): (
        "Ours keeps a moving average of the second moments, and turns it into each new basis by "
        "products as large as the factors; the other side starts anew."
    ),
    ("lenet", "kfac"): PATCHES,
    ("lenet", "ekfac"): PATCHES,
    ("resnet20", "gradient"): (
        "Batch norm and its derivative are sums and products, one operator after another, where "
        "PyTorch has a kernel for each, and the two gradients of a convolution are two calls."
    ),
    **{(net, of): MAPS for net in ("gpt", "vit") for of in ("gradient", "hvp", "form", "forms")},
    **{(net, of): f"{LINEARIZED} {MAPS}" for net in ("gpt", "vit") for of in ("ggnvp", "kfac")},
}

# Sides that compile, and what of it makes them faster on a CPU, where ours does not.
COMPILERS = "torch.compile", "JAX", "kfac-jax"
COMPILED = (
    "It compiles what lies between the products into loops of its own; on a CPU ours calls "
    "PyTorch's operators one after another."
)

OTHERWISE: Mapping[str, str] = {
    "eager, forward over forward": (
        "a second forward derivative through PyTorch's layer norm and batch norm is wrong in "
        "float64 as well, without an error"
    ),
    "curvlinops": (
        "it takes `jvp` of `jacrev`, which loses a term of the weights of PyTorch's layer norm and "
        "batch norm in float64 as well; `jvp` of `grad` does not"
    ),
}


def reason(network: str, operation: str, rival: str) -> str:
    """Returns why a rival is faster at an operation on a network, "" where nothing is known."""
    if rival in COMPILERS and operation not in ("kfac", "inverse"):
        return COMPILED
    return REASONS.get((network, operation), REASONS.get((EVERYWHERE, operation), ""))

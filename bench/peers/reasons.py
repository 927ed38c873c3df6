"""Why ours is slower than a peer somewhere, and why numbers of a peer are others.

Sentences were found by profiling, and by derivatives in float64. One of `REASONS` is about an
operation on a network, or about the operation on every network.
"""

from __future__ import annotations

from collections.abc import Mapping

EVERYWHERE = ""

SHORT = (
    "The products take as long as PyTorch's. What ours adds are short calls: data are checked, "
    "results are copied into one flat vector, and Python lies between the operators, which "
    "products of this size do not hide."
)
MAPS = (
    "Matrix products take as long as PyTorch's. Layer norm, softmax and GELU, and their "
    "derivatives, are computed one operator after another, where PyTorch's gradient has a kernel "
    "for each; what passes between them is copied more often."
)
LINEARIZED = (
    "Ours begins with the gradient of the loss, which a step needs and the others leave out."
)
REASONS: Mapping[tuple[str, str], str] = {
    (EVERYWHERE, "gradient"): SHORT,
    (EVERYWHERE, "hvp"): SHORT,
    **{(EVERYWHERE, of): LINEARIZED for of in ("ggnvp", "kfac", "ekfac")},
    (EVERYWHERE, "inverse"): (
        "Both call LAPACK's inverse by a Cholesky factor; ours also reads whether each inverse is "
        "finite before anything is multiplied by it."
    ),
    **{("mlp", of): SHORT for of in ("gradient", "hvp", "form", "forms")},
    ("mlp", "ggnvp"): f"{LINEARIZED} {SHORT}",
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
    if (network, operation) in REASONS:
        return REASONS[network, operation]
    if rival in COMPILERS and operation not in ("kfac", "inverse"):
        return COMPILED
    return REASONS.get((EVERYWHERE, operation), "")

"""Why ours is slower than a peer somewhere, and why numbers of a peer are others.

Sentences were found by profiling, and by derivatives in float64. One of `REASONS` is about an
operation on a network, or about the operation on every network.
"""

from __future__ import annotations

from collections.abc import Mapping

EVERYWHERE = ""

REASONS: Mapping[tuple[str, str], str] = {}


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


def reason(network: str, operation: str) -> str:
    """Returns the sentence for an operation on a network, "" where there is none."""
    return REASONS.get((network, operation), REASONS.get((EVERYWHERE, operation), ""))

"""Why ours is slower than a peer somewhere: sentences found by profiling, beside what they explain.

A sentence is about an operation on a network, or about the operation on every network.
"""

from __future__ import annotations

from collections.abc import Mapping

EVERYWHERE = ""

REASONS: Mapping[tuple[str, str], str] = {}


def reason(network: str, operation: str) -> str:
    """Returns the sentence for an operation on a network, "" where there is none."""
    return REASONS.get((network, operation), REASONS.get((EVERYWHERE, operation), ""))

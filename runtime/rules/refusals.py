"""How a damping follows refused steps: up ever faster, and back as fast."""

from __future__ import annotations

import math

LEAST, MOST = 1e-8, 1e30  # what grows where a damping is 0, and where growth ends
DOUBLINGS = 6  # of the exponent of growth


def grown(
    damping: float, raised: float, base: float, refused: int, least: float = 0.0
) -> tuple[float, float]:
    """Returns a damping after a refusal, b^(2^(n−1)) times as large at the n-th in a row.

    Args:
        damping: what it was.
        raised: the factor by which earlier refusals have raised it, 1.0 for none.
        base: b > 1.
        refused: n ≥ 1.
        least: what it has to be at least.

    Returns:
        the damping, and the factor by which all refusals have raised it.

    Examples:
        >>> from newtriton.runtime.rules.refusals import grown, shrunk
        >>> damping, raised = 1.0, 1.0
        >>> for refused in (1, 2, 3):
        ...     damping, raised = grown(damping, raised, 4.0, refused)
        >>> damping, raised, shrunk(damping, raised, 4.0)
        (16384.0, 16384.0, (128.0, 128.0))
    """
    start = min(max(damping, LEAST), MOST)
    factor = max(base**2 ** min(refused - 1, DOUBLINGS), least / start)
    factor = min(factor, MOST / start)
    return start * factor, raised * factor


def shrunk(damping: float, raised: float, base: float) -> tuple[float, float]:
    """Returns a damping after a good step, and the factor by which it is still raised.

    Half of what refusals did is taken back, on a log scale, and all where less than b would remain.
    """
    left = math.sqrt(raised)
    left = left if left >= base else 1.0
    return damping / (raised / left), left

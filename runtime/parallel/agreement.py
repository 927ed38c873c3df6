"""What all ranks must have alike before they train together: compared once, by digests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch

from ...compiler.graph.errors import NewtritonError
from .ranks import Ranks

BITS = 63  # of a digest, which int64 holds


def digest(*parts: bytes | str) -> int:
    """Returns a number that follows from some text or bytes."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part)
        found.update(b"\0")
    return int.from_bytes(found.digest()[:8], "big") >> (64 - BITS)


def check_alike(ranks: Ranks, facts: Mapping[str, int]) -> None:
    """Raises the same error on all ranks where they differ in something.

    Args:
        ranks: the ranks.
        facts: digests by what they are of, in the same order on all ranks.

    Raises:
        NewtritonError: names what differs, and on which rank.
    """
    if ranks.alone:
        return
    found = ranks.gather(torch.tensor([*facts.values()], device=ranks.device)).tolist()
    for what, *digests in zip(facts, *found, strict=True):
        other = next((rank for rank, value in enumerate(digests) if value != digests[0]), None)
        if other is not None:
            raise NewtritonError(
                f"rank {other} has another {what} than rank 0: start all ranks with the same "
                "program, options, seed and state"
            )

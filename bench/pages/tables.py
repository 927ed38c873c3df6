"""All tables that pages may have, by name: a function of files of results each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import beside, claims, counted, front, planned, signatures, trained

TABLES: dict[str, Callable[..., Iterator[str]]] = {
    **beside.TABLES,
    "front": front.front,
    **trained.TABLES,
    **counted.TABLES,
    **planned.TABLES,
    **claims.TABLES,
    **signatures.TABLES,
}

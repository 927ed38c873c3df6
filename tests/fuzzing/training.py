"""Good calls of what trains a network."""

from __future__ import annotations

from .calls import Maker

TRAINING: dict[str, Maker] = {}

"""What a linearization rests on, and whether it has changed since."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor


class Watch:
    """Notes tensors on which a linearization rests, and finds those that have changed since.

    Args:
        tensors: the tensors with what they are.
    """

    def __init__(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        # Tensors of inference mode do not tell when they change.
        self._seen = [(name, t, t._version) for name, t in tensors if not t.is_inference()]

    def changed(self) -> list[str]:
        """Returns what has changed in place."""
        return [name for name, tensor, version in self._seen if tensor._version != version]


def own(x: Any) -> Any:
    """Returns a tensor of inference mode as a copy: it does not tell when it is changed."""
    return x.clone() if isinstance(x, Tensor) and x.is_inference() else x

"""A state of which ranks have parts, put together on the first of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .ranks import Ranks

Path = tuple[Any, ...]  # the keys on the way to a tensor in nested mappings


def completed(ranks: Ranks, state: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Returns a state, on the first rank with the tensors that others alone have.

    Args:
        ranks: the ranks, which all call it.
        state: nested mappings with tensors in them; a tensor that several ranks have is the same.
        device: where the tensors of others are to lie.

    Examples:
        >>> import torch
        >>> from newtriton.runtime.parallel.ranks import Ranks
        >>> completed(Ranks(None), {"counts": {"steps": 3}}, torch.device("cpu"))
        {'counts': {'steps': 3}}
    """
    own, result = dict(_tensors(state)), _nested(state)
    listed = _told(ranks, [[path, str(x.dtype), x.shape] for path, x in own.items()])
    known = {tuple(path) for path, *_ in listed[0]}
    for rank, entries in enumerate(listed):
        for keys, dtype, shape in entries:
            path = tuple(keys)
            if path in known:
                continue
            known.add(path)
            kind = {"dtype": getattr(torch, dtype.removeprefix("torch.")), "device": device}
            x = own[path] if rank == ranks.rank else torch.empty(shape, **kind)
            ranks.give([*[[]] * rank, [x]])
            if ranks.rank == 0:
                _put(result, path, x)
    return result


def _tensors(state: Mapping[Any, Any], path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Yields the tensors of nested mappings with the ways to them."""
    for key, value in state.items():
        if isinstance(value, Mapping):
            yield from _tensors(value, (*path, key))
        elif isinstance(value, Tensor):
            yield (*path, key), value


def _nested(value: Any) -> Any:
    """Returns nested mappings as dictionaries of their own."""
    return {k: _nested(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def _put(state: dict[Any, Any], path: Path, tensor: Tensor) -> None:
    """Puts a tensor into nested dictionaries, which are made on the way."""
    *before, last = path
    for key in before:
        state = state.setdefault(key, {})
    state[last] = tensor


def _told(ranks: Ranks, what: Any) -> list[Any]:
    """Returns what each rank says, as JSON."""
    said = torch.frombuffer(bytearray(json.dumps(what).encode()), dtype=torch.uint8)
    sizes = ranks.gather(torch.tensor([len(said)])).flatten().tolist()
    padded = torch.zeros(max(sizes), dtype=torch.uint8)
    padded[: len(said)] = said
    rows = zip(ranks.gather(padded), sizes, strict=True)
    return [json.loads(bytes(row[:size].tolist())) for row, size in rows]

"""What data may draw their order and their augmentation from, to be saved and set back."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from operator import length_hint
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.language.trees import Tree, named

Mark = tuple[str, ...]  # sums as text, in which NaN equals NaN


class Source(NamedTuple):
    """Something that data may draw from.

    Attributes:
        get: returns its state.
        set: restores a state.
    """

    get: Callable[[], Any]
    set: Callable[[Any], Any]


def sources(data: Any) -> dict[str, Source]:
    """Returns what the data may draw from: the global generators, and what is their own."""
    cuda = Source(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all)
    return {
        **({"cuda": cuda} if torch.cuda.is_initialized() else {}),
        "torch": Source(torch.get_rng_state, torch.set_rng_state),
        "python": Source(random.getstate, random.setstate),
        "numpy": Source(np.random.get_state, np.random.set_state),
        **own_sources(data),
    }


def set_back(data: Any, states: Mapping[str, Any]) -> None:
    """Sets what the data may draw from to saved states; what has none is left as it is."""
    for name, source in sources(data).items():
        if name in states:
            source.set(states[name])


def own_sources(data: Any) -> dict[str, Source]:
    """Returns those of them that belong to the data, where a new pass begins."""
    found: dict[str, Source] = {}
    if is_stateful(data):
        found["data"] = Source(getattr(data, "coming", data.state_dict), data.load_state_dict)
    loader = getattr(data, "batch_sampler", None)
    holders = [data, getattr(data, "sampler", None), loader, getattr(loader, "sampler", None)]
    for generator in dict.fromkeys(getattr(holder, "generator", None) for holder in holders):
        if isinstance(generator, torch.Generator):
            found[f"generator{len(found)}"] = Source(generator.get_state, generator.set_state)
    return found


def length_of(what: str, data: Any) -> int | None:
    """Returns how many there are, or are said to be left; None where nothing says so.

    Raises:
        NewtritonError: the length fails otherwise than where there is none, with a TypeError.
    """
    try:
        length = length_hint(data, -1)
    except Exception as error:  # of a user's own class
        raise NewtritonError(
            f"{what} are {quoted(data)}, whose length fails with {type(error).__name__}: {error}; "
            "give it no __len__ where the length is not known"
        ) from error
    return None if length < 0 else length


def mark_of(x: Tree, y: Tensor) -> Mark:
    """Returns what tells a batch from others: how many samples it has, and sums over them."""
    sums = [float(part.sum(dtype=torch.float64)) for part in named(x).values()]
    weights = torch.arange(1, len(y) + 1, dtype=torch.float64, device=y.device)
    order = float((y.double().unsqueeze(-1).flatten(1).sum(1) * weights).sum())
    return tuple(number.hex() for number in (float(len(y)), *sums, order))


def is_stateful(data: Any) -> bool:
    """Whether data save where they are and go on from there, as `Batches` do."""
    return hasattr(data, "state_dict") and hasattr(data, "load_state_dict")


def not_restored(data: Any) -> str | None:
    """Returns what of data cannot be restored in the middle of an epoch, None for nothing known."""
    if is_stateful(data) or isinstance(data, (list, tuple)):
        return None
    if getattr(data, "persistent_workers", False):
        return "what persistent workers draw from"
    if isinstance(getattr(data, "dataset", None), torch.utils.data.IterableDataset):
        return "what an IterableDataset keeps to itself"
    if not isinstance(data, torch.utils.data.DataLoader):
        return f"what a {type(data).__name__} draws from but the global generators"
    return None

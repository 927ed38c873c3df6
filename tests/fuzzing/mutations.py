"""A good call, spoiled in one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from random import Random
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from .calls import Call
from .values import Spoiled, kinds, spoiled


class Mutation(NamedTuple):
    """A call with something wrong in it.

    Attributes:
        args: the positional arguments.
        options: those by name.
        argument: the argument that is wrong; "" where the call is, as a whole.
        phrase: what is wrong.
        value: what stands in place of a good value.
        outcome: what has to come of it, as in `values.py`.
        around: makes what stands around the call.
    """

    args: tuple[Any, ...]
    options: dict[str, Any]
    argument: str
    phrase: str
    value: Any
    outcome: str
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


@contextmanager
def _default_dtype() -> Iterator[None]:
    """Another default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


AROUND: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "another default device": lambda: torch.device("meta"),
    "another default dtype": _default_dtype,
    "a count of operators": lambda: FlopCounterMode(display=False),
    "saved tensors on the host": torch.autograd.graph.save_on_cpu,
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
}


def mutated(rng: Random, call: Call) -> Mutation:
    """Returns a call with something wrong in it."""
    args, options = tuple(call.args), dict(call.options)
    names = _names(call)
    places: list[int | str] = [*range(len(args)), *options, *_left_out(call, names)]
    share = rng.random()
    if share < 0.8 and places:
        return _replaced(rng, call, names, rng.choice(places))
    if share < 0.87:
        around = rng.choice(list(AROUND))
        return Mutation(args, options, "", f"{around} around", None, "same", AROUND[around])
    kind = rng.choice(["unknown", "missing", "surplus", "swapped"])
    if kind == "missing" and len(args) + len(options):
        place = rng.choice([*range(len(args)), *options])
        name = place if isinstance(place, str) else names[place]
        rest = {key: value for key, value in options.items() if key != place}
        kept = args if isinstance(place, str) else (*args[:place], *args[place + 1 :])
        return Mutation(kept, rest, "", f"no {name}", None, "any")
    if kind == "surplus":
        more = (*args, *(kinds(rng).value for _ in range(rng.randint(1, 12))))
        return Mutation(more, options, "", "arguments more", None, "any")
    if kind == "swapped" and len(args) > 1:
        i, j = sorted(rng.sample(range(len(args)), 2))
        other = (*args[:i], args[j], *args[i + 1 : j], args[i], *args[j + 1 :])
        return Mutation(other, options, "", f"arguments {i} and {j} swapped", None, "any")
    name = rng.choice(["nonsense", "lr", "in_features", "self", "x", "név", "Device"])
    name = f"{name}_" if name in names or name in options else name
    options[name] = kinds(rng).value
    return Mutation(args, options, "", f"unknown {name}", None, "any")


def _replaced(rng: Random, call: Call, names: list[str], place: int | str) -> Mutation:
    """Returns the call with another value in one place."""
    args, options = tuple(call.args), dict(call.options)
    if isinstance(place, int):
        name = names[place]
        found = spoiled(rng, name, args[place])
        args = (*args[:place], found.value, *args[place + 1 :])
    else:
        name, default = place, _default(call, place)
        good = options.get(place, default)
        found = Spoiled(*spoiled(rng, name, good))
        options[name] = found.value
    taken = any(
        argument in ("", name) and found.phrase.startswith(phrase)
        for argument, phrase in call.taken
    )
    outcome = "any" if taken and found.outcome == "refused" else found.outcome
    return Mutation(args, options, name, found.phrase, found.value, outcome)


def _parameters(call: Call) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(call.function).parameters.values())
    except (TypeError, ValueError):
        return []


def _names(call: Call) -> list[str]:
    """Returns the names of the positional arguments."""
    found = list[str]()
    for parameter in _parameters(call):
        if parameter.kind is parameter.VAR_POSITIONAL:
            found += [parameter.name] * len(call.args)
        elif parameter.kind is not parameter.KEYWORD_ONLY:
            found.append(parameter.name)
    return (found + [str(i) for i in range(len(found), len(call.args))])[: len(call.args)]


def _left_out(call: Call, names: list[str]) -> list[str]:
    """Returns the arguments that the good call leaves at their defaults."""
    several = any(p.kind is p.VAR_POSITIONAL for p in _parameters(call)) and call.args
    wanted = [inspect.Parameter.KEYWORD_ONLY]
    wanted += [] if several else [inspect.Parameter.POSITIONAL_OR_KEYWORD]
    found = [p.name for p in _parameters(call) if p.kind in wanted]
    return [name for name in found if name not in names and name not in call.options]


def _default(call: Call, name: str) -> Any:
    for parameter in _parameters(call):
        if parameter.name == name:
            return parameter.default
    return None

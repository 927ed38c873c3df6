"""Trials: a bad call is made, and what became of it is looked at.

A trial ends well where the call did what is documented, or raised one clear `NewtritonError` and
left everything as it was: the good call then gives, bit for bit, what it gives of an object that
never saw the bad one.
"""

from __future__ import annotations

import os
import resource
import signal
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

import newtriton as nt
from newtriton.runtime.capacity import VARIABLE

from .calls import Call, Maker
from .describing import DESCRIBING, FUSED
from .mutations import Mutation, mutated
from .training import TRAINING

MEMORY = 6 << 30  # bytes that a call may take besides: nobody's machine is filled by a trial
SECONDS = 60  # after which a call hangs
LONGEST = 1200  # characters of one sentence or list

CALLABLES: dict[str, Maker] = {**DESCRIBING, **TRAINING}
MAKERS = {**CALLABLES, **{f"{name} on triton": make for name, make in FUSED.items()}}


def trial(seed: int, folder: Path) -> str:
    """Makes the seed-th bad call of all public callables; see `attempt`."""
    rng = Random(seed)
    name = rng.choice(sorted(CALLABLES))
    return attempt(name, rng.getrandbits(48), folder, f"trial({seed})")


def attempt(name: str, seed: int, folder: Path, of: str = "") -> str:
    """Makes a bad call in a folder and returns what became of it.

    Args:
        name: the public callable.
        seed: decides about the good call and how it is spoiled.
        folder: an empty folder.
        of: the call that repeats it.

    Raises:
        AssertionError: the call broke what is promised.
    """
    before = Path.cwd()
    os.chdir(folder)
    torch.manual_seed(0)
    free = {VARIABLE: str(1 << 34)}  # what `explain` says is free is not to change meanwhile
    try:
        with patch.dict(os.environ, free):
            return _attempted(name, seed, of or f"attempt({name!r}, {seed})")
    finally:
        os.chdir(before)


def _attempted(name: str, seed: int, of: str) -> str:
    rng, made = Random(seed), seed >> 8
    with _limited():
        try:
            expected = MAKERS[name](Random(made))()
        except nt.NewtritonError:  # of a network that has no such product, for example
            return "not offered"
    torch.manual_seed(0)
    call = MAKERS[name](Random(made))
    mutation = mutated(rng, call)
    said = f"{of}: {name} with {mutation.argument or 'a call'}: {mutation.phrase}"
    state, given = _frozen(_state(call)), _frozen([mutation.args, mutation.options])
    outcome, result = _made(call, mutation, said)
    assert not (outcome == "accepted" and mutation.outcome == "refused"), (
        f"{said}: accepted, gave {_short(result)}"
    )
    assert not (outcome == "refused" and mutation.outcome == "same"), (
        f"{said}: refused, although it means the same: {result}"
    )
    assert _frozen([mutation.args, mutation.options]) == given or not call.pure, (
        f"{said}: the arguments were changed"
    )
    if outcome == "refused" or call.pure:
        assert _frozen(_state(call)) == state, f"{said}: {outcome}, and the state has changed"
    if outcome == "accepted" and mutation.outcome == "same":
        assert _near(result, expected), (
            f"{said}: means the same, gave {_short(result)} instead of {_short(expected)}"
        )
    moderate = _finite(expected) and _finite(list(mutation.args))
    if outcome == "accepted" and moderate and not mutation.phrase.startswith(("1e+30", "-1e+38")):
        assert _finite(result), f"{said}: gave {_short(result)} without a word"
    torch.manual_seed(0)
    try:
        again = call()
    except nt.NewtritonError:
        assert outcome == "accepted" and not call.pure, f"{said}: the good call fails afterwards"
        return outcome
    if outcome == "refused" or call.pure:
        assert _frozen(again) == _frozen(expected), (
            f"{said}: {outcome}, then the good call gave {_short(again)} instead of "
            f"{_short(expected)}"
        )
    return outcome


def _made(call: Call, mutation: Mutation, said: str) -> tuple[str, Any]:
    """Makes the bad call; returns what became of it, and its result or error."""
    with warnings.catch_warnings(record=True) as heard, _limited():
        warnings.simplefilter("always")
        try:
            with mutation.around():
                result = call.function(*mutation.args, **mutation.options)
            result = call.use(result)
            outcome = "accepted"
        except nt.NewtritonError as error:
            _check_message(str(error), said)
            outcome, result = "refused", error
        except (MemoryError, torch.OutOfMemoryError) as error:
            outcome, result = "too large", error
        except RuntimeError as error:
            assert "can't allocate memory" in str(error), f"{said}: {_last(error)}"
            outcome, result = "too large", error
        except TypeError as error:
            assert _of_the_call(error), f"{said}: {_last(error)}"
            outcome, result = "refused", error
        except Exception as error:
            raise AssertionError(f"{said}: {_last(error)}") from error
    heard = [w for w in heard if w.category is not ResourceWarning]
    assert not heard, f"{said}: a warning from inside: {heard[0].message}"
    return outcome, result


def _check_message(text: str, said: str) -> None:
    """Raises an error where a message is not one readable sentence."""
    assert text.strip(), f"{said}: an error without a word"
    assert len(text) <= LONGEST, f"{said}: an error of {len(text)} characters: {text[:200]}…"
    odd = [c for c in text if not (c.isprintable() or c == "\n")]
    assert not odd, f"{said}: an error with unprintable characters: {text!r}"
    assert "\n" not in text, f"{said}: an error of several lines: {text!r}"
    assert " at 0x" not in text, f"{said}: an error with an address: {text!r}"


def _of_the_call(error: TypeError) -> bool:
    """Whether Python itself found that the arguments do not fit the signature."""
    frame = error.__traceback__.tb_next if error.__traceback__ else None
    said = ("unexpected keyword", "missing", "positional argument", "multiple values")
    return frame is None and any(phrase in str(error) for phrase in said)


def _last(error: BaseException) -> str:
    """Returns an error with the place where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    inside = [f for f in traceback.extract_tb(error.__traceback__) if "newtriton" in f.filename]
    inside += [f for f in traceback.extract_tb(error.__traceback__) if "/wt/" in f.filename]
    near = inside[-1] if inside else place
    try:
        text = str(error)
    except Exception:
        text = "…"
    return f"{type(error).__name__} at {near.filename}:{near.lineno}: {text[:300]}"


# --- limits ---------------------------------------------------------------------------------------


@contextmanager
def _limited() -> Iterator[None]:
    """Lets what is too large fail at once, and what hangs after a minute."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, hard))
    timed = threading.current_thread() is threading.main_thread()
    if timed:
        kept = signal.signal(signal.SIGALRM, _hangs)
        signal.setitimer(signal.ITIMER_REAL, SECONDS, 5.0)  # again where a callback swallows it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, kept)


class Hangs(BaseException):
    """A call did not come back."""


def _hangs(*signalled: Any) -> None:
    raise Hangs(f"the call did not end in {SECONDS} seconds")


# --- comparisons ----------------------------------------------------------------------------------


def _state(call: Call) -> Any:
    """Returns what a refused call leaves as it is: the object's, and PyTorch's own."""
    settings = [
        str(torch.get_default_dtype()),
        torch.is_grad_enabled(),
        str(torch.get_default_device()),
    ]
    return [call.state(), torch.get_rng_state(), settings]


def _frozen(value: Any) -> Any:
    """Returns a copy that compares bit for bit; objects of other kinds stand for themselves."""
    if isinstance(value, Tensor):
        return _bits(value)
    if isinstance(value, np.ndarray):
        return ("array", value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, dict):
        return ("dict", tuple((repr(k), _frozen(v)) for k, v in value.items()))
    if isinstance(value, (tuple, list)):
        return (type(value).__name__, tuple(map(_frozen, value)))
    if isinstance(value, (bool, int, float, str, bytes, type(None))):
        return (type(value).__name__, value.hex() if isinstance(value, float) else value)
    return (type(value).__name__, id(value))


def _bits(x: Tensor) -> Any:
    """Returns a tensor's kind and bits, as far as it has any."""
    kind = ("tensor", str(x.dtype), str(x.device), x.requires_grad)
    if x.is_nested or x.layout is not torch.strided or x.is_meta or x.numel() > 1 << 20:
        return (*kind, id(x))
    plain = x.detach().as_subclass(Tensor).resolve_conj().resolve_neg()
    return (*kind, tuple(x.shape), plain.contiguous().view(-1).view(torch.uint8).numpy().tobytes())


def _near(found: Any, expected: Any) -> bool:
    """Whether results agree up to rounding."""
    if isinstance(expected, Tensor):
        return (
            isinstance(found, Tensor)
            and found.shape == expected.shape
            and torch.allclose(found.double(), expected.double(), 1e-4, 1e-5, equal_nan=True)
        )
    if isinstance(expected, Mapping):
        return found.keys() == expected.keys() and all(_near(found[k], expected[k]) for k in found)
    if isinstance(expected, (tuple, list)):
        pairs = zip(found, expected, strict=False)
        return len(found) == len(expected) and all(_near(a, b) for a, b in pairs)
    if isinstance(expected, float):
        return bool(np.isclose(found, expected, 1e-4, 1e-5, equal_nan=True))
    return True


def _finite(value: Any) -> bool:
    """Whether all numbers of a result are finite."""
    if isinstance(value, Tensor):
        if value.is_nested or value.layout is not torch.strided or value.is_meta:
            return True
        return value.numel() > 1 << 20 or bool(torch.isfinite(value).all())
    if isinstance(value, Mapping) and isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, (tuple, list)):
        return all(map(_finite, value))
    return not isinstance(value, float) or bool(np.isfinite(value))


def _short(value: Any) -> str:
    try:
        text = " ".join(repr(value).split())
    except Exception:
        return f"<{type(value).__name__}>"
    return text if len(text) < 160 else f"{text[:160]}…"

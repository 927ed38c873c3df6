"""All sides by name: what each offers, and what it says where it does not take a network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from . import autograd, ours, with_backpack, with_curvlinops, with_jax
from .problem import Call, Problem, Side


@dataclass(frozen=True)
class Peer:
    """A side, and the operations that it has a call for.

    Attributes:
        calls: yields its calls.
        operations: those that it offers.
        providers: who does them, as rows name them; the first one says why there is no call.
    """

    calls: Side
    operations: tuple[str, ...]
    providers: tuple[str, ...]


MATRIX_FREE = ("hvp", "ggnvp", "form", "forms")
FACTORS = ("kfac", "ekfac", "inverse")

SIDES: Mapping[str, Peer] = {
    "newtriton": Peer(
        ours.calls, ("gradient", *MATRIX_FREE, *FACTORS, "step"), (ours.NAME, *ours.STEPS)
    ),
    "reverse": Peer(autograd.reverse_over_reverse, ("gradient", *MATRIX_FREE), (autograd.REVERSE,)),
    "forward": Peer(autograd.forward_over_reverse, MATRIX_FREE, (autograd.FORWARD, autograd.TWICE)),
    "compile": Peer(autograd.compiled, ("gradient", "hvp", "ggnvp"), (autograd.COMPILED,)),
    "backpack": Peer(with_backpack.calls, ("hvp", "ggnvp", "kfac"), (with_backpack.NAME,)),
    "curvlinops": Peer(with_curvlinops.calls, (*MATRIX_FREE, *FACTORS), (with_curvlinops.NAME,)),
    "kfac-jax": Peer(
        with_jax.calls,
        ("gradient", *MATRIX_FREE, "kfac", "inverse", "step"),
        (with_jax.NAME, with_jax.JAX),
    ),
    "optim": Peer(autograd.optimizers, ("step",), autograd.STEPS),
}

PACKAGES: Mapping[str, str] = {
    "backpack": "backpack-for-pytorch",
    "curvlinops": "curvlinops-for-pytorch",
}


def versions(names: Collection[str]) -> dict[str, str]:
    """Returns the versions of the libraries that sides need, of those that are installed."""
    found = dict[str, str]()
    for name in names:
        with suppress(PackageNotFoundError):
            if name in PACKAGES:
                found[SIDES[name].providers[0]] = version(PACKAGES[name])
        if name == "kfac-jax":
            found |= with_jax.versions()
    return found


ABSENT = "is not installed"


def clause(error: BaseException) -> str:
    """Returns what an exception says, in one clause."""
    if isinstance(error, ModuleNotFoundError):
        return f"{ABSENT}: {error}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join((lines or [""])[0].split())
    return f"{type(error).__name__}: {text[:200]}".rstrip(": ")


def offered(
    problem: Problem, names: Collection[str], wanted: Collection[str]
) -> tuple[list[Call], list[tuple[str, str, str]]]:
    """Returns the calls of sides, and (provider, operation, why) of those that fail to be made."""
    calls, refused = list[Call](), list[tuple[str, str, str]]()
    for name in names:
        peer = SIDES[name]
        here = [operation for operation in peer.operations if operation in wanted]
        try:
            calls += peer.calls(problem, here) if here else []
        except Exception as error:  # whatever a library says of a network
            refused += [(peer.providers[0], operation, clause(error)) for operation in here]
    return calls, refused

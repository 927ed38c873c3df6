"""Rehearses launches in a process that does not interpret kernels, and prints what happened."""

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import torch

import newtriton as nt
from newtriton.bench.host import Addresses
from newtriton.runtime.checking.rehearsal import Rehearsal, rehearsed
from newtriton.runtime.fused import codecache

HELPERS = ("tanh", "softplus", "positive_part", "round_tf32", "add_all", "add_rows")


def odd() -> nt.Sequential:
    """Parameters of odd size, so that hardly any lies at a multiple of 16 bytes."""
    return nt.Sequential(
        *(nt.Conv2d(5, 3), nt.SiLU(), nt.Conv2d(7, 3), nt.Tanh(), nt.Flatten()),
        *(nt.Linear(10), nt.SiLU(), nt.Linear(3)),
    )


def calls(model: nt.Model, x: torch.Tensor, y: torch.Tensor, vs: torch.Tensor) -> None:
    """All programs of a network."""
    lin = model.linearize(x, y)
    for v in vs:
        lin.hvp(v), lin.ggnvp(v), lin.quadratic_forms([v]), lin.block_ggnvp(v)
        model.vectors.combination(torch.ones(2).numpy(), [v, model.params])
    for kind in lin.programs.kinds:
        lin.kronecker_factors(kind)
    model.objective(x, y), model.gradient(x, y), model(x), model.classes(x)
    model.vectors.gram([vs[0], lin.gradient])


def rehearse(precision: str) -> dict[str, object]:
    """Calls programs with memory at every alignment, after kernels have been loaded."""
    with rehearsed() as found:
        model = found.model(odd(), (3, 10, 10), nt.CrossEntropyLoss(), precision)
        images, labels = torch.randn(20, 3, 10, 10), torch.randint(0, 3, (20,))
        many = torch.randn(3, model.params.numel())  # an odd number, so rows lie anywhere
        calls(model, images[:5], labels[:5], many[:1])
        first, addresses = set(found.loaded), Addresses()
        for start in range(5, 16):
            with addresses.again():
                calls(model, images[start : start + 5], labels[start : start + 5], many)
        return {
            "parameters": model.params.numel(),
            "ahead": len(found.ahead),
            "not ahead": sorted(first - found.ahead),
            "late": sorted(found.loaded - first),
            "faults": found.faults,
            "launches": found.launches,
            "recordings": found.recordings,
            "replays": found.replays,
        }


def step(preset: str) -> dict[str, object]:
    """Makes two steps. No kernel computes anything: all results are 0."""
    empty, like = torch.empty, torch.empty_like
    zeros = patch.multiple(
        torch,
        empty=lambda *size, **options: empty(*size, **options).zero_(),
        empty_like=lambda *tensor, **options: like(*tensor, **options).zero_(),
    )
    with rehearsed() as found, zeros:
        model = found.model(odd(), (3, 10, 10), nt.CrossEntropyLoss(), "tf32")
        optimizer = getattr(nt, preset)(model)
        for _ in range(2):
            optimizer.step(torch.randn(5, 3, 10, 10), torch.arange(5) % 3)
    return {"pools": found.pools, "faults": found.faults, "launches": found.launches}


def contractions(found: Rehearsal) -> set[str]:
    """The keys of a network's contractions, whose slots call helpers."""
    net = nt.Sequential(nt.Conv2d(16, 3), nt.Tanh(), nt.Conv2d(16, 3), nt.Tanh(), nt.Flatten())
    model = found.model(nt.Sequential(net, nt.Linear(10)), (16, 12, 12), nt.CrossEntropyLoss())
    model.gradient(torch.randn(8, 16, 12, 12), torch.randint(0, 10, (8,)))
    return {key for key in found.loaded if key.startswith("contraction")}


def edited() -> dict[str, int]:
    """By helper, how many contractions would be found in Triton's cache after it was edited."""
    folder = Path(str(codecache.kernels.__path__[0]))
    with rehearsed() as found:
        before, shared = contractions(found), {"nothing": 0}
    for helper in ("nothing", *HELPERS):
        with tempfile.TemporaryDirectory() as copy, rehearsed() as found:
            shutil.copytree(folder, copy, dirs_exist_ok=True)
            text = (Path(copy) / "functions.py").read_text()
            changed = re.sub(rf"(def {helper}\(.*)", r"\1  # edited", text)
            assert (changed == text) == (helper == "nothing")
            (Path(copy) / "functions.py").write_text(changed)
            codecache.kernels.__path__ = [copy]
            codecache.kernels_digest.cache_clear()
            shared[helper] = len(before & contractions(found))
            codecache.kernels.__path__ = [str(folder)]
            codecache.kernels_digest.cache_clear()
    return {"all": len(before), **shared}


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results: dict[str, object] = {precision: rehearse(precision) for precision in sys.argv[1:]}
    steps = {preset: step(preset) for preset in ("FITRE", "KFAC", "KFRA", "EACG")}
    print(json.dumps({**results, "edited": edited(), "steps": steps}))

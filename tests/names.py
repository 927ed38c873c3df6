"""Hostile names of inputs, modules, runs and pictures: they stay text, and stay in their folder."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import nn

import newtriton as nt

MARK = "hacked"  # the file that a name would make if it became code
TOUCH = f"open('{MARK}', 'w')"
NAMES = [
    f'"; {TOUCH}; "', f"'; {TOUCH}; '", f"\n{TOUCH}\n", f'"""\n{TOUCH}\n"""', f"{{{TOUCH}}}",
    f"$(touch {MARK})", f"`touch {MARK}`", f"__import__('os').system('touch {MARK}')",
    "../../outside", "..", ".", "/tmp/outside", "a/b", "a\\b", "C:\\x", "~", "-rf", "--output",
    "a\0b", "\udcff", "\u202egnp", "ｌａｙｅｒ", "а", "é", "é", "x" * 300, "\x1b[31m", "%s%n{0!r}",
    "<script>alert(1)</script>", "</svg>", "$x$", "$\\frac{", "_hidden", "class", "def", "None",
    "lambda", "params", "buffers", "self", "x", "y", "0", "weight", "bias", "training", "forward",
    "__class__", "__init__", "state", "optimizer", "__metadata__", "nul", "con", "a b", " ", "",
    "=", "#", "[set]",
]  # fmt: skip


def _name(rng: Random) -> str:
    """Returns a hostile name, or what some of them make together."""
    if rng.random() < 0.7:
        return rng.choice(NAMES)
    return "".join(rng.choice(NAMES) for _ in range(2))


def _inputs(rng: Random, name: str) -> str:
    """A dictionary of inputs."""
    other = _name(rng)
    shapes = {name: (3,), other: (2,)} if other != name else {name: (3,)}
    model = nt.compile(_Several(), shapes, nt.MSELoss(), backend="aten", device="cpu")
    x = {key: torch.ones(4, *shape) for key, shape in shapes.items()}
    _trained(model, x, torch.zeros(4, 2))
    return "inputs"


def _layers(rng: Random, name: str) -> str:
    """Layers that a layer of the user's calls by the names."""
    names = [*dict.fromkeys([name, _name(rng), f"{name}.0"])]
    model = nt.compile(_Named(names), (3,), nt.MSELoss(), backend="aten", device="cpu")
    kept = [n for n, _ in model.named_parameters()]
    assert len(kept) == 2 * len(names), f"clashing names: {kept}"
    _trained(model, torch.ones(4, 3), torch.zeros(4, 3))
    return "layers"


class _Named:
    """A layer of the user's whose parts have names of their own.

    Args:
        names: the names.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def build(self, x: Any, scope: Any) -> Any:
        for name in self.names:
            x = scope.build(name, nt.Sequential(nt.Linear(3)), x)
        return x


class _Several:
    """A layer of the user's, with a part for each input."""

    def build(self, x: Any, scope: Any) -> Any:
        parts = x.values() if isinstance(x, dict) else [x]
        made = [scope.build(f"part{i}", nt.Linear(2), part) for i, part in enumerate(parts)]
        return made[0] if len(made) == 1 else nt.ops.add(*made)


def _modules(rng: Random, name: str) -> str:
    """A module whose parts, and a parameter, have the names."""
    names = dict.fromkeys([name, _name(rng)])
    try:
        module = nn.Sequential(OrderedDict((n, nn.Linear(3, 3)) for n in names))
        module.register_parameter(_name(rng), nn.Parameter(torch.ones(2), False))
    except (KeyError, TypeError) as error:  # PyTorch has no such name
        raise nt.NewtritonError(str(error)) from error
    x, y = torch.ones(4, 3), torch.zeros(4, 3)
    model = nt.from_torch(module, x, nt.MSELoss())
    expected = module(x)
    assert torch.allclose(model(x), expected, atol=1e-6)
    _trained(model, x, y)
    return "modules"


def _trained(model: nt.Model, x: Any, y: torch.Tensor) -> None:
    """Trains a model in a run folder, and restores it from there."""
    optimizer = nt.FITRE(model, burn_in=1)
    nt.fit(model, optimizer, [(x, y)], epochs=2, progress=False, checkpoint="run")
    nt.fit(model, optimizer, [(x, y)], epochs=3, progress=False, checkpoint="run", resume="last")
    assert model.explain(4) and str(model) and str(optimizer)
    before = model.params.clone()
    model.load_state_dict(model.state_dict())
    assert torch.equal(model.params, before)


def _folders(rng: Random, name: str) -> str:
    """A run in a folder of the name; what leads out of a folder does so for whoever says it."""
    if {"..", "/"} & {name[:1], *name.split("/")} or "/" in name:
        return "left out"
    model = nt.compile(nt.Linear(2), (3,), nt.MSELoss(), backend="aten", device="cpu")
    data = [(torch.ones(4, 3), torch.zeros(4, 2))]
    optimizer = nt.TorchOptimizer(model, torch.optim.SGD, lr=0.1)
    nt.fit(model, optimizer, data, progress=False, checkpoint=Path("runs") / name)
    assert (Path("runs") / name / "weights.safetensors").exists()
    return "folders"


def _parameters(rng: Random, name: str) -> str:
    """A state with a parameter of the name."""
    model = nt.compile(nt.Linear(2), (3,), nt.MSELoss(), backend="aten", device="cpu")
    state = {**model.state_dict(), name: torch.zeros(2)}
    if name in model.state_dict():
        return "left out"
    model.load_state_dict(state)
    raise AssertionError("a parameter that there is not was taken")


def _pictures(rng: Random, name: str) -> str:
    """A picture whose legend has the name."""
    epoch = {"number": 1, "steps": 1, "seconds": 0.1, "loss": 0.5}
    history = nt.History.parsed(f'{{"epochs": [{_json(epoch)}], "steps": []}}')
    nt.plot_histories({name: history}, "picture.svg")
    text = Path("picture.svg").read_text(encoding="utf-8")
    assert "<script>" not in text.replace("<script></script>", "")
    return "pictures"


def _json(record: dict[str, Any]) -> str:
    return "{" + ", ".join(f'"{key}": {value}' for key, value in record.items()) + "}"


def _data(rng: Random, name: str) -> str:
    """A data set or a preprocessing of the name."""
    nt.load(name, "data") if rng.random() < 0.5 else nt.load("digits", preprocessing=name)
    raise AssertionError("data that there are not were given")


KINDS: list[Callable[[Random, str], str]] = [
    _inputs, _layers, _modules, _folders, _parameters, _pictures, _data,
]  # fmt: skip


def trial(seed: int, folder: Path) -> str:
    """Gives something a hostile name, in a folder of its own.

    Args:
        seed: decides what, and the name.
        folder: an empty folder.

    Returns:
        what was named, or "refused".
    """
    rng = Random(seed)
    inside = folder / "inside"
    inside.mkdir()
    before, named = Path.cwd(), _name(rng)
    what, said = rng.choice(KINDS), f"trial({seed}): {named!r}"
    os.chdir(inside)
    try:
        outcome = what(rng, named)
    except nt.NewtritonError as error:
        outcome = "refused"
        assert "\n" not in str(error) and str(error).isprintable(), f"{said}: {str(error)!r}"
    except Exception as error:
        raise AssertionError(f"{said}: {type(error).__name__}: {error}") from error
    finally:
        os.chdir(before)
    assert not [*folder.rglob(MARK)], f"{said}: the name has become code"
    assert [path.name for path in folder.iterdir()] == ["inside"], f"{said}: it left its folder"
    written = {path.name for path in inside.iterdir()}
    assert written <= {"run", "runs", "picture.svg"}, f"{said}: it wrote {written}"
    return outcome

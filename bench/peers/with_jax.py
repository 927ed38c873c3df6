"""JAX's and kfac-jax's side: a network is described, and a process that has JAX computes it.

The process may belong to another installation of Python, whose path NEWTRITON_JAX names: kfac-jax
needs versions of JAX that need not go with this one's libraries.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...compiler.graph.errors import NewtritonError
from .._measure import Elapsed
from .._modules import GPT, Block, Residual, ViT
from .problem import DAMPING, Call, Named, Problem

NAME, JAX = "kfac-jax", "JAX"
PYTHON = "NEWTRITON_JAX"
OWN_RULES = "its own rules for length, momentum and damping, and inverses every 5 steps"
Described = tuple[Any, ...]

PLAIN: Mapping[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.SiLU: "silu",
    nn.GELU: "gelu",
    nn.Flatten: "flatten",
}


def described(module: nn.Module, name: str = "") -> Described:
    """Returns a module as `apart.networks` reads it.

    Args:
        module: the module.
        name: its name in the network, "" for the whole.

    Raises:
        NewtritonError: there is no description of it.
    """

    def part(key: str) -> Described:
        return described(module.get_submodule(key), f"{name}.{key}" if name else key)

    if isinstance(module, nn.Sequential):
        return ("sequence", *(part(key) for key, _ in module.named_children()))
    if isinstance(module, nn.Linear):
        return "linear", name
    if isinstance(module, nn.Conv2d):
        return "conv", name, module.stride[0], module.padding[0]
    if isinstance(module, nn.MaxPool2d):
        return "maxpool", module.kernel_size
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return ("mean_over_positions",)
    if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
        kind = "batchnorm" if isinstance(module, nn.BatchNorm2d) else "layernorm"
        return kind, name, module.eps
    if isinstance(module, Residual):
        body = [part("conv1"), part("bn1"), ("relu",), part("conv2"), part("bn2")]
        return "sequence", ("residual", ("sequence", *body), part("shortcut")), ("relu",)
    if isinstance(module, Block):
        attention = module.attention
        kernel = "attention", attention.heads, attention.causal
        mixing = "sequence", part("norm1"), part("attention.qkv"), kernel, part("attention.out")
        pointwise = "sequence", part("norm2"), part("mlp")
        return "sequence", *(("residual", body, ("sequence",)) for body in (mixing, pointwise))
    if isinstance(module, GPT):
        end = "scores_of_words", "words"
        return "sequence", ("words", "words", "places"), part("blocks"), part("norm"), end
    if isinstance(module, ViT):
        start = ("patches", "patches", module.patches.stride[0]), ("token", "token", "places")
        return "sequence", *start, part("blocks"), part("norm"), ("first_position",), part("head")
    if type(module) in PLAIN:
        return (PLAIN[type(module)],)
    raise NewtritonError(f"{type(module).__name__} has no description for JAX: add one")


class Worker:
    """A process that has JAX: it gets a problem, and then makes calls by their names.

    Between its calls it is stopped: its threads would go on waiting for work, and halve the pace of
    the sides that take their turns here.
    """

    def __init__(self) -> None:
        python = os.environ.get(PYTHON, sys.executable)
        # At the end of the path, where it hides no module of that installation.
        code = f"import sys; sys.path.append({str(Path(__file__).parent)!r})\n"
        code += "from apart.worker import main; main()"
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "JAX_PLATFORMS": "cpu"}
        command = [python, "-c", code, str(torch.get_num_threads())]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def ask(self, *message: Any) -> Any:
        """Returns the answer to a message.

        Raises:
            ModuleNotFoundError: JAX or kfac-jax is not installed there.
            RuntimeError: the call fails there; the text says why.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        self._signal("SIGCONT")
        try:
            pickle.dump(message, stdin)
            stdin.flush()
            good, answer = pickle.load(stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise RuntimeError("its process has ended") from error
        finally:
            self._signal("SIGSTOP")
        if good:
            return answer
        kind, text = answer
        raise ModuleNotFoundError(text) if kind == "ModuleNotFoundError" else RuntimeError(text)

    def _signal(self, name: str) -> None:
        """Sends a signal, where the system has it."""
        if number := getattr(signal, name, None):
            self.process.send_signal(number)

    def end(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()


@cache
def shared() -> Worker:
    """Returns the process that makes calls which are timed."""
    return Worker()


def versions() -> dict[str, str]:
    """Returns the versions of JAX and kfac-jax, of none where they are not installed."""
    try:
        return shared().ask("versions", None)
    except (ModuleNotFoundError, RuntimeError):
        return {}


def message(problem: Problem) -> dict[str, Any]:
    """Returns a problem in JAX's order of axes, in NumPy's arrays."""
    x = problem.x
    images = x.permute(0, 2, 3, 1) if x.ndim == 4 else x

    def vector(named: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        return {name: there(problem, name, t.detach()) for name, t in named.items()}

    return {
        "described": described(problem.net),
        "params": vector(dict(problem.net.named_parameters())),
        "x": images.contiguous().numpy(),
        "y": problem.y.numpy(),
        **{name: vector(getattr(problem, name)) for name in ("u", "v", "w")},
        "damping": DAMPING,
    }


def there(problem: Problem, name: str, t: Tensor) -> np.ndarray:
    """Returns a parameter in JAX's order of axes."""
    if t.ndim == 4:
        t = t.permute(2, 3, 1, 0)
    elif t.ndim == 2 and name.removesuffix(".weight") in problem.layers:
        t = t.mT
    return t.contiguous().numpy()


def here(problem: Problem, name: str, array: np.ndarray) -> Tensor:
    """Returns a parameter in PyTorch's order of axes."""
    t = torch.from_numpy(np.array(array))
    if t.ndim == 4:
        return t.permute(3, 2, 0, 1)
    transposed = t.ndim == 2 and name.removesuffix(".weight") in problem.layers
    return t.mT if transposed else t


MASKED = "positions whose adjoints are all zero are left out of A, as most are in the last block"
FACTORS = "kfac", "inverse"


def calls(problem: Problem, wanted: Collection[str]) -> Iterator[Call]:
    """Yields the calls: kfac-jax's where it has one, else JAX's."""
    worker = shared()
    worker.ask("take", message(problem))
    masks = any(isinstance(m, ViT) for m in problem.net.modules())  # the head reads one position
    bends = any(isinstance(m, (nn.ReLU, Residual)) for m in problem.net.modules())
    for operation in wanted:
        otherwise = OWN_RULES if operation == "step" else ""
        otherwise = MASKED if masks and operation in FACTORS else otherwise
        own = operation in ("ggnvp", "kfac", "inverse", "step")
        yield Call(
            NAME if own else JAX,
            operation,
            run=lambda operation=operation: Elapsed(worker.ask("run", operation)),
            numbers=partial(_numbers, problem, worker, operation),
            differs=otherwise,
            comparable=otherwise != MASKED,
            kinks=bends,
            compiles=True,
            peak=partial(_peak, problem, operation),
        )


def _numbers(problem: Problem, worker: Worker, operation: str) -> Named:
    """Returns what an operation computes, in PyTorch's order of axes."""
    found = worker.ask("numbers", operation)
    if operation in FACTORS:
        found = {name: found[name] for name in problem.kronecker}
    return {name: here(problem, name, array) for name, array in found.items()}


def _peak(problem: Problem, operation: str) -> int:
    """Returns the most bytes that a call takes once it is compiled, in a process of its own."""
    worker = Worker()
    try:
        worker.ask("take", message(problem))
        return worker.ask("peak", operation)
    finally:
        worker.end()

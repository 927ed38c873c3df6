"""PyTorch's own switches: what a caller has set of them changes no result of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ...compiler.graph.locks import PROCESS


@contextmanager
def switches(device: torch.device, tf32: bool = False) -> Iterator[None]:
    """Sets PyTorch's switches for what is computed on a device inside the `with`.

    Autocast is off; on a GPU float32 products are exact, or in tf32, and cuDNN's algorithms are
    those that repeat bit for bit. Behind it all switches are as if nobody had touched them.

    Args:
        device: where products are computed.
        tf32: whether those of a GPU may be taken in tf32.
    """
    kind = "cpu" if device.type == "meta" else device.type  # on meta tensors nothing is computed
    if kind == "cpu" and not torch.is_autocast_enabled("cpu"):
        yield  # nothing is to be set: programs are entered often
        return
    with torch.autocast(kind, enabled=False), ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(PROCESS)  # other threads have the same switches, but for autocast
            set_precision(stack, "tf32" if tf32 else "ieee")
            set_repeatable(stack)
        yield


def set_precision(stack: ExitStack, precision: str) -> None:
    """Sets the precision of a GPU's float32 products, to be put back when the stack is closed.

    PyTorch shows what holds at a level, not whether it was set there or follows the level above.
    So levels are set from above: one that does not follow was set itself, to what it shows, which
    can be put back. The older switches, `allow_tf32` and `set_float32_matmul_precision`, stay as
    they are: operators read the newer ones alone (aten/src/ATen/cuda/CublasHandlePool.cpp).

    Args:
        stack: what puts the switches back.
        precision: "ieee" or "tf32".
    """
    backends: Any = torch.backends
    gpu = backends.cudnn  # its own `fp32_precision` is that of all libraries of a GPU
    levels = [gpu, gpu.conv, backends.cuda.matmul]
    if gpu.fp32_precision == backends.fp32_precision != "none":  # it may follow
        levels.insert(0, backends)
    for level in levels:
        _set(stack, level, "fp32_precision", precision)


def set_repeatable(stack: ExitStack) -> None:
    """Asks cuDNN for algorithms that repeat bit for bit, chosen without measuring."""
    _set(stack, torch.backends.cudnn, "deterministic", True)
    _set(stack, torch.backends.cudnn, "benchmark", False)


def _set(stack: ExitStack, switch: Any, name: str, value: object) -> None:
    """Sets a switch unless it is set, to be put back when the stack is closed."""
    before = getattr(switch, name)
    if before != value:
        stack.callback(setattr, switch, name, before)
        setattr(switch, name, value)

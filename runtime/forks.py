"""Forked processes: what of PyTorch does not survive the fork, and what is done about it.

OpenMP's threads are gone in a forked process, and GNU's library waits for them without end
(gcc.gnu.org/bugzilla/show_bug.cgi?id=58378); a GPU cannot be used there if the parent has used one.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass

import torch

from ..compiler.graph.errors import NewtritonError


@dataclass
class _Lost:
    """What this process or one above it had when it was forked.

    Attributes:
        threads: whether there were other threads.
        gpu: whether a GPU had been used.
    """

    threads: bool = False
    gpu: bool = False


_before, _lost = _Lost(), _Lost()


def _look() -> None:
    try:
        _before.threads = len(os.listdir("/proc/self/task")) > 1
    except OSError:
        _before.threads = True  # who knows
    _before.gpu = torch.cuda.is_initialized()


def _lose() -> None:
    _lost.threads |= _before.threads
    _lost.gpu |= _before.gpu


os.register_at_fork(before=_look, after_in_child=_lose)


def check_process(device: torch.device) -> None:
    """Makes sure that this process can compute on a device: a forked one does so in one thread.

    Raises:
        NewtritonError: it is a forked one, and the device a GPU.
    """
    if device.type == "cpu":
        if _lost.threads and torch.get_num_threads() > 1:
            torch.set_num_threads(1)
            warnings.warn(
                "this process was forked from one with threads, and computes in one: start "
                "processes by the method 'spawn' to have more",
                stacklevel=3,
            )
    elif _lost.gpu:
        raise NewtritonError(
            "this process was forked from one that had used a GPU, and cannot use it: start "
            "processes by the method 'spawn', models can be sent there"
        )

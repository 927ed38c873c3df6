"""Why PyTorch could not trace a module, in one sentence, and where in the user's code."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..graph.errors import NewtritonError, one_line
from .calls import NO_RECURRENT, PYTORCH

NOT_THEIRS = (PYTORCH, str(Path(__file__).parent))  # where no line is the user's
REASON = 300  # characters of what PyTorch says


def sentence(module: nn.Module, error: Exception, run: Callable[[], object]) -> str:
    """Returns why a module cannot be traced, and where.

    Args:
        module: the module.
        error: what its trace raised.
        run: runs the module on the example; what that raises tells more than a trace does, which
            knows sizes by symbols.
    """
    text, name = str(error), type(module).__name__
    if isinstance(error, NewtritonError):
        return text
    recurrent = [path for path, part in module.named_modules() if isinstance(part, nn.RNNBase)]
    if recurrent:
        return f"{name} has {', '.join(recurrent) or 'one itself'}: {NO_RECURRENT}"
    place = re.search(r'File "([^"]*)", line (\d+), in (\S+)\n\s*(.*)', text)
    where = f" at {place[1]}:{place[2]}, `{place[4].strip()}`" if place else ""
    if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        return (
            f"{name} branches on values{where}: the graph is one for all values, "
            "use torch.where instead of if"
        )
    if "specialized" in text or "Constraints violated" in text:
        return (
            f"{name} takes the batch size for a number{where}: write x.size(0) or −1 for it, so "
            "that any batch can be taken"
        )
    try:
        run()
    except Exception as raised:  # whatever the user's code raises
        return f"{name} does not take the example: {_failed(module, raised)}"
    reason = text.strip().partition("\n")[0]
    return f"{name} cannot be exported{where}: {reason}"


def _failed(module: nn.Module, error: Exception) -> str:
    """Returns in which part of a module an error was raised, on what, and in which line."""
    paths = {id(part): path for path, part in module.named_modules()}
    part, given = module, []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        called = frame.f_locals
        if frame.f_code.co_name == "_call_impl" and id(called.get("self")) in paths:
            part, given = called["self"], [called.get("args"), called.get("kwargs")]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(NOT_THEIRS)]
    line = f" at {own[-1].filename}:{own[-1].lineno}, `{own[-1].line}`" if own else ""
    reason = one_line(f"{type(error).__name__}: {error}", REASON)
    path = paths[id(part)] or "forward"
    return f"{path} ({type(part).__name__}) got {_shapes(given)}{line}: {reason}"


def _shapes(given: Any) -> str:
    """Returns the sizes of the tensors in a structure."""
    tensors = [x for x in pytree.tree_leaves(given) if isinstance(x, Tensor)]
    return ", ".join("×".join(map(str, x.shape)) or "a number" for x in tensors) or "no tensor"

"""A call of an exported graph: its op and operands, and where in the user's code it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import torch
from torch._ops import OpOverload

PYTORCH = str(Path(torch.__file__).parent)
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
NO_RECURRENT = (
    "recurrent layers are not taken: use convolutions or attention, or unroll it in forward"
)


class Call(Protocol):
    """A node of an exported graph, as `torch.fx` has it.

    Attributes:
        name: its name.
        op: "placeholder", "call_function", "get_attr" or "output".
        target: what is called.
        args: the operands and options by position, other nodes among them.
        kwargs: those by name.
        meta: what PyTorch noted: the value without content, the module's path, the source line.
        all_input_nodes: the nodes among the operands.
        users: the calls that read the value.
    """

    name: str
    op: str
    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    meta: dict[str, Any]
    all_input_nodes: list[Any]
    users: Mapping[Any, None]


def is_call(value: object) -> TypeGuard[Call]:
    """Whether a value is a node of an exported graph."""
    return isinstance(value, torch.fx.Node)


def is_function(call: Call) -> bool:
    """Whether a node calls something."""
    return call.op == "call_function"


def name_of(call: Call) -> str:
    """Returns the name of a call's op without its overload: "add" for `aten.add.Tensor`."""
    if isinstance(call.target, OpOverload):
        return call.target._schema.name.removeprefix("aten::")
    return getattr(call.target, "__name__", str(call.target))


def given(call: Call) -> Iterator[Any]:
    """Yields a call's operands and options in the order of the op's schema, defaults among them."""
    for i, argument in enumerate(call.target._schema.arguments):
        if i < len(call.args):
            yield call.args[i]
        else:
            yield call.kwargs.get(argument.name, argument.default_value)


def place_of(call: Call) -> str:
    """The module's path and class, as layers of the language have them."""
    stack = [*(call.meta.get("nn_module_stack") or {}).values()]
    if not stack:
        return ""
    path, kind = stack[-1]
    kind = kind if isinstance(kind, str) else kind.__name__
    return f"{path or 'forward'} ({kind.rpartition('.')[2]})"


def source_of(call: Call) -> str:
    """The line of the user's code, or of PyTorch's where it calls for the user."""
    frames = re.findall(r'File "([^"]*)", line (\d+), in', call.meta.get("stack_trace") or "")
    own = [frame for frame in frames if not frame[0].startswith(PYTORCH)] or frames
    return f"{own[-1][0]}:{own[-1][1]}" if own else "a line that is not known"


def described(call: Call) -> str:
    """Names an op, the module it is called in, and the line."""
    return f"{call.target} in {place_of(call) or 'forward'}, {source_of(call)}"


def advice_on(call: Call) -> str:
    """Says what to do about an op that has no rule."""
    if name_of(call) in RECURRENT:
        return NO_RECURRENT
    if torch.Tag.nondeterministic_seeded in getattr(call.target, "tags", ()):
        return "random numbers are drawn by dropout alone: use torch.nn.Dropout"
    if name_of(call) in ("item", "_local_scalar_dense"):
        return "a value of a tensor becomes a number of Python: keep it a tensor"
    return "there is no rule for it: write it with other operations"

"""What is made of classes of torch.optim and their options, and what is said where nothing is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ...compiler.graph.calls import names_of, signature_of, takes_any, unknown
from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.options import check_flag, check_number
from ...compiler.graph.tensors import fault_of


def check_options(
    owner: type, cls: Callable[..., Any], options: Mapping[str, Any], dtype: torch.dtype
) -> None:
    """Raises an error where an option has no name that there is, or is no number and must be."""
    if takes_any(cls):
        return
    known = [*names_of(owner), *names_of(cls)[1:]]  # without the parameters
    defaults = {name: p.default for name, p in signature_of(cls).parameters.items()}
    for name, value in options.items():
        if name not in known:
            raise unknown(f"{owner.__name__} with {name_of(cls)}", name, known)
        default = defaults.get(name)
        if isinstance(default, bool):
            check_flag(name, value)
        elif isinstance(default, (int, float)):
            check_number(name, _number(value), most=torch.finfo(dtype).max)
        elif any(isinstance(x, Real) and str(x) == "nan" for x in _parts(value)):
            raise NewtritonError(f"{name} is {quoted(value)}: NaN is no number, give one")


def _number(value: Any) -> Any:
    """Returns the number that a tensor holds, which options may be; else what is given."""
    alone = isinstance(value, Tensor) and value.numel() == 1 and fault_of(value) is None
    return value.item() if alone and not value.is_meta else value


def _parts(value: Any) -> Sequence[Any]:
    """Returns the numbers of an option that has several."""
    return [_number(part) for part in (value if isinstance(value, (tuple, list)) else [value])]


def optimizer_of(
    cls: Any, parameters: list[torch.nn.Parameter], options: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """Returns what a class makes for parameters.

    Raises:
        NewtritonError: it is no optimizer's, or does not take the options.
    """
    try:
        made = cls(parameters, **options)
    except Exception as error:  # PyTorch compares and converts whatever it is given
        raise NewtritonError(f"{name_of(cls)} refuses {quoted(dict(options))}: {error}") from error
    if isinstance(made, torch.optim.SparseAdam):
        raise NewtritonError("SparseAdam takes sparse gradients, and these are dense: take Adam")
    if not isinstance(made, torch.optim.Optimizer):
        raise no_class(cls)
    return made


def name_of(cls: Any) -> str:
    """Returns what a user calls a class, or what stands for one."""
    name = getattr(cls, "__qualname__", quoted(cls))
    return f"torch.optim.{name}" if getattr(torch.optim, name, None) is cls else name


def no_class(cls: object) -> NewtritonError:
    """Returns the error of what is no optimizer's class."""
    return NewtritonError(
        f"cls is {name_of(cls)}: give a class of torch.optim itself, e.g. torch.optim.Adam or "
        "torch.optim.SGD, and its options by name, e.g. lr=0.001"
    )


def schedule_of(schedule: Any, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """Returns what `schedule` makes for an optimizer.

    Raises:
        NewtritonError: it is no schedule that goes on after each step.
    """
    try:
        made = schedule(optimizer) if callable(schedule) else schedule
    except Exception as error:
        raise NewtritonError(
            f"schedule is {quoted(schedule)}, which failed with {type(error).__name__}: {error}"
        ) from error
    if isinstance(made, ReduceLROnPlateau) or not isinstance(made, LRScheduler):
        raise NewtritonError(
            f"schedule is {quoted(schedule)}: give what makes one of torch.optim.lr_scheduler for "
            "an optimizer, e.g. functools.partial(StepLR, step_size=100); make ReduceLROnPlateau "
            "of the attribute `optimizer`, and let it go on with a validation loss"
        )
    return made

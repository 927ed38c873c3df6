"""DTensors at the border: a module of them is captured as a whole one, and gets its parts back.

Nothing imports `torch.distributed.tensor` for those who have no DTensor: it takes its time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.tensors import check_tensor, imported, is_distributed
from ...compiler.language.trees import mapped
from .data_parallel import DataParallel

T = TypeVar("T")


def gathered(x: T) -> T:
    """Returns all of a DTensor, which all ranks of its mesh ask for; all else as it is."""
    with torch.no_grad():
        return x.full_tensor() if is_distributed(x) else x  # type: ignore[attr-defined]


def all_gathered(tensors: Mapping[str, T]) -> dict[str, T]:
    """Returns tensors by name, all of each DTensor; see `gathered`."""
    return {name: gathered(x) for name, x in tensors.items()}


def part_of(whole: Tensor, like: Any) -> Tensor:
    """Returns the view of a whole tensor that is this rank's part, as a DTensor is placed.

    Shards are cut as `torch.chunk` does. Those that FSDP makes of another plan's shards are marked
    by a `split_factor`, and are cut last.
    """
    mesh, placements = like.device_mesh, like.placements
    for i in sorted(range(mesh.ndim), key=lambda i: hasattr(placements[i], "split_factor")):
        axis = getattr(placements[i], "dim", None)
        if axis is not None:
            parts, own = whole.chunk(mesh.size(i), axis), mesh.get_coordinate()[i]
            whole = parts[own] if own < len(parts) else whole.narrow(axis, 0, 0)
    return whole


def placed(whole: Tensor, like: Any) -> Tensor:
    """Returns a DTensor that is placed like another one, from a tensor that all ranks have."""
    from torch.distributed.tensor import DTensor  # noqa: PLC0415

    own = part_of(whole, like).contiguous()
    at = like.device_mesh, like.placements
    return DTensor.from_local(own, *at, run_check=False, shape=like.shape, stride=like.stride())


def inputs_here(x: Any, parallel: DataParallel | None) -> Any:
    """Returns the inputs that this rank has of a batch; see `_own_part`."""
    return mapped(lambda values: _own_part("inputs", values, parallel), x)


def labels_here(y: Any, parallel: DataParallel | None) -> Tensor:
    """Returns the labels that this rank has of a batch; raises an error where y is no tensor."""
    return check_tensor("labels", _own_part("labels", y, parallel))


def _own_part(what: str, x: Any, parallel: DataParallel | None) -> Any:
    """Returns this rank's part of a batch that is a DTensor; anything else as it is.

    Raises:
        NewtritonError: it is not cut along the samples, or not for the ranks that make a step.
    """
    if not is_distributed(x):
        return x
    mesh, members = x.device_mesh, _members(parallel)
    cut = (p.is_shard(0) or mesh.size(i) == 1 for i, p in enumerate(x.placements))
    if {*_ranks_of(x)} == {*members} and all(cut):
        return local(x)
    raise NewtritonError(
        f"{what} are a DTensor with the placements {x.placements} on the ranks "
        f"{_listed(_ranks_of(x))}, and a step is made by {_listed(members)}: give Shard(0) on "
        "these, or this rank's part of the batch as a plain tensor"
    )


def local(x: Tensor) -> Tensor:
    """Returns the tensor that has the numbers of a tensor which are here: a DTensor's part."""
    with torch.no_grad():
        return x.to_local() if is_distributed(x) else x  # type: ignore[attr-defined]


class Placed:
    """The DTensors of a module, beside the whole tensors that a model has in their place.

    Args:
        module: the module.
        tensors: its DTensors by name.
        wholes: the whole tensors, by name.

    Attributes:
        module: the module.
        parameters: those of the DTensors that are parameters, by name.
    """

    def __init__(
        self, module: nn.Module, tensors: Mapping[str, Tensor], wholes: Mapping[str, Tensor]
    ) -> None:
        self.module = module
        self.parameters = {n: x for n, x in tensors.items() if isinstance(x, nn.Parameter)}
        self._wholes = {id(x): wholes[name] for name, x in tensors.items()}
        self._written = dict[str, tuple[int, int, int]]()

    def whole(self, x: T) -> T | Tensor:
        """Returns the whole tensor for a DTensor of the module; all else as it is."""
        return self._wholes.get(id(x), x)

    @torch.no_grad()
    def write(self) -> None:
        """Writes this rank's parts of the parameters."""
        self.settle()
        for x in self.parameters.values():
            local(x).copy_(part_of(self._wholes[id(x)], x))
        self._written = {name: _mark(x) for name, x in self.parameters.items()}

    def changed(self) -> list[str]:
        """Returns the names of the parameters that others have changed since the last `write`."""
        self.settle()
        return [
            name for name, mark in self._written.items() if _mark(self.parameters[name]) != mark
        ]

    def settle(self) -> None:
        """Has FSDP drop the whole parameters that it holds after a forward pass."""
        for part in self._keeping:
            part.reshard()

    @cached_property
    def _keeping(self) -> list[Any]:
        """What does so, when `whole` has given the module its classes back."""
        return list(_keeping(self.module))


def _mark(x: Tensor) -> tuple[int, int, int]:
    """Returns what becomes another where the numbers of a DTensor do.

    What is done with the DTensor is counted there, and with its part, at the part.
    """
    part = local(x)
    return part.data_ptr(), part._version, x._version


def _keeping(module: nn.Module) -> Iterator[Any]:
    """Yields the parts of a module that hold whole parameters after a forward pass."""
    kind = imported("torch.distributed.fsdp", "FSDPModule")
    return (part for part in module.modules() if isinstance(part, kind))


def _class_without(kind: Any) -> type:
    """Returns the class that a part of a module had before FSDP gave it one."""
    base = imported("torch.distributed.fsdp", "FSDPModule")
    return next(c for c in kind.__mro__ if not issubclass(c, base))


@contextmanager
def whole(module: nn.Module, parallel: DataParallel | None) -> Iterator[dict[str, Any]]:
    """Has a module be one of plain tensors, without what torch.distributed calls before and after.

    Yields:
        its DTensors by name, which it has again afterwards.

    Raises:
        NewtritonError: ranks hold parts that do not take part in a step, or flat parameters.
    """
    flat = imported("torch.distributed.fsdp", "FullyShardedDataParallel")
    if any(isinstance(part, flat) for part in module.modules()):
        raise NewtritonError(
            "FullyShardedDataParallel has made flat parameters of the module's: use "
            "torch.distributed.fsdp.fully_shard, whose parameters are DTensors"
        )
    keeping = list(_keeping(module))
    for part in keeping:
        part.reshard()
    named = (*module.named_parameters(), *module.named_buffers())
    tensors: dict[str, Any] = {name: x for name, x in named if is_distributed(x)}
    if tensors:
        _check_ranks(tensors, _members(parallel))
    plain = {id(x): _plain(name, x) for name, x in tensors.items()}
    with ExitStack() as stack:
        for part in keeping:
            stack.callback(setattr, part, "__class__", type(part))
            part.__class__ = _class_without(type(part))
        for part in module.modules():
            for hooks in (part._forward_pre_hooks, part._forward_hooks):
                stack.callback(_put_back, hooks, dict(hooks))
                for key in [key for key, hook in hooks.items() if _is_of_distributed(hook)]:
                    del hooks[key]
            for key, x in [*part._parameters.items(), *part._buffers.items()]:
                if id(x) in plain:
                    setattr(part, key, plain[id(x)])
                    stack.callback(setattr, part, key, x)
        yield tensors


def _put_back(hooks: dict[int, Any], known: Mapping[int, Any]) -> None:
    hooks.clear()
    hooks.update(known)


def _is_of_distributed(hook: Any) -> bool:
    """Whether a hook is one of FSDP's or of a plan of tensor parallelism."""
    function = hook.func if isinstance(hook, partial) else hook
    return str(getattr(function, "__module__", "")).startswith("torch.distributed.")


def _ranks_of(x: Any) -> list[int]:
    """Returns the ranks on which a DTensor is."""
    return x.device_mesh.mesh.flatten().tolist()


def _members(parallel: DataParallel | None) -> Collection[int]:
    """Returns the ranks that make a step together."""
    if parallel is None:
        return [dist.get_rank()]
    return dist.get_process_group_ranks(parallel.ranks.group)


def _check_ranks(tensors: Mapping[str, Any], members: Collection[int]) -> None:
    """Raises an error where ranks that make no step together hold parts of a tensor."""
    for name, x in tensors.items():
        if not {*_ranks_of(x)} <= {*members}:
            raise NewtritonError(
                f"{name} is a DTensor on the ranks {_listed(_ranks_of(x))}, and a step is made by "
                f"{_listed(members)}: give parallel=newtriton.DataParallel(group) with a group of "
                "all of them, each with its part of the batch"
            )


def _listed(ranks: Collection[int]) -> str:
    return ", ".join(map(str, sorted(ranks)))


def _plain(name: str, x: Any) -> Tensor:
    """Returns a plain tensor for a DTensor, a parameter for a parameter.

    Raises:
        NewtritonError: it is placed in a way in which no part could be written.
    """
    values, here = gathered(x), local(x)
    own = part_of(values, x)
    if own.shape != here.shape or not torch.equal(own.nan_to_num(), here.nan_to_num()):
        raise NewtritonError(
            f"{name} is a DTensor with the placements {x.placements}, parts of which cannot be "
            "written: use x.redistribute(placements=...) with Shard and Replicate"
        )
    if not isinstance(x, nn.Parameter):
        return here if own.shape == values.shape else values
    found = nn.Parameter(values, x.requires_grad)
    found._backward_hooks = x._backward_hooks
    return found

"""The flat vector of all parameters, and the ways between it and PyTorch's tensors.

Convolution weights lie O×kh×kw×C, everything else as in PyTorch. Tensors whose size is a multiple
of 16 come first, so that each of them starts on an aligned address.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.options import check_mapping, check_names
from ...compiler.graph.program import Output
from ...compiler.graph.tensors import fault_of
from ...compiler.language.network import Parameter, layer_of
from ...kernels.memory import empty_like
from ..parallel.dtensors import all_gathered

ALIGNMENT = 16


class Layout:
    """Where each parameter lies in a flat vector.

    Attributes:
        parameters: the parameters by name, in the network's order.
        slices: the place of each parameter in a flat vector, by name.
        numel: the length of a flat vector.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = {p.name: p for p in parameters}
        self.slices: dict[str, slice] = {}
        start = 0
        sizes = {name: math.prod(p.shape) for name, p in self.parameters.items()}
        for name in sorted(sizes, key=lambda n: sizes[n] % ALIGNMENT != 0):
            self.slices[name] = slice(start, start + sizes[name])
            start += sizes[name]
        self.numel = start
        self._made: dict[Callable[[str], Output], list[Output]] = {}
        self._sizes = [sizes[name] for name in self.slices]
        places = {name: i for i, name in enumerate(self.slices)}
        self._views = [
            (name, places[name], None if len(p.shape) == 1 else p.shape)
            for name, p in self.parameters.items()
        ]

    @cached_property
    def layers(self) -> dict[str, list[str]]:
        """The names of parameters by layer, in the network's order."""
        result: dict[str, list[str]] = {}
        for name in self.parameters:
            result.setdefault(layer_of(name), []).append(name)
        return result

    def check_layers(self, what: str, names: object) -> tuple[str, ...]:
        """Returns names of layers with parameters; raises an error where one is none."""
        found = check_names(what, names)
        for name in found:
            if name not in self.layers:
                known = ", ".join(map(repr, self.layers))
                raise NewtritonError(f"{what} names {quoted(name)}: give layers, of {known}")
        return found

    def runs(self, names: Collection[str]) -> list[slice]:
        """Returns the parts of a flat vector that the named parameters fill, as few as can be."""
        found: list[slice] = []
        for at in (at for name, at in self.slices.items() if name in names):
            if found and found[-1].stop == at.start:
                found[-1] = slice(found[-1].start, at.stop)
            else:
                found.append(at)
        return found

    def places(self, names: Iterable[str]) -> Tensor:
        """Returns the indices of the named parameters' elements in a flat vector."""
        parts = [self.slices[name] for name in names]
        return torch.cat([torch.arange(p.start, p.stop, device="cpu") for p in parts])

    def check(self, vector: Tensor, what: str) -> Tensor:
        """Returns the vector itself.

        Raises:
            NewtritonError: its shape is not that of the parameters.
        """
        fault = fault_of(vector) if isinstance(vector, Tensor) else None
        if fault is not None:
            raise NewtritonError(f"{what} is {fault}")
        if not isinstance(vector, Tensor) or vector.shape != (self.numel,):
            got = tuple(vector.shape) if isinstance(vector, Tensor) else quoted(vector)
            raise NewtritonError(
                f"{what} is {got}: give a flat vector of {self.numel} elements, "
                "e.g. from model.flatten(dict)"
            )
        return vector

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Returns views of a flat vector in the model's own shapes."""
        parts = torch.split_with_sizes(flat, self._sizes)
        return {
            name: parts[i] if shape is None else parts[i].view(shape)
            for name, i, shape in self._views
        }

    def torch_views(self, flat: Tensor) -> dict[str, Tensor]:
        """Returns views of a flat vector in PyTorch's shapes."""
        return {
            name: v.permute(self.parameters[name].order) for name, v in self.views(flat).items()
        }

    def flatten(self, tensors: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """Returns one flat vector from tensors in PyTorch's shapes, by name.

        Raises:
            NewtritonError: lists everything that is missing, unexpected or misshapen.
        """
        views = self.torch_views(flat := torch.empty_like(like))
        tensors = all_gathered(check_mapping("tensors", tensors))
        raise_faults("flatten", faults(views, tensors))
        for name, view in views.items():
            view.copy_(tensors[name].detach())
        return flat

    def _keys(self, key: Callable[[str], Output]) -> list[Output]:
        """The outputs of a class, one for each parameter, made on first use."""
        if key not in self._made:
            self._made[key] = [key(name) for name in self.parameters]
        return self._made[key]

    def target(
        self, key: Callable[[str], Output], outputs: Collection[Output], like: Tensor
    ) -> tuple[Tensor, dict[Output, Tensor]]:
        """Returns a new flat vector, and its views for the outputs that will be written there.

        Args:
            key: the class of outputs of which a program has one for each parameter.
            outputs: the outputs of the program; the vector is zero where an output is missing.
            like: a flat vector of the same dtype and device.
        """
        flat = empty_like(like)
        views = dict(zip(self._keys(key), self.views(flat).values(), strict=True))
        for missing in views.keys() - outputs:
            views.pop(missing).zero_()
        return flat, views


def faults(expected: Mapping[str, Tensor], given: Mapping[str, object]) -> list[str]:
    """Returns what is missing, unexpected, of the wrong shape, not a tensor or not finite.

    Args:
        expected: the tensors that take over what is given.
        given: what is given.
    """
    found = [f"missing {name}" for name in expected if name not in given]
    given = {plain(name): x for name, x in given.items()}
    for name, tensor in given.items():
        if name not in expected:
            found.append(f"unexpected {name}")
        elif (fault := fault_of_entry(tensor, expected[name])) is not None:
            found.append(f"{name} {fault}")
    return found


def fault_of_entry(tensor: object, like: Tensor) -> str | None:
    """Returns why a tensor cannot be taken over into another one; None where it can."""
    if not isinstance(tensor, Tensor):
        return f"is {type(tensor).__name__}, not a tensor"
    if (fault := fault_of(tensor)) is not None:
        return f"is {fault}"
    if tensor.is_meta:
        return "is on the device 'meta', which has no numbers"
    if tensor.shape != like.shape:
        return f"has shape {tuple(tensor.shape)}, not {tuple(like.shape)}"
    return None if torch.isfinite(tensor.to(like.dtype)).all() else "has values that are not finite"


def plain(name: str) -> str:
    """Returns the name of an entry as a list of faults has it: quoted where it does not print."""
    return name if name.isprintable() else quoted(name)


def raise_faults(call: str, found: list[str]) -> None:
    """Raises one error that lists every fault, if there is any."""
    if found:
        raise NewtritonError(f"{call}: " + "; ".join(found))

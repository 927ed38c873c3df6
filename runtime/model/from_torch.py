"""`newtriton.from_torch`: a `torch.nn.Module` with a loss becomes a model, and stays alive.

The module's parameters are views of the model's, and both have the same running statistics: after
every step the module is the trained network. Of parameters that are DTensors the model has all, and
the module's parts are written after every step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...compiler.capture.captured import capture
from ...compiler.graph.calls import checked
from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.options import check_mapping
from ...compiler.language.inputs import InputSpec, specifications
from ...compiler.language.loss import Loss, check_loss
from ...compiler.language.network import Traced
from ...compiler.language.trees import mapped, named
from ..backend import Backend
from ..inputs.data import Checked
from ..inputs.layout import fault_of_entry, faults, plain, raise_faults
from ..parallel.data_parallel import DataParallel
from ..parallel.dtensors import Placed, all_gathered, local, placed, whole
from ..remaking import Recipe, Saved
from .compile import DTYPES, check_parallel, compiled, place_of
from .linearization import Linearization
from .model import Model

SAMPLES = 2  # of an example: with one, PyTorch takes the batch for an axis that is broadcast
WRAPPERS = ("module", "_orig_mod")  # where DataParallel and torch.compile keep a module


@dataclass(frozen=True)
class Entry:
    """A tensor of a module.

    Attributes:
        name: its name.
        owner: the part of the module that has it.
        key: its name there.
        tensor: itself.
        pointer: where its elements are; 0 for a DTensor, which may get others.
    """

    name: str
    owner: nn.Module
    key: str
    tensor: Tensor
    pointer: int

    @property
    def kept(self) -> bool:
        """Whether the module still has the tensor, and its elements where they were."""
        now = getattr(self.owner, self.key, None)
        return now is self.tensor and self.tensor.data_ptr() == self.pointer


def _entry(module: nn.Module, name: str, tensor: Tensor) -> Entry:
    path, _, key = name.rpartition(".")
    return Entry(name, module.get_submodule(path), key, tensor, tensor.data_ptr())


class CapturedModel(Model):
    """A model whose network is a module that stays alive; `from_torch` makes it.

    Attributes:
        module: the module.
    """

    module: nn.Module
    _given: nn.Module
    _parameters: dict[str, Entry]
    _buffers: list[Entry]
    _placed: Placed
    _fixed: dict[str, tuple[Tensor, int]]
    _used: frozenset[str]
    _traced_by: tuple[int, str | int | None]

    def bind(
        self,
        module: nn.Module,
        given: nn.Module,
        samples: int,
        output: str | int | None,
        tensors: Mapping[str, Any],
    ) -> None:
        """Takes over the module's values and makes its parameters views of the model's.

        Args:
            module: the module, with plain tensors.
            given: it as it was given, perhaps in a wrapper.
            samples: of how many the batch was by which it was traced.
            output: which part of its output counts.
            tensors: the DTensors that it has otherwise, by name.
        """
        self.module, self._given, self._traced_by = module, given, (samples, output)
        parameters = dict(module.named_parameters())
        with torch.no_grad():
            for name, view in self.layout.torch_views(self.params).items():
                view.copy_(parameters[name])
                parameters[name].data = view
        buffers = dict(module.named_buffers())
        self.buffers |= {name: buffers[name] for name in self.buffers if name in buffers}
        self._placed = Placed(module, tensors, parameters | buffers)
        known = parameters | buffers | dict(tensors)
        self._parameters = {n: _entry(module, n, known[n]) for n in parameters}
        self._buffers = [_entry(module, n, known[n]) for n in buffers]
        for name in sorted(self.buffers.keys() & tensors.keys()):
            if self.buffers[name].data_ptr() != local(known[name]).data_ptr():
                raise NewtritonError(
                    f"{name} is a DTensor of which a rank has a part, and training changes it: "
                    "give each rank all of it, with the placement Replicate()"
                )
        fixed = {name: known[name] for name in buffers if name not in self.buffers}
        self._fixed = {name: (b, b._version) for name, b in fixed.items()}
        self._used = self.net.used  # type: ignore[attr-defined]

    def to_torch(self) -> nn.Module:
        """Returns the module that was given, with the model's parameters and running statistics."""
        self.check_module()
        self.publish()
        return self._given

    def publish(self) -> None:
        """Writes the parts of this rank into a module of DTensors; see `Model.publish`."""
        self._placed.write()

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Returns views of a flat vector in PyTorch's shapes; see `Model.unflatten`.

        Where a parameter is a DTensor, so is what is returned, in its placement: a copy.
        """
        views = super().unflatten(vector)
        return views | {n: placed(views[n], x) for n, x in self._placed.parameters.items()}

    def _recipe(self) -> Recipe:
        """Returns how the model is made again: of a copy of the module, captured again."""
        if self._placed.parameters:
            raise NewtritonError(
                f"{type(self.module).__name__} has DTensors, which stay on their ranks: make a "
                "model of another module, and give it model.state_dict()"
            )
        self.check_module()
        copied = Saved(copy.deepcopy(self._given))
        samples, output = self._traced_by
        of_model = self.criterion, self.backend, self.dtype, self.weight_decay, self.dropout.seed
        of_model = *of_model, self.parallel
        return _captured_again, (copied, samples, output, self.input_shape, *of_model)

    # --- what the module does meanwhile -----------------------------------------------------------

    def check_module(self) -> None:
        """Raises an error where the module no longer has the tensors that it had."""
        changed = self._placed.changed()
        self._check_kept()
        if changed:
            raise NewtritonError(
                f"{changed[0]} is a DTensor that has been changed outside of the model: call "
                "model.load_state_dict(module.state_dict()) to take its values over"
            )

    def _check_kept(self) -> None:
        """Raises an error where tensors have been replaced, or are others than constants were."""
        moved = [e.name for e in (*self._parameters.values(), *self._buffers) if not e.kept]
        if moved:
            raise NewtritonError(
                f"{moved[0]} of {type(self.module).__name__} has been replaced or moved since "
                "from_torch, so the module and the model are two now: call from_torch again"
            )
        changed = [name for name, (b, version) in self._fixed.items() if b._version != version]
        if changed:
            raise NewtritonError(
                f"buffer {changed[0]} has been changed, which the model holds as a constant: call "
                "from_torch again"
            )

    @property
    def frozen(self) -> frozenset[str]:
        """The names of the parameters that stay as they are, as the module's flags say it."""
        if "_parameters" not in vars(self):
            return super().frozen
        names = self.layout.parameters
        self._hold(frozenset(n for n in names if not self._is_trained(n)))
        return super().frozen

    def _is_trained(self, name: str) -> bool:
        return name in self._used and self._parameters[name].tensor.requires_grad

    def freeze(self, *names: str, frozen: bool = True) -> None:
        """Freezes parameters, or releases them, in the module too; see `Compiled.freeze`."""
        super().freeze(*names, frozen=frozen)
        held = super().frozen
        for name in self._used:
            self._parameters[name].tensor.requires_grad_(name not in held)

    def linearize(self, *given: Any, **options: Any) -> Linearization[Model]:
        """Returns a linearization, with the flags of now; see `Model.linearize`."""
        _ = self.frozen
        return super().linearize(*given, **options)

    def gradient(self, *given: Any, **options: Any) -> tuple[float, Tensor, dict[str, Tensor]]:
        """Returns h, its gradient and statistics; see `Model.gradient`."""
        _ = self.frozen
        return super().gradient(*given, **options)

    def check(self, traced: Traced, x: Any, y: Tensor | None) -> Checked:
        """Returns a batch as programs read it; see `Compiled.check`, and `check_module`."""
        self.check_module()
        return super().check(traced, x, y)

    def watched(self) -> Iterator[tuple[str, Tensor]]:
        """Yields what makes a linearization stale when it is changed in place."""
        yield from super().watched()
        own = (
            entry for name, entry in self._parameters.items() if name not in self._placed.parameters
        )
        yield from (("parameters", entry.tensor) for entry in own)

    # --- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of all that the module's `state_dict` has, and of running statistics.

        In the place of a DTensor stands all of it, so that any number of ranks can take it over.
        """
        self.check_module()
        present = {**self.module.state_dict(keep_vars=True), **self.buffers}
        return {
            name: self._placed.whole(x).detach().clone(memory_format=torch.contiguous_format)
            for name, x in present.items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over all entries; where any is missing, unexpected or misshapen, none.

        A module's tied parameters may stand there once or by all of their names; the prefixes of
        `DataParallel` and of `torch.compile` are left out. Buffers that do not change must be as
        they are. DTensors are gathered, by all ranks together.

        Raises:
            NewtritonError: lists every fault at once.
        """
        self._placed.settle()
        self._check_kept()
        state = all_gathered(check_mapping("the entries", state))
        given = {_without_wrappers(name): tensor for name, tensor in state.items()}
        present = self.module.state_dict(keep_vars=True)
        first = {id(entry.tensor): name for name, entry in self._parameters.items()}
        own = {**self.layout.torch_views(self.params), **self.buffers}
        taken = {name: tensor for name, tensor in given.items() if name in own}
        found: list[str] = []
        for name in given.keys() - own.keys():
            known = present.get(name)
            tied = first.get(id(known))
            if tied is not None and taken.setdefault(tied, given[name]) is given[name]:
                continue
            found += _fault(plain(name), given[name], self._placed.whole(known), tied, taken)
        found += faults(own, taken)
        raise_faults("load_state_dict", sorted(found))
        super().load_state_dict(taken)


def _fault(
    name: str, tensor: Tensor, known: Tensor | None, tied: str | None, taken: Mapping[str, Tensor]
) -> Iterator[str]:
    """Yields what is wrong with an entry of a state that the model does not keep by that name."""
    if known is None:
        yield f"unexpected {name}"
    elif (fault := fault_of_entry(tensor, known)) is not None:
        yield f"{name} {fault}"
    elif tied is None and not torch.equal(known, tensor.to(known)):
        yield f"{name} is a constant of the model and has other values"
    elif tied is not None and not _agree(taken[tied], tensor, known):
        yield f"{name} is tied to {tied} and has other values"


def _agree(first: Tensor, second: Tensor, known: Tensor) -> bool:
    """Whether two entries of a parameter are equal, or the first is a fault by itself."""
    return fault_of_entry(first, known) is not None or torch.equal(first, second)


@checked
def from_torch(
    module: nn.Module,
    example: Any = None,
    loss: Loss | None = None,
    *,
    input_shape: Any = None,
    output: str | int | None = None,
    backend: str = "auto",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    precision: str = "ieee",
    contractions: str = "auto",
    cuda_graphs: bool = True,
    weight_decay: float = 0.0,
    seed: int = 0,
    parallel: DataParallel | None = None,
) -> CapturedModel:
    """Returns the model of a PyTorch module with a loss.

    The module is exported in training and in evaluation mode, and its graph becomes the model's.
    It stays alive: its parameters become views of `model.params`, running statistics of batch norm
    are the same tensors, so after every step the module is the trained network. Names are the
    module's own. Parameters with `requires_grad=False`, and such that the output does not depend
    on, are frozen. Of DTensors the model has all; the module's parts are written after every step.

    Args:
        module: the module.
        example: a batch: a tensor, or a tuple of tensors or a dictionary of them by argument.
        loss: the loss of one sample.
        input_shape: what `compile` takes, instead of an example.
        output: which part of a structured output counts, by index or field; a tensor, or the field
            `logits`, needs no word.
        backend: as in `compile`.
        device: where parameters live and programs run, the module's unless given; the module moves.
        dtype: float32 or float64, the module's unless given; the module is cast.
        precision: as in `compile`.
        contractions: as in `compile`.
        cuda_graphs: as in `compile`.
        weight_decay: λ ≥ 0, on all parameters that are not frozen.
        seed: the seed of what drops out.
        parallel: as in `compile`; the module has the same state on all ranks. Its parameters may
            be DTensors, of `fully_shard` for example, on some of the group's ranks.

    Raises:
        NewtritonError: lists everything in the module that cannot be taken, or names an option.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        >>> model = nt.from_torch(net, torch.zeros(2, 4), nt.CrossEntropyLoss())
        >>> [name for name, _ in model.named_parameters()]
        ['0.weight', '0.bias', '2.weight', '2.bias']
        >>> _ = model.params.zero_()
        >>> float(net[0].weight.abs().sum())
        0.0
    """
    if not isinstance(module, nn.Module):
        raise NewtritonError(f"the module is {quoted(module)}: give a torch.nn.Module")
    criterion = check_loss(loss)
    check_parallel(parallel)
    inner = _unwrapped(module)
    place, kind = _place(inner, device, dtype)
    specs = _specifications(example, input_shape)
    samples = _samples(example)
    with whole(inner, parallel) as tensors, _moved(inner, place, kind):
        _check_place(tensors, place, kind)
        captured = capture(inner, _batch(samples, specs, place, kind), output)
        model = compiled(
            CapturedModel, captured, specs, criterion, backend=backend, device=place, dtype=kind,
            precision=precision, contractions=contractions, cuda_graphs=cuda_graphs,
            weight_decay=weight_decay, seed=seed, parallel=parallel,
        )  # fmt: skip
        model.bind(inner, module, samples, output, tensors)
    model.publish()
    return model


def _check_place(tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> None:
    """Raises an error where DTensors would have to be moved or cast."""
    for name, x in tensors.items():
        if x.device != device or (x.is_floating_point() and x.dtype != dtype):
            raise NewtritonError(
                f"{name} is a DTensor of {x.dtype} on {x.device}, the model is to have {dtype} on "
                f"{device}: move and cast the module before its parameters become DTensors"
            )


@contextmanager
def _moved(module: nn.Module, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Moves and casts a module; where an error follows, it gets back what it had."""
    parameters = [(parameter, parameter.data) for parameter in module.parameters()]
    buffers = [(part, dict(part._buffers)) for part in module.modules()]
    try:
        module.to(device=device, dtype=dtype)
        yield
    except BaseException:
        for parameter, values in parameters:
            parameter.data = values
        for part, kept in buffers:
            part._buffers.update(kept)
        raise


@torch.inference_mode(False)
def _captured_again(
    saved: Saved,
    samples: int,
    output: str | int | None,
    input_shape: Any,
    loss: Loss,
    backend: Backend,
    dtype: torch.dtype,
    weight_decay: float,
    seed: int,
    parallel: DataParallel | None = None,
) -> CapturedModel:
    """Returns the model of a copy of a module."""
    module = saved.value
    inner = _unwrapped(module)
    batch = _batch(samples, specifications(input_shape), backend.device, dtype)
    captured = capture(inner, batch, output)
    model = CapturedModel(captured, input_shape, loss, backend, dtype, weight_decay, seed, parallel)
    model.bind(inner, module, samples, output, {})
    return model


def _unwrapped(module: nn.Module) -> nn.Module:
    """Returns the module in the wrappers of `DataParallel` and `torch.compile`."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    inner = module.module if isinstance(module, parallel) else getattr(module, "_orig_mod", None)
    return _unwrapped(inner) if isinstance(inner, nn.Module) else module


def _without_wrappers(name: str) -> str:
    """Returns a name without the prefixes of wrappers."""
    while name.partition(".")[0] in WRAPPERS:
        name = name.partition(".")[2]
    return name


def _place(
    module: nn.Module, device: torch.device | str | None, dtype: torch.dtype | None
) -> tuple[torch.device, torch.dtype]:
    """Returns the device and the dtype, the module's own unless they are given."""
    parameters = dict(module.named_parameters())
    if not parameters:
        raise NewtritonError(
            f"{type(module).__name__} has no parameters: there is nothing to train"
        )
    devices, dtypes = (
        {getattr(p, a): n for n, p in parameters.items()} for a in ("device", "dtype")
    )
    for what, found, given in (("devices", devices, device), ("dtypes", dtypes, dtype)):
        if given is None and len(found) > 1:
            listed = ", ".join(f"{name} on {value}" for value, name in found.items())
            raise NewtritonError(
                f"parameters have several {what} ({listed}): give {what[:-1]}= for all"
            )
    kind = next(iter(dtypes)) if dtype is None else dtype
    if not isinstance(kind, torch.dtype) or kind not in DTYPES:
        raise NewtritonError(
            f"the parameters are {quoted(kind)}: give dtype=torch.float32 or torch.float64, "
            "to which the module is cast"
        )
    return place_of(next(iter(devices)) if device is None else device), kind


def _specifications(example: Any, input_shape: Any) -> Any:
    """Returns what the inputs are, from an example or from shapes."""
    if (example is None) is (input_shape is None):
        raise NewtritonError("give an example batch or input_shape=, one of them")
    if example is None:
        return specifications(input_shape)
    return mapped(_specification, example)


def _specification(x: Any) -> InputSpec:
    """Returns what an input is, from a batch of it."""
    if not isinstance(x, Tensor) or x.dim() == 0:
        raise NewtritonError(
            f"the example has {quoted(x)}: give tensors with the batch as first axis"
        )
    if x.is_floating_point() or x.dtype in (torch.int64, torch.int32):
        return InputSpec(tuple(x.shape[1:]), "float" if x.is_floating_point() else "int")
    raise NewtritonError(f"the example has a tensor of {x.dtype}: give floats or int64")


def _samples(example: Any) -> int:
    """Returns of how many samples the batch is by which the module is traced."""
    counts = {} if example is None else {name: len(x) for name, x in named(example).items()}
    if len({*counts.values()}) > 1:
        raise NewtritonError(
            f"the example has {counts} samples: the first axis of every input is the batch"
        )
    return max(*counts.values(), SAMPLES) if counts else SAMPLES


def _batch(samples: int, specs: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Returns a batch by which the module is traced."""

    def values(spec: InputSpec) -> Tensor:
        kind = dtype if spec.kind == "float" else torch.int64
        return torch.zeros(samples, *spec.shape, dtype=kind, device=device)

    return mapped(values, specs)
